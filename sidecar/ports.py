"""The port numbers that the field knows, in one place. Imports nothing."""

ADMIN = 15000
OUTBOUND = 15001
INBOUND = 15006
SCRAPE = 15020
CONTROL = 15010
CONTROL_TLS = 15012
