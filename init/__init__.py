"""``sidecar-init``: installs the rules that lead a pod's connections to the sidecar, and takes them away again.

It runs once, before the sidecar, with CAP_NET_ADMIN; the sidecar itself needs no privilege. What may be imported here:
``sidecar.ports``, pyroute2 and the standard library.
"""
