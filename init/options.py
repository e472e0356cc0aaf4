"""The flags of ``sidecar-init``: each with its short form, its twin in the environment, its default and its meaning.

Who reads it: ``init.cli`` (values and ``--help``) and the generator of the reference page. A parser takes the text and
returns the value, or raises ValueError with a clause that says what is wrong with it. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from init.rules import Network, Range

PORTS = "PORTS|*|none"
LIST = "PORTS|none"
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_HIGHEST_ID = (1 << 32) - 2  # -1 stands for nobody
_LONGEST_NAME = 15  # IFNAMSIZ, less the zero at the end

CAPTURE = "What is captured"
ALONE = "What is left alone"
NAMES = "Names"
SIDECAR = "The sidecar"
DOING = "What to do"


@dataclass(frozen=True, slots=True)
class Option:
    """One flag. ``metavar`` is empty for one that takes no value."""

    field: str
    short: str
    group: str
    metavar: str
    default: str
    example: str
    help: str
    parse: Callable[[str], object]

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.field.replace("_", "-")

    @property
    def twin(self) -> str:
        """The variable that says the same in the environment; the flag wins over it."""
        return "SIDECAR_INIT_" + self.field.upper()


@dataclass(slots=True)
class Given:
    """What was found on a command line: {field: text}, and what is wrong with it, a line each."""

    flags: dict[str, str] = field(default_factory=dict)
    help: bool = False
    problems: list[str] = field(default_factory=list)


def port(text: str) -> int:
    """1 to 65535."""
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def ranges(text: str) -> tuple[Range, ...]:
    """``80,8000-8100``; ``none`` or nothing: none."""
    return tuple(_range(word) for word in _words(text))


def ranges_or_all(text: str) -> tuple[Range, ...] | None:
    """The same; ``*``: None, which stands for all."""
    return None if text.strip() == "*" else ranges(text)


def networks(text: str) -> tuple[Network, ...]:
    """``10.0.0.0/8,fd00::/8``; ``none`` or nothing: none."""
    return tuple(_network(word) for word in _words(text))


def networks_or_all(text: str) -> tuple[Network, ...] | None:
    """The same; ``*``: None, which stands for all."""
    return None if text.strip() == "*" else networks(text)


def ids(text: str) -> tuple[int, ...]:
    """Numbers of users or groups."""
    found = []
    for word in _words(text):
        if not _NUMBER.fullmatch(word) or int(word) > _HIGHEST_ID:
            raise ValueError(f"{word!r} is not the number of a user or group")
        found.append(int(word))
    return tuple(found)


def proxy_ids(text: str) -> tuple[int, ...]:
    """As ``ids``, at least one."""
    found = ids(text)
    if not found:
        raise ValueError("nobody is named, so the sidecar's own connections would be led back to it")
    return found


def user_ports(text: str) -> tuple[tuple[int, tuple[Range, ...]], ...]:
    """``UID:PORTS``, several of them separated by semicolons or spaces."""
    found = []
    for part in [] if text == "none" else text.replace(";", " ").split():
        uid, colon, rest = part.partition(":")
        if not colon or len(ids(uid)) != 1 or not ranges(rest):
            raise ValueError(f"{part!r} is not UID:PORTS")
        found.append((ids(uid)[0], ranges(rest)))
    return tuple(found)


def interfaces(text: str) -> tuple[str, ...]:
    """Names of interfaces."""
    for word in _words(text):
        if len(word.encode()) > _LONGEST_NAME or "/" in word or word in (".", "..") or not word.isprintable():
            raise ValueError(f"{word!r} is not the name of an interface")
    return _words(text)


def switch(text: str) -> bool:
    """``on`` or ``off``; ``true`` and ``false`` mean the same."""
    found = {"on": True, "true": True, "off": False, "false": False}.get(text)
    if found is None:
        raise ValueError(f"{text!r} is neither on nor off")
    return found


def choice(*words: str) -> Callable[[str], str]:
    """A parser that takes one of the words as it is."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not known")
        return text

    return parse


def split(words: Sequence[str]) -> Given:
    """``--flag VALUE``, ``--flag=VALUE``, ``-f VALUE``; of a flag that is given twice the last counts, but
    --exclude-uid-ports adds up."""
    given = Given()
    known = {option.flag: option for option in OPTIONS} | {"-" + option.short: option for option in OPTIONS}
    rest = list(words)
    while rest:
        flag, equals, text = rest.pop(0).partition("=")
        option = known.get(flag)
        if flag in ("-h", "--help"):
            given.help = True
        elif option is None:
            given.problems.append(f"{flag!r} is not a flag; see sidecar-init --help")
        elif not option.metavar:
            given.flags[option.field] = text if equals else "on"
        elif not equals and (not rest or rest[0].startswith("--")):
            given.problems.append(f"{option.flag}: needs a value; write {option.flag} {option.example}")
        else:
            value = text if equals else rest.pop(0)
            if option.field == "exclude_uid_ports" and option.field in given.flags:
                value = f"{given.flags[option.field]};{value}"
            given.flags[option.field] = value
    return given


def _words(text: str) -> tuple[str, ...]:
    return () if text.strip() in ("", "none") else tuple(word.strip() for word in text.split(","))


def _range(word: str) -> Range:
    first, dash, last = word.partition("-")
    try:
        found = port(first), port(last if dash else first)
    except ValueError:
        raise ValueError(f"{word!r} is neither a port nor a range of ports") from None
    if found[0] > found[1]:
        raise ValueError(f"{word!r} ends before it begins")
    return found


def _network(word: str) -> Network:
    try:
        found = ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise ValueError(f"{word!r} is not a network") from None
    if "%" in word:
        raise ValueError(f"{word!r} has a zone, which no network has")
    if str(ipaddress.ip_address(word.partition("/")[0])) != str(found.network_address):
        raise ValueError(f"{word!r} has bits set beyond its prefix: {found} is the network")
    return found


def _bare(field_: str, short: str, group: str, help_: str) -> Option:
    return Option(field_, short, group, "", "off", "", help_, switch)


OPTIONS: tuple[Option, ...] = (
    Option("inbound_ports", "b", CAPTURE, PORTS, "*", "80,8000-8100", "ports whose callers come to inbound",
           ranges_or_all),
    Option("outbound_cidrs", "i", CAPTURE, "CIDRS|*|none", "*", "10.0.0.0/8,fd00::/8",
           "networks whose connections go through outbound", networks_or_all),
    Option("outbound_ports", "q", CAPTURE, LIST, "none", "443,9000-9100",
           "ports that go through outbound in whatever network they are", ranges),
    Option("ipv6", "", CAPTURE, "auto|on|off", "auto", "off",
           "auto: captured where the namespace has IPv6, else as off; off: what would be captured is dropped",
           choice("auto", "on", "off")),
    _bare("drop_invalid", "", CAPTURE, "drop packets from outside that belong to no connection"),
    Option("exclude_inbound_ports", "d", ALONE, LIST, "none", "22",
           "ports that are not captured; 15000, 15020 and 15021 never are", ranges),
    Option("exclude_outbound_cidrs", "x", ALONE, "CIDRS|none", "none", "169.254.169.254/32",
           "networks that are not captured; loopback never is", networks),
    Option("exclude_outbound_ports", "o", ALONE, LIST, "none", "25,5432", "ports that are not captured", ranges),
    Option("exclude_uid_ports", "", ALONE, "UID:PORTS|none", "none", "999:53,8000-8100",
           "ports that are not captured when this user calls them; may be given again, or separated by semicolons",
           user_ports),
    Option("exclude_interfaces", "c", ALONE, "NAMES|none", "none", "net1,net2",
           "interfaces on which nothing is captured, in or out", interfaces),
    _bare("redirect_dns", "", NAMES,
          "queries (UDP and TCP, port 53) to the resolvers of /etc/resolv.conf go to the sidecar"),
    _bare("capture_all_dns", "", NAMES,
          "so do queries to any server; the sidecar sends what it can't answer to the resolvers of /etc/resolv.conf"),
    Option("outbound_port", "p", SIDECAR, "PORT", "15001", "15001", "where outbound listens", port),
    Option("inbound_port", "z", SIDECAR, "PORT", "15006", "15006", "where inbound listens", port),
    Option("proxy_uid", "u", SIDECAR, "UIDS", "1337", "1337", "users whose connections are the sidecar's own",
           proxy_ids),
    Option("proxy_gid", "g", SIDECAR, "GIDS|none", "1337", "1337", "groups of which the same is true", ids),
    _bare("dry_run", "n", DOING, "say what the table would be, and change nothing; needs no privilege"),
    _bare("show", "", DOING, "say what the table is, with what each rule has counted"),
    _bare("verify", "", DOING, "compare the table with what these flags would make; exit code 5 if it is another"),
    _bare("cleanup", "", DOING, "take the table away, and ::6 from lo if it was added here"),
    Option("format", "", DOING, "text|json|nft", "text", "json", "the form of what is said; nft only of --dry-run",
           choice("text", "json", "nft")),
    _bare("allow_host_network", "", DOING, "also in the network namespace of the node itself"),
)  # fmt: skip
