"""The DNS server of ``--dns``: answers the names that it knows, and forwards the rest. Imported only where it is on."""
