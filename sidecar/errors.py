"""What can go wrong, whose fault it is, and the one word that says so everywhere.

Each :class:`Reason` is at once the metric label, the access log's word and, by its flag, the response flag of the
field. Modules raise :class:`ProxyError`; only ``proxy.local_reply`` turns one into a status. Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final


class Fault(Enum):
    """Who has to change something."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    POLICY = "policy"
    IDENTITY = "identity"
    OVERLOAD = "overload"
    DRAIN = "drain"
    OURS = "ours"


class Reason(Enum):
    """Why a request or a connection did not end as it should: (word, response flag, fault).

    The flags are Envoy's (its access-log documentation, "Response Flags").
    """

    BAD_REQUEST = ("bad_request", "DPE", Fault.CLIENT)
    BAD_FRAMING = ("bad_framing", "DPE", Fault.CLIENT)
    UNKNOWN_CODING = ("unknown_coding", "DPE", Fault.CLIENT)
    BAD_VERSION = ("bad_version", "DPE", Fault.CLIENT)
    METHOD_REFUSED = ("method_refused", "DPE", Fault.CLIENT)
    HEAD_TOO_LARGE = ("head_too_large", "DPE", Fault.CLIENT)
    REQUEST_LINE_TOO_LONG = ("request_line_too_long", "DPE", Fault.CLIENT)
    PROTOCOL_REFUSED = ("protocol_refused", "DPE", Fault.CLIENT)
    HEAD_TIMEOUT = ("head_timeout", "DPE", Fault.CLIENT)
    BODY_TOO_LARGE = ("body_too_large", "DPE", Fault.CLIENT)
    BODY_TOO_SLOW = ("body_too_slow", "SI", Fault.CLIENT)
    CLIENT_IDLE = ("client_idle", "SI", Fault.CLIENT)
    CONNECTION_IDLE = ("connection_idle", "SI", Fault.CLIENT)  # between requests: ended quietly
    CLIENT_CLOSED = ("client_closed", "DC", Fault.CLIENT)
    NO_ROUTE = ("no_route", "NR", Fault.CLIENT)
    RBAC_DENIED = ("rbac_denied", "UAEX", Fault.POLICY)
    POLICY_CHANGED = ("policy_changed", "UAEX", Fault.POLICY)  # to one that denies what is open
    RATE_LIMITED = ("rate_limited", "RL", Fault.POLICY)
    CALLER_REFUSED = ("caller_refused", "UAEX", Fault.POLICY)
    OWN_LISTENER = ("own_listener", "UAEX", Fault.POLICY)
    PEER_REFUSED = ("peer_refused", "UAEX", Fault.IDENTITY)
    PLAINTEXT_REFUSED = ("plaintext_refused", "UAEX", Fault.IDENTITY)
    HANDSHAKE_FAILED = ("handshake_failed", "DPE", Fault.CLIENT)
    HANDSHAKE_TIMEOUT = ("handshake_timeout", "DPE", Fault.CLIENT)
    NO_IDENTITY = ("no_identity", "LR", Fault.IDENTITY)
    REVOKED = ("revoked", "UAEX", Fault.IDENTITY)
    CERTIFICATE_EXPIRED = ("certificate_expired", "UAEX", Fault.IDENTITY)
    ROOT_WITHDRAWN = ("root_withdrawn", "UAEX", Fault.IDENTITY)
    NO_ENDPOINT = ("no_endpoint", "UH", Fault.UPSTREAM)
    UPSTREAM_HANDSHAKE = ("upstream_handshake", "UF", Fault.UPSTREAM)
    UPSTREAM_IDENTITY = ("upstream_identity", "UF", Fault.IDENTITY)
    NOT_REDIRECTED = ("not_redirected", "UAEX", Fault.POLICY)
    NOT_THIS_POD = ("not_this_pod", "UAEX", Fault.POLICY)
    BLACK_HOLE = ("black_hole", "NR", Fault.POLICY)
    NO_CLUSTER = ("no_cluster", "NC", Fault.POLICY)  # a route leads to a destination or subset that is not there
    FAULT_INJECTED = ("fault_injected", "FI", Fault.POLICY)
    NO_CONFIGURATION = ("no_configuration", "UH", Fault.POLICY)
    DNS_FAILED = ("dns_failed", "DF", Fault.UPSTREAM)
    CONNECT_FAILED = ("connect_failed", "UF", Fault.UPSTREAM)
    CONNECT_TIMEOUT = ("connect_timeout", "UF", Fault.UPSTREAM)
    UPSTREAM_CLOSED = ("upstream_closed", "UC", Fault.UPSTREAM)
    UPSTREAM_PROTOCOL = ("upstream_protocol", "UPE", Fault.UPSTREAM)
    UPSTREAM_TIMEOUT = ("upstream_timeout", "UT", Fault.UPSTREAM)
    UPSTREAM_IDLE = ("upstream_idle", "SI", Fault.UPSTREAM)
    RETRY_BUDGET = ("retry_budget", "URX", Fault.UPSTREAM)  # no retry: the cluster's budget for them is used up
    POOL_FULL = ("pool_full", "UO", Fault.OVERLOAD)
    POOL_TIMEOUT = ("pool_timeout", "UO", Fault.OVERLOAD)
    MEMORY = ("memory", "OM", Fault.OVERLOAD)
    TOO_MANY_CONNECTIONS = ("too_many_connections", "DO", Fault.OVERLOAD)
    DRAIN_DEADLINE = ("drain_deadline", "LR", Fault.DRAIN)
    INTERNAL = ("internal", "LR", Fault.OURS)

    def __init__(self, word: str, flag: str, fault: Fault) -> None:
        self.word = word
        self.flag = flag
        self.fault = fault


DELAY_INJECTED: Final = "DI"  # the flag of a request that a route's fault has delayed
RETRIES_EXHAUSTED: Final = "URX"  # the flag of a request whose last attempt would have been followed by another one

# Why an open connection is cut: a certificate on it is no longer good, or a policy denies now what it carries.
IDENTITY_CUTS: Final = (Reason.REVOKED, Reason.CERTIFICATE_EXPIRED, Reason.ROOT_WITHDRAWN)
CUTS: Final = (*IDENTITY_CUTS, Reason.POLICY_CHANGED)


class ProxyError(Exception):
    """A request or a connection that can't go on.

    ``reason`` decides what the peer is told; ``detail`` is one sentence for people, free of secrets and of bytes that
    a peer chose (it goes into replies and logs). ``rule`` is the word of the rule that was broken, where a reason
    stands for many; ``note`` is what audits and dry runs have to add; ``fields`` go into the reply. ``status`` is its
    status where a document says it; 0: that of the reason. ``edit`` changes the fields of the reply, as a route says.
    """

    rule = ""
    note = ""
    status = 0
    fields: Sequence[tuple[bytes, bytes]] = ()
    edit: Callable[[Sequence[tuple[bytes, bytes]]], list[tuple[bytes, bytes]]] | None = None

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __repr__(self) -> str:
        return f"ProxyError({self.reason.word}: {self.detail})"


class StartError(Exception):
    """The process can't start as it was told to. The text is one line that names what to change; the exit code is 2."""
