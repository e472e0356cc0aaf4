"""/etc/hosts: this machine's own table of names. dnspython does not read it.

Called by ``net.resolve``.
"""

from __future__ import annotations

import os

from sidecar.addresses import parse_ip


class Hosts:
    """The file as a table, read again when its modification time or its size changes. A missing file is empty."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._table: dict[str, list[str]] = {}

    def look_up(self, name: str) -> list[str]:
        """Return the addresses of ``name`` (lower case, no dot at its end) in the file's order; empty if none."""
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._table = parse_hosts(file.read())
                self._seen = seen
        except OSError:  # missing, or not readable for us: treat it as empty
            self._seen, self._table = None, {}
        return self._table.get(name, [])


def parse_hosts(text: str) -> dict[str, list[str]]:
    """Parse ``address name alias ...`` per line; ``#`` begins a comment (hosts(5)). Any other line is ignored."""
    table: dict[str, list[str]] = {}
    for line in text.splitlines():
        fields = line.partition("#")[0].split()
        address = parse_ip(fields[0]) if fields else None
        if address is None:
            continue
        for name in fields[1:]:
            known = table.setdefault(name.lower().rstrip("."), [])
            if str(address) not in known:
                known.append(str(address))
    return table
