"""The control plane's parts, without I/O where they have none."""
