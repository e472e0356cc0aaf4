"""The port numbers that the field knows, in one place. Imports nothing."""

ADMIN = 15000
OUTBOUND = 15001
INBOUND = 15006
SCRAPE = 15020
CONTROL = 15010
CONTROL_TLS = 15012
DNS = 15053
DRIFT = 15005  # reserved: the rules lead it back to the proxy that dials it, and nobody is served there
