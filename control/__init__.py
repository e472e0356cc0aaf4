"""The control plane: who belongs to the mesh, and what its members may ask for.

The command is ``sidecar-control``. It is a process of its own and shares with the sidecar only types that both sides
of the wire need; it never imports the data plane (import-linter holds it), nor the data plane this.
"""
