"""sidecar-init: what can be tried without a namespace."""
