"""The data plane: a service-mesh sidecar in pure Python."""

__version__ = "0.1.0"
