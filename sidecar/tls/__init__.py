"""TLS: handshakes by OpenSSL, the records after them, and the acceptor, which authenticates a peer."""
