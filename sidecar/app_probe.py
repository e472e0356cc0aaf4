"""What ``--probe`` says: a name, and where on this machine to look whether the app is well. Pure."""

from __future__ import annotations

import re

import msgspec

from sidecar.addresses import parse_port

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_PATH = re.compile(r"/[!-~]{0,1023}", re.ASCII)


class Probe(msgspec.Struct, frozen=True):
    """``path`` is what to ask for over HTTP; empty: a TCP connection is enough."""

    name: str
    port: int
    path: str

    def __str__(self) -> str:
        return f"{self.name}=http:{self.port}{self.path}" if self.path else f"{self.name}=tcp:{self.port}"


def parse_probes(text: str) -> tuple[Probe, ...]:
    """``NAME=http:PORT/PATH`` and ``NAME=tcp:PORT``, with commas between several; ``none`` is the empty tuple.

    Raises ValueError with a clause that says what is wrong. A comma in a path is written %2C.
    """
    probes = () if text == "none" else tuple(_probe(part.strip()) for part in text.split(","))
    names = [probe.name for probe in probes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is given twice")
    return probes


def _probe(text: str) -> Probe:
    name, _, rest = text.partition("=")
    scheme, _, where = rest.partition(":")
    port, slash, path = where.partition("/")
    if not _NAME.fullmatch(name) or scheme not in ("http", "tcp") or (scheme == "tcp" and slash):
        raise ValueError(f"{text!r} is not a probe")
    if slash and not _PATH.fullmatch(slash + path):
        raise ValueError(f"{slash + path!r} is not a path")
    return Probe(name, parse_port(port), "" if scheme == "tcp" else "/" + path)
