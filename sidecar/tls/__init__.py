"""TLS: handshakes by OpenSSL, the records after them, and the acceptor, which finds out who a peer is."""
