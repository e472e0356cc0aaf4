"""The table of options of ``sidecar-control``: each flag, its twin in the environment, its default and what it means.

Who reads it: ``control.settings`` (values), ``control.flag_parser`` (``--help``) and the generator of the reference
page. A default is written as a user would write it and goes through the same parser.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from certs import spiffe
from certs.errors import IdentityError
from sidecar import ports, value_parsers

LISTENERS = "Where it listens"
AUTHORITY = "The authority"
ACCESS = "Who may call"
STORE = "What it remembers"
LOGS = "Logs"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``field`` is its name in Settings; ``example`` a value that works, for messages."""

    field: str
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
        return "SIDECAR_CONTROL_" + self.field.upper()


def trust_domain(text: str) -> str:
    """A trust domain's name, without a scheme."""
    try:
        spiffe.check_trust_domain(text)
    except IdentityError as error:
        raise ValueError(f"{text!r} is {error}") from None
    return text


def store(text: str) -> str:
    """``dir``, ``memory``, or the path in ``sqlite:///PATH``."""
    if text in ("dir", "memory"):
        return text
    scheme, slashes, path = text.partition(":///")
    if scheme != "sqlite" or not slashes or path in ("", "dir", "memory") or "\0" in path:
        raise ValueError(f"{text!r} is not a store")
    return path


def key_file(text: str) -> str:
    """The path of a PEM file with a key; empty for ``none``."""
    if text.startswith("pkcs11:"):
        raise ValueError("a PKCS#11 URI names a key in a token or an HSM, which can't be used; name a PEM file")
    return value_parsers.path_or_none(text)


def file_or_url(text: str) -> str:
    """A path, or a URL as ``url`` takes it; empty for ``none``."""
    return url(text) if "://" in text else value_parsers.path_or_none(text)


def url(text: str) -> str:
    """``https://HOST[:PORT][/PATH]``, or ``http://`` to a loopback address; empty for ``none``."""
    if text == "none":
        return ""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is not an https:// URL")
    if parts.port is not None and not 0 < parts.port < 65536:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError(f"{text!r} is neither https:// nor on a loopback address")
    return text


def text_or_none(text: str) -> str:
    """Any text that is not empty; ``none`` is the empty one."""
    if not text or not text.isprintable():
        raise ValueError(f"{text!r} is empty or not printable")
    return "" if text == "none" else text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_LOCAL = value_parsers.listen("127.0.0.1", "::1")
_ANYWHERE = value_parsers.listen("0.0.0.0", "::")

OPTIONS: tuple[Option, ...] = (
    Option(
        "listen", LISTENERS, "[ADDR:]PORT|off", f"127.0.0.1:{ports.CONTROL}", f"127.0.0.1:{ports.CONTROL}",
        "the API as plain HTTP, on loopback only; port 0 takes any free one", value_parsers.or_off(_LOCAL),
    ),
    Option(
        "tls_listen", LISTENERS, "[ADDR:]PORT|off", "off", str(ports.CONTROL_TLS),
        "the API over mTLS, for sidecars", value_parsers.or_off(_ANYWHERE),
    ),
    Option(
        "trust_domain", AUTHORITY, "NAME", "cluster.local", "cluster.local",
        "the first part of every identity that is issued: spiffe://NAME/ns/NAMESPACE/sa/ACCOUNT", trust_domain,
    ),
    Option(
        "ca", AUTHORITY, "dir|memory", "dir", "dir",
        "where the authority's own key lives: in a file in --ca-dir, or in memory, to be gone with the process",
        value_parsers.choice("dir", "memory"),
    ),
    Option(
        "ca_dir", AUTHORITY, "PATH", "sidecar-control.d", "/var/lib/sidecar-control/ca",
        "a directory that only this user can read (made so at the first start), for the authority and the operator's "
        "token",
        value_parsers.path,
    ),
    Option(
        "ca_cert", AUTHORITY, "FILE|none", "none", "/etc/ca/ca.pem",
        "a CA of your own in place of one that is made: its certificate, then those above it, the last of which is "
        "the root (PEM)",
        value_parsers.path_or_none,
    ),
    Option("ca_key", AUTHORITY, "FILE|none", "none", "/etc/ca/ca.key", "the key of the first of those (PEM)", key_file),
    Option(
        "leaf_ttl", AUTHORITY, "S", "24h", "24h", "how long a workload's certificate is good for",
        value_parsers.positive_duration,
    ),
    Option(
        "kube_jwks", ACCESS, "FILE|URL|none", "none", "/etc/kube/jwks.json",
        "take Kubernetes service-account tokens that are signed by one of these keys (JWKS)", file_or_url,
    ),
    Option(
        "kube_audience", ACCESS, "NAME|none", "none", "sidecar-control",
        "the audience that such a token must be made for; needed with --kube-jwks and --kube-api", text_or_none,
    ),
    Option(
        "kube_api", ACCESS, "URL|none", "none", "https://kubernetes.default.svc",
        "take Kubernetes service-account tokens that this API server approves of (TokenReview)", url,
    ),
    Option(
        "kube_api_ca", ACCESS, "FILE|none", "none", "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        "the only CA that is believed of --kube-api and of a URL in --kube-jwks; none: those of the machine",
        value_parsers.path_or_none,
    ),
    Option(
        "kube_api_token_file", ACCESS, "FILE|none", "none", "/var/run/secrets/kubernetes.io/serviceaccount/token",
        "what this process shows to both; read at each use", value_parsers.path_or_none,
    ),
    Option(
        "workload_networks", ACCESS, "CIDR,...|none", "none", "10.0.0.0/8,fd00::/8",
        "where workloads are: a sidecar may register at any address in these networks, also at one from which it never "
        "called; name the networks of the pods alone",
        value_parsers.networks,
    ),
    Option(
        "store", STORE, "dir|sqlite:///PATH|memory", "dir", "sqlite:////var/lib/sidecar-control/store.db",
        "tokens, revocations and what was issued: in --ca-dir, in a file of its own (a relative path has three "
        "slashes, an absolute one four), or gone with the process",
        store,
    ),
    Option(
        "audit_log", STORE, "FILE|none", "none", "/var/log/sidecar-control/audit.jsonl",
        "who did what, and what came of it, an object of JSON per line; none: in the log below",
        value_parsers.path_or_none,
    ),
    Option(
        "log_level", LOGS, "debug|info|warning|error", "info", "info",
        "what the process says of itself, on standard error", value_parsers.choice("debug", "info", "warning", "error"),
    ),
    Option(
        "log_format", LOGS, "text|json", "text", "text", "the form of that", value_parsers.choice("text", "json"),
    ),
)  # fmt: skip
