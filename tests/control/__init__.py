"""The control plane over real HTTP: its two doors, in this process, on a free port and a socket of its own."""
