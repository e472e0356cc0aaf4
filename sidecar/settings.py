"""Settings: everything that the process was told, as one frozen value. The only reader of the environment.

Who calls it: ``sidecar.cli`` and its commands. A value comes from its flag, else from its twin ``SIDECAR_...``, else it
is the default; whatever is wrong with one becomes one line, which names where the value stood, what is wrong with it
and what to write instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from certs.spiffe import parse
from sidecar.addresses import Address, parse_ip
from sidecar.app_probe import Probe
from sidecar.control_url import ControlUrl
from sidecar.dns_host import DnsHost
from sidecar.errors import StartError
from sidecar.option_table import OPTIONS, Option
from sidecar.os_limits import descriptor_limit
from sidecar.policy.egress import AllowedHost
from sidecar.registration_flags import Advertise, HealthCheck, Labels
from sidecar.resources.protocols import Protocol
from sidecar.resources.snapshot import Mode, Node
from sidecar.value_parsers import Networks

_WILDCARDS = {"0.0.0.0", "::"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the process was told. Durations in seconds, sizes in bytes; an empty tuple of addresses: no listener."""

    upstream: Address | None
    inbound: tuple[Address, ...]
    outbound: tuple[Address, ...]
    admin: tuple[Address, ...]
    scrape: tuple[Address, ...]
    dns: tuple[Address, ...]
    dns_host: tuple[DnsHost, ...]
    admin_token_file: str  # a path; empty: none
    probe: tuple[Probe, ...]
    protocol: Protocol  # what ``--protocol`` says; documents of the app's services may say more
    access_log: str  # "text", "json" or "off"
    access_log_file: str  # a path, or "-"
    max_connections: int
    memory_limit: int  # 0: none
    interception: str  # "none" or "redirect"
    outbound_policy: str  # "ALLOW_ANY" or "REGISTRY_ONLY"
    allow_host: tuple[AllowedHost, ...]
    drain_seconds: float
    drain_delay: float  # at most drain_seconds
    control: ControlUrl | None
    token_file: str  # paths; empty: none
    control_ca: str
    control_id: str
    identity_dir: str
    mesh: str
    config: str
    workload_labels: Labels
    mtls: str  # "strict", "permissive", "disable", or empty where nothing was said
    service: str  # empty: none
    namespace: str
    service_account: str
    state_dir: str  # a path; empty: none
    advertise: Advertise | None  # None: it is not registered
    instance: str  # empty: made up at the start
    labels: Labels
    health: HealthCheck | None
    health_interval: float
    health_timeout: float
    health_healthy: int
    health_unhealthy: int
    trusted_proxies: Networks
    via: bool
    max_body: int  # 0: none
    body_min_rate: int  # bytes per second ...
    body_min_window: float  # ... over so many seconds
    max_app_connections: int
    max_waiting: int
    request_head_timeout: float
    idle_timeout: float
    stream_idle_timeout: float
    connect_timeout: float
    pool_idle_timeout: float
    log_level: str  # "debug", "info", "warning" or "error"
    log_format: str  # "text" or "json"

    @property
    def me(self) -> Node:
        """Whom a Snapshot for this proxy is made for."""
        return Node(self.namespace, self.service, self.service_account, Mode(self.mtls.upper()) if self.mtls else None)

    @property
    def alone(self) -> dict[str, str] | None:
        """The labels that selectors in ``--config`` look at where no control plane says who this proxy is; None where
        one does."""
        return dict(self.workload_labels) if self.control is None else None

    @property
    def trust_domain(self) -> str:
        """The mesh's, where nobody says it but ``--control-id``."""
        return parse(self.control_id).trust_domain


class EffectiveOption(msgspec.Struct, frozen=True):
    """One setting: its flag, the text that it was given (or its default), and whether that was said by a "flag", by the
    "environment", or by nobody: "default"."""

    flag: str
    text: str
    source: str


def load(flags: Mapping[str, str], environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the flags given ({field: text}) and the environment; StartError for the first wrong value."""
    settings, problems = examine(flags, environ)
    if settings is None:
        raise StartError(problems[0])
    return settings


def examine(
    flags: Mapping[str, str], environ: Mapping[str, str] | None = None, earlier: Sequence[str] = ()
) -> tuple[Settings | None, list[str]]:
    """As ``load``, with all that is wrong, a line each, in place of the first; no Settings where anything is.

    ``earlier`` is what was wrong before. Values are held against each other only when each is right alone.
    """
    told = os.environ if environ is None else environ
    found: dict[str, Any] = {}
    problems = list(earlier)
    for option in OPTIONS:
        try:
            found[option.field] = _value(option, flags, told)
        except StartError as error:
            problems.append(str(error))
    if problems:
        return None, problems
    if found["interception"] == "redirect":
        for option in OPTIONS:
            if option.redirected and not _is_told(option, flags, told):
                found[option.field] = option.parse(option.redirected)
    found["body_min_rate"], found["body_min_window"] = found["body_min_rate"]
    settings = Settings(**found)
    problems = [f"{_source(_option(field), flags, told)}: {problem}" for field, problem in _contradictions(settings)]
    return (None, problems) if problems else (settings, [])


def value(field: str, flags: Mapping[str, str], environ: Mapping[str, str] | None = None) -> object:
    """The value of one setting alone, as its parser returns it; StartError where it is wrong."""
    return _value(_option(field), flags, os.environ if environ is None else environ)


def in_force(flags: Mapping[str, str], environ: Mapping[str, str] | None = None) -> list[EffectiveOption]:
    """Every setting, in the order of the table. Nothing is checked here."""
    told = os.environ if environ is None else environ
    interception = _option("interception")
    redirect = flags.get(interception.field, told.get(interception.twin)) == "redirect"
    return [
        EffectiveOption(option.flag, flags[option.field], "flag")
        if option.field in flags
        else EffectiveOption(option.flag, told[option.twin], "environment")
        if option.twin in told
        else EffectiveOption(option.flag, (redirect and option.redirected) or _default(option), "default")
        for option in OPTIONS
    ]


def unknown_twins(environ: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each SIDECAR_... variable that is no twin of a flag: a typo must not pass in silence."""
    told = os.environ if environ is None else environ
    twins = [option.twin for option in OPTIONS]
    sentences = []
    for name in sorted(name for name in told if name.startswith("SIDECAR_") and name not in twins):
        import difflib  # only where something is wrong

        near = difflib.get_close_matches(name, twins, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        sentences.append(f"the environment's {name} is not a setting and has no effect{hint}")
    return sentences


def oddities(settings: Settings, environ: Mapping[str, str] | None = None) -> list[str]:
    """What is odd and yet no reason not to start, a sentence each."""
    sentences = unknown_twins(environ)
    if settings.dns_host and not settings.dns:
        sentences.append("--dns-host: names something that nobody can look up; add --dns")
    held = descriptor_limit() // 2
    if settings.max_connections > held:
        sentences.append(
            f"--max-connections: {settings.max_connections} need twice as many descriptors, and there are only enough "
            f"for {held}; raise the limit (ulimit -n)"
        )
    if settings.allow_host and settings.outbound_policy == "ALLOW_ANY" and settings.control is None:  # else a document
        sentences.append(
            "--allow-host: means nothing while the app may call anybody; add --outbound-policy REGISTRY_ONLY"
        )
    return sentences


def _value(option: Option, flags: Mapping[str, str], environ: Mapping[str, str]) -> object:
    text = flags.get(option.field, environ.get(option.twin))
    if text is None:
        return option.parse(option.default) if option.computed is None else option.computed()
    try:
        return option.parse(text)
    except ValueError as error:
        raise StartError(f"{_source(option, flags, environ)}: {error}; write {_form(option)}") from None


def _is_told(option: Option, flags: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    return option.field in flags or option.twin in environ


def _default(option: Option) -> str:
    if option.computed is None:
        return option.default
    worth = option.computed()
    if worth == "":
        return option.default  # it depends on more than is known here
    return f"{worth or 'none'} ({option.default})" if option.default else "none"


def _source(option: Option, flags: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Where a value stood: the flag, with its twin where it was that."""
    if option.field not in flags and option.twin in environ:
        return f"{option.flag} (from {option.twin})"
    return option.flag


def _form(option: Option) -> str:
    """How to write a value: the words to choose from, or the form with an example."""
    words = option.metavar.split("|")
    if list(option.words) == words:
        return "one of " + ", ".join(words)
    off = f", or {words[1]}" if len(words) > 1 else ""
    return f"{words[0]}, for example {option.example}{off}"


def _option(field: str) -> Option:
    return next(option for option in OPTIONS if option.field == field)


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Values that are right alone and wrong together: (the field to name, what is wrong; what to do)."""
    if settings.interception == "redirect":
        if settings.upstream is not None:
            yield "interception", "redirect serves what was captured where that was addressed to; leave out --upstream"
    elif settings.upstream is None:
        yield "upstream", "is missing; name the app, for example --upstream 127.0.0.1:8080"
    if settings.control is not None and not settings.token_file and not settings.identity_dir:
        yield "control", "needs --token-file, which says who this proxy is"
    if settings.control is not None and not settings.control.secure and settings.control_ca:
        yield (
            "control_ca",
            f"{settings.control} is not TLS, so there is nothing to check; leave it out, or write https://",
        )
    if settings.control is None:
        for field in ("token_file", "control_ca", "identity_dir", "mesh", "mtls", "state_dir", "health"):
            if getattr(settings, field):
                yield field, "means nothing without a certificate; add --control URL"
    if settings.workload_labels and settings.control is not None:
        yield (
            "workload_labels",
            "is for use without --control, where no service has labels for selectors; leave it out",
        )
    elif settings.workload_labels and not settings.config:
        yield "workload_labels", "means nothing without documents; add --config PATH"
    if settings.state_dir and (settings.mesh or settings.config):
        yield "state_dir", "keeps what --control says, and files are what is obeyed here; leave one out"
    check = settings.health
    if check is not None and check.kind != "exec" and check.port is None and settings.interception == "redirect":
        yield "health", "needs the app's port with --interception redirect; write http:PORT/PATH, or tcp:PORT"
    if settings.mesh and settings.config:
        yield "config", "and --mesh can't both say what the mesh is; leave one out"
    if settings.drain_delay > settings.drain_seconds:
        yield (
            "drain_delay",
            f"{settings.drain_delay:g} s is longer than the whole drain; "
            f"write at most {settings.drain_seconds:g}s, or a longer --drain-seconds",
        )
    taken: list[tuple[str, Address]] = []
    for field in ("inbound", "outbound", "admin", "scrape", "dns"):
        for address in getattr(settings, field):
            if settings.upstream is not None and _leads_back(settings.upstream, address):
                yield "upstream", f"{settings.upstream} is this sidecar's own --{field}; name the app's port"
            for other, listener in taken:
                if _covers(listener, address) or _covers(address, listener):
                    yield field, f"{address} is taken by --{other}; choose another port"
            taken.append((field, address))
    for probe in settings.probe:
        for other, listener in taken:
            if listener.port == probe.port:
                yield "probe", f"{probe} would ask this sidecar's own --{other}; name a port of the app"


def _covers(listener: Address, other: Address) -> bool:
    """Whether a listener on the one takes what the other is for."""
    if listener.port != other.port or listener.port == 0:
        return False
    one_family = (":" in listener.host) == (":" in other.host)
    return listener.host == other.host or (listener.host in _WILDCARDS and one_family)


def _leads_back(upstream: Address, listener: Address) -> bool:
    """Whether dialing the upstream would reach the listener, as far as that shows without looking up a name."""
    hosts = ("127.0.0.1", "::1") if upstream.host == "localhost" else (upstream.host,)
    local = [host for host in hosts if host == listener.host or ((ip := parse_ip(host)) is not None and ip.is_loopback)]
    return any(_covers(listener, Address(host, upstream.port)) for host in local)
