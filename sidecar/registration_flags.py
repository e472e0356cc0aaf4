"""What the flags on registration say: under which name and where this sidecar is reached, and how to find out whether
its app is well. Pure.

Who calls it: the table in ``sidecar.option_table``. Every function takes the text of a flag, and raises ValueError with
a clause that says what is wrong with it.
"""

from __future__ import annotations

import re
import shlex
from typing import Literal

import msgspec

from sidecar.addresses import parse_host_port, parse_ip, parse_port

_INSTANCE = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_PATH = re.compile(r"/[!-~]{0,1023}", re.ASCII)
# Kubernetes: a name of 63 characters, for keys with the name of a domain before it.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}", re.ASCII)
_VALUE = re.compile(rf"(?:{_NAME})?", re.ASCII)

Labels = tuple[tuple[str, str], ...]


class Advertise(msgspec.Struct, frozen=True):
    """Where others reach this sidecar. ``address`` is empty where the control plane is to see it itself; ``port`` None:
    the inbound listener's own, or with interception the app's."""

    address: str = ""
    port: int | None = None


class HealthCheck(msgspec.Struct, frozen=True):
    """``port`` None: that of --upstream. ``path`` is for http, ``command`` for exec."""

    kind: Literal["http", "tcp", "exec"]
    port: int | None = None
    path: str = ""
    command: tuple[str, ...] = ()


def parse_advertise(text: str) -> Advertise | None:
    """``auto``, ``ADDR``, ``ADDR:PORT``, ``:PORT``, IPv6 in brackets where a port follows; ``none`` is None."""
    if text in ("auto", "none"):
        return Advertise() if text == "auto" else None
    ip, port = parse_ip(text), None
    if ip is None and text.startswith(":"):
        return Advertise(port=parse_port(text[1:]))
    if ip is None:
        found = parse_host_port(text)
        ip, port = found.ip, found.port
    if ip is None or ip.is_unspecified:
        raise ValueError(f"{text!r} is no address at which anybody could be reached")
    return Advertise(str(ip), port)


def parse_health(text: str) -> HealthCheck | None:
    """``http:/PATH``, ``http:PORT/PATH``, ``tcp``, ``tcp:PORT``, ``exec:CMD``; ``none`` is None."""
    if text == "none":
        return None
    kind, colon, rest = text.partition(":")
    if kind == "exec" and colon:
        return HealthCheck("exec", command=_command(rest))
    port, slash, path = rest.partition("/")
    if kind == "tcp" and not slash and bool(port) == bool(colon):
        return HealthCheck("tcp", parse_port(port) if port else None)
    if kind != "http" or not slash:
        raise ValueError(f"{text!r} is no way to look at an app")
    if not _PATH.fullmatch(slash + path):
        raise ValueError(f"{slash + path!r} is not a path")
    return HealthCheck("http", parse_port(port) if port else None, slash + path)


def _command(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        words = ()
    if not words or any("\0" in word for word in words):
        raise ValueError(f"{text!r} is not a command")
    return words


def parse_labels(text: str) -> Labels:
    """``KEY=VALUE,...``, of which of each key the last counts; ``none`` is the empty tuple."""
    found: dict[str, str] = {}
    for part in () if text == "none" else text.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise ValueError(f"{part.strip()!r} is not a label")
        found[key] = value
    return tuple(found.items())


def parse_instance(text: str) -> str:
    """A name of small letters, digits, dots and hyphens; ``auto`` is the empty one."""
    if text == "auto":
        return ""
    if not _INSTANCE.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of lower-case letters, digits, dots and hyphens")
    return text


def instance_name(host: str, chance: int) -> str:
    """Of this process: the machine's name, as far as it can be one, and eight digits by chance."""
    told = re.sub(r"[^a-z0-9.-]", "-", host.lower())[:54].strip(".-")
    return f"{told}-{chance & 0xFFFFFFFF:08x}" if told else f"{chance & 0xFFFFFFFF:08x}"
