"""Whose network namespace this is: a pod's, or the node's own.

Who calls it: ``init.cli``, before anything is changed: rules meant for one pod would capture the whole node.

Comparing ``/proc/self/ns/net`` with that of process 1 says nothing in a pod, where process 1 is the pod's own; counting
interfaces guesses. But the kernel tells: settings of the whole machine, as opposed to those of a namespace, are shown
under /proc/sys/net only to whoever is in the namespace that the machine booted with. ``net.core.netdev_budget`` (how
many packets one round of polling may take) is one of those, since Linux 2.6. What can't be read is taken for the
node's own.

A pod that is a virtual machine of its own (Kata Containers) may have its network in the namespace that this machine
booted with: that is the one case where ``--allow-host-network`` is right.
"""

from __future__ import annotations

from pathlib import Path

_SETTINGS = Path("/proc/sys/net/core")
_ONE_OF_EACH_NAMESPACE = "somaxconn"
_ONE_OF_THE_MACHINE = "netdev_budget"


def is_the_nodes(settings: Path = _SETTINGS) -> bool:
    """Whether this process is in the network namespace that the machine booted with, as far as can be told."""
    if not (settings / _ONE_OF_EACH_NAMESPACE).exists():
        return True
    return (settings / _ONE_OF_THE_MACHINE).exists()
