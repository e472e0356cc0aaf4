"""The table of options: each flag, its twin in the environment, its default and what it means, once.

Who reads it: ``sidecar.settings`` (values), ``sidecar.flag_parser`` (``--help``), ``sidecar.commands`` (completion) and
the generator of the reference page. A default is written as a user would write it and goes through the same parser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar import control_url, os_limits, ports, registration_flags, value_parsers
from sidecar.app_probe import parse_probes
from sidecar.dns_host import parse_dns_hosts
from sidecar.policy.egress import parse_allowed

LISTENERS = "Where it listens"
APP = "The app"
OUTBOUND = "Whom the app may call"
HTTP = "HTTP"
IDENTITY = "Identity and mesh"
REGISTRATION = "Registration with --control, as an endpoint of --service"
LIMITS = "Limits"
TIMEOUTS = "Timeouts"
STOPPING = "Stopping"
LOGS = "Logs"

DURATION = "S"
LISTEN = "[ADDR:]PORT"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``field`` is its name in Settings; ``example`` a value that works, for messages.

    ``default`` is text for the parser; where ``computed`` is set the default is what that returns, and ``default``
    only describes it; an empty one says that there is none. ``bare`` is what the flag means without a value.
    """

    field: str
    group: str
    metavar: str
    default: str
    example: str
    help: str
    parse: Callable[[str], object]
    computed: Callable[[], object] | None = None
    bare: str | None = None
    choices: tuple[str, ...] = ()  # all that can be its value
    repeatable: bool = False  # given again it adds to the list that its value is
    redirected: str = ""  # another default where --interception is redirect

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.field.replace("_", "-")

    @property
    def twin(self) -> str:
        """The variable that says the same in the environment; the flag wins over it."""
        return "SIDECAR_" + self.field.upper()

    @property
    def words(self) -> tuple[str, ...]:
        """The words that can be its value, or a part of what can be."""
        return self.choices or tuple(word for word in self.metavar.split("|") if word.islower())


def _choice(field: str, group: str, default: str, help: str, *words: str) -> Option:
    return Option(field, group, "|".join(words), default, default, help, value_parsers.choice(*words), choices=words)


def _timeout(field: str, default: str, help: str) -> Option:
    return Option(field, TIMEOUTS, DURATION, default, "10s", help, value_parsers.positive_duration)


_ANYWHERE = value_parsers.listen("0.0.0.0", "::")
_LOCAL = value_parsers.listen("127.0.0.1", "::1")

OPTIONS: tuple[Option, ...] = (
    Option(
        "upstream", APP, "HOST:PORT", "", "127.0.0.1:8080", "the app; needed while --interception is none, only then",
        value_parsers.destination, computed=lambda: None,
    ),
    _choice(
        "protocol", APP, "auto", "what the app speaks; auto looks at the first bytes",
        "auto", "http", "http2", "tcp",
    ),
    Option(
        "max_app_connections", APP, "N", "1024", "1024", "connections to the app at once",
        value_parsers.number(1),
    ),
    Option(
        "max_waiting", APP, "N", "1024", "1024", "requests that may wait for one of those; more get 503",
        value_parsers.number(0),
    ),
    Option(
        "inbound", LISTENERS, LISTEN, str(ports.INBOUND), "15006",
        "for the app's callers, on all addresses; port 0, here and below, takes any free one", _ANYWHERE,
    ),
    Option(
        "outbound", LISTENERS, LISTEN, str(ports.OUTBOUND), "15001",
        "for the app's own calls, as an HTTP proxy on loopback", _LOCAL,
    ),
    Option(
        "admin", LISTENERS, LISTEN + "|off", str(ports.ADMIN), "15000",
        "for its operators, on loopback", value_parsers.or_off(_LOCAL),
    ),
    Option(
        "scrape", LISTENERS, LISTEN + "|off", str(ports.SCRAPE), "15020",
        "for Prometheus and probes, on all addresses", value_parsers.or_off(_ANYWHERE),
    ),
    Option(
        "dns", LISTENERS, LISTEN + "|off", "off", str(ports.DNS),
        f"for the app's look-ups of names, by UDP and TCP on loopback; {ports.DNS} with --interception redirect",
        value_parsers.or_off(_LOCAL), redirected=str(ports.DNS),
    ),
    Option(
        "dns_host", LISTENERS, "NAME=ADDR|none", "none", "web.internal=10.0.0.7",
        "an address that --dns gives for a name; may be given again, also for the same name", parse_dns_hosts,
        repeatable=True,
    ),
    Option(
        "admin_token_file", LISTENERS, "PATH|none", "none", "/run/secrets/sidecar-admin-token",
        "what a POST to --admin has to bring as Authorization: Bearer; read at each use", value_parsers.path_or_none,
    ),
    Option(
        "probe", LISTENERS, "NAME=http:PORT/PATH|NAME=tcp:PORT|none", "none", "web=http:8080/healthz",
        "a look at the app that --scrape offers as /app-health/NAME; may be given again", parse_probes,
        repeatable=True,
    ),
    _choice(
        "interception", LISTENERS, "none", "how connections come here: addressed to it, or redirected by the kernel",
        "none", "redirect",
    ),
    _choice(
        "outbound_policy", OUTBOUND, "ALLOW_ANY", "anybody, or those of --allow-host only; others get 502",
        "ALLOW_ANY", "REGISTRY_ONLY",
    ),
    Option(
        "allow_host", OUTBOUND, "HOST[:PORT]|none", "none", "api.example.com:443",
        "a host that the app may call under REGISTRY_ONLY; may be given again", parse_allowed, repeatable=True,
    ),
    Option(
        "control", IDENTITY, "URL|none", "none", "https://sidecar-control.sidecar-system:15012",
        "the control plane that gives this proxy its certificate; http:// for loopback alone",
        control_url.parse_control,
    ),
    Option(
        "token_file", IDENTITY, "PATH|none", "none", "/var/run/secrets/tokens/sidecar",
        "the token that says who this proxy is; read at each use", value_parsers.path_or_none,
    ),
    Option(
        "control_ca", IDENTITY, "PATH|none", "none", "/etc/sidecar/root.pem",
        "the roots that --control is trusted by, for tokens that do not say it themselves", value_parsers.path_or_none,
    ),
    Option(
        "control_id", IDENTITY, "SPIFFE-ID", control_url.CONTROL_ID, control_url.CONTROL_ID,
        "who --control has to be, for such tokens", control_url.parse_spiffe_id,
    ),
    Option(
        "identity_dir", IDENTITY, "PATH|none", "none", "/dev/shm/sidecar",
        "a directory on tmpfs that keeps certificate and key over a restart; none keeps them in memory alone",
        value_parsers.path_or_none,
    ),
    Option(
        "mesh", IDENTITY, "PATH|none", "none", "mesh.yaml",
        "a file with the services of the mesh, read again when it changes", value_parsers.path_or_none,
    ),
    Option(
        "config", IDENTITY, "PATH|none", "none", "documents/",
        "documents of the mesh, a file or a directory of them, read again when one changes; instead of --mesh; without "
        "--control AuthorizationPolicies alone are obeyed",
        value_parsers.path_or_none,
    ),
    Option(
        "workload_labels", IDENTITY, "KEY=VALUE,...|none", "none", "app=web",
        "labels that selectors in --config look at, for use without --control; may be given again",
        registration_flags.parse_labels, repeatable=True,
    ),
    Option(
        "mtls", IDENTITY, "strict|permissive|disable", "strict, or as documents say", "strict",
        "what callers of the app have to bring; a document may tighten what is said here, never loosen it",
        value_parsers.choice("strict", "permissive", "disable"), computed=lambda: "",
    ),
    Option(
        "service", IDENTITY, "NAME|none", "none", "web", "the service that the app belongs to",
        control_url.parse_label_or_none,
    ),
    Option("namespace", IDENTITY, "NAME", "default", "shop", "the app's namespace", control_url.parse_label),
    Option(
        "service_account", IDENTITY, "NAME", "default", "web", "the app's service account", control_url.parse_label,
    ),
    Option(
        "state_dir", IDENTITY, "PATH|none", "none", "/var/lib/sidecar",
        "a directory that keeps the last good configuration from --control, for a start while that is away",
        value_parsers.path_or_none,
    ),
    Option(
        "advertise", REGISTRATION, "[ADDR][:PORT]|auto|none", "auto", "10.0.0.7:15006",
        "where callers reach this sidecar, as --control tells them; auto: its address as --control sees it, and the "
        "port of --inbound, or with interception all addresses of this machine, of both families, and the app's port; "
        "with --mesh or --config: no registration",
        registration_flags.parse_advertise,
    ),
    Option(
        "instance", REGISTRATION, "NAME|auto", "auto", "web-7f9c",
        "the name of this process among those of its service; auto: the machine's name, with digits by chance",
        registration_flags.parse_instance,
    ),
    Option(
        "labels", REGISTRATION, "KEY=VALUE,...|none", "none", "version=v2",
        "labels that subsets of the service are chosen by; may be given again", registration_flags.parse_labels,
        repeatable=True,
    ),
    Option(
        "health", REGISTRATION, "http:[PORT]/PATH|tcp[:PORT]|exec:CMD|none", "none", "http:/healthz",
        "how to find out whether the app is well; while it is not, callers are not sent here",
        registration_flags.parse_health,
    ),
    Option(
        "health_interval", REGISTRATION, DURATION, "5s", "5s", "from one look to the next",
        value_parsers.positive_duration,
    ),
    Option(
        "health_timeout", REGISTRATION, DURATION, "1s", "1s", "how long a look may take",
        value_parsers.positive_duration,
    ),
    Option(
        "health_healthy", REGISTRATION, "N", "1", "1", "looks in a row that find it well before it counts as that",
        value_parsers.number(1),
    ),
    Option(
        "health_unhealthy", REGISTRATION, "N", "3", "3", "looks in a row that don't before it counts as unwell",
        value_parsers.number(1),
    ),
    Option(
        "trusted_proxies", HTTP, "CIDR,...", "none", "10.0.0.0/8",
        "senders whose x-forwarded-* headers are believed and added to; those of others are replaced",
        value_parsers.networks,
    ),
    Option(
        "via", HTTP, "on|off", "off", "on", "add a Via header to what is passed on",
        value_parsers.switch, bare="on",
    ),
    Option(
        "max_body", HTTP, "SIZE|none", "none", "10MB", "the longest request body; a longer one gets 413",
        value_parsers.size_or_none,
    ),
    Option(
        "body_min_rate", HTTP, "BYTES/SECONDS", "240/30", "240/30",
        "the slowest request body: so many bytes per second, measured over so many seconds; a slower one gets 408",
        value_parsers.rate,
    ),
    Option(
        "max_connections", LIMITS, "N", "half of RLIMIT_NOFILE", "1000", "connections from clients at once",
        value_parsers.number(1), computed=os_limits.default_max_connections,
    ),
    Option(
        "memory_limit", LIMITS, "SIZE|none", "the cgroup's, or none", "64MiB",
        "memory of this process, near which new work is refused",
        value_parsers.size_or_none, computed=os_limits.memory_limit,
    ),
    _timeout("request_head_timeout", "10s", "from a request's first byte to the end of its head"),
    _timeout("idle_timeout", "1h", "a client's connection on which nothing happens"),
    _timeout("stream_idle_timeout", "5m", "a request in progress, neither side of which moves"),
    _timeout("connect_timeout", "5s", "making a connection to an upstream"),
    _timeout("pool_idle_timeout", "55s", "an unused connection to an upstream, kept for the next request"),
    Option(
        "drain_seconds", STOPPING, DURATION, "30s", "30s",
        "from the signal to the end: what is under way may finish within that time", value_parsers.duration,
    ),
    Option(
        "drain_delay", STOPPING, DURATION, "0s", "5s",
        "how much of that time new connections are still accepted", value_parsers.duration,
    ),
    _choice("access_log", LOGS, "text", "the form of the line per request and connection", "text", "json", "off"),
    Option(
        "access_log_file", LOGS, "PATH|-", "-", "/var/log/sidecar.log", "where those lines go; - is standard output",
        value_parsers.path,
    ),
    _choice(
        "log_level", LOGS, "info", "what the process says of itself, on standard error",
        "debug", "info", "warning", "error",
    ),
    _choice("log_format", LOGS, "text", "the form of that", "text", "json"),
)  # fmt: skip

TIMEOUT = Option(
    "timeout", "", DURATION, "60s", "60s", "how long to wait before it is given up, with exit code 1",
    value_parsers.positive_duration,
)  # fmt: skip
"""The one flag that only the command ``wait`` has; it has no twin."""
