"""Pods without a cluster: network namespaces on a bridge, with real rules, real processes and real packets.

``bed`` makes pods, ``pod`` is what a test does with one, ``conftest`` hands them out. Needed: root, and what
``.ci/run`` installs. Nothing appears in the machine's own network namespace.
"""
