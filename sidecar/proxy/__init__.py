"""Inbound and outbound: from a connection's first byte to its record."""
