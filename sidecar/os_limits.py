"""What the machine grants this process: descriptors and memory.

Who calls it: ``sidecar.settings``, for defaults that depend on where we run. It reads the kernel's files and changes
nothing.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import PurePosixPath

# No machine has 256 TiB: cgroup v1 writes a number near 2**63 where there is no limit.
NO_LIMIT = 1 << 48
_PR_SET_DUMPABLE = 4  # prctl(2)
UNLIMITED_DESCRIPTORS = 1 << 20  # what "unlimited" means to the kernel by default (fs.nr_open)


def descriptor_limit() -> int:
    """How many descriptors this process may have open now (the soft limit)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def keep_memory_private() -> None:
    """No core dumps from now on, and no look into this process by others of its user: there is a key in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import ctypes  # only who has a key needs it

    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def default_max_connections() -> int:
    """Half of the descriptors: each connection may need one to its client and one to its upstream."""
    return max(1, descriptor_limit() // 2)


def memory_limit(membership: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> int:
    """The tightest memory limit of our cgroup and those above it, in bytes; 0 where there is none.

    ``membership`` is a file as cgroups(7) describes it, ``mount`` where the hierarchies are mounted.
    """
    limits = [found for found in map(_read_limit, _limit_files(_read(membership), mount)) if found is not None]
    return min(limits, default=0)


def _limit_files(membership: str, mount: str) -> Iterator[str]:
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0":
            root, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = f"{mount}/memory", "memory.limit_in_bytes"
        else:
            continue
        # The path may be the host's, of which a container sees only the end: then just the mount's root exists.
        here = PurePosixPath(group)
        for above in (here, *here.parents):
            yield f"{root}{str(above).rstrip('/')}/{name}"


def _read_limit(path: str) -> int | None:
    text = _read(path).strip()
    if not text.isdecimal() or int(text) >= NO_LIMIT:
        return None
    return int(text)


def _read(path: str) -> str:
    """The file's text; empty where the kernel does not offer it, which is no limit and no error."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
