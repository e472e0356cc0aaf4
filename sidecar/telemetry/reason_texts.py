"""What each reason means and what to do about it, in words for whoever is woken at three in the morning.

Read by ``explain``, by the admin page and by the generated page on response flags; a test holds that no reason is
missing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from sidecar.errors import Reason


class ReasonHelp(msgspec.Struct, frozen=True):
    """``means`` is one sentence on what happened, ``cure`` one or two on what to change, and where."""

    means: str
    cure: str


APP_ERROR: Final = ReasonHelp(
    "The app itself answered with a 5xx; the proxy passed it on.", "Look into the app's own log at this time."
)

MEANINGS: Final[dict[Reason, ReasonHelp]] = {
    Reason.BAD_REQUEST: ReasonHelp(
        "The client sent something that is not a request HTTP allows.",
        "Mend the client; the detail names the line. Nothing reached the app.",
    ),
    Reason.BAD_FRAMING: ReasonHelp(
        "The request's length could be read in more than one way, or the chunks of its body were malformed.",
        "Mend the client, or the proxy before this one: one Content-Length, or chunked alone. The detail has the rule, "
        "the connection's client the sender; without method and path the head itself was in doubt. Nothing of such a "
        "head reached the app.",
    ),
    Reason.UNKNOWN_CODING: ReasonHelp(
        "The request has a Transfer-Encoding other than chunked.", "Let the client send chunked, or a Content-Length."
    ),
    Reason.BAD_VERSION: ReasonHelp(
        "The client speaks another version of HTTP than 1.0 or 1.1 here.",
        "Let it speak HTTP/1.1. If the app speaks HTTP/2 or gRPC, declare its port: appProtocol: http2 or grpc, or a "
        "name such as grpc-api, in its Service document; --protocol http2 without a mesh. Then its bytes are relayed.",
    ),
    Reason.METHOD_REFUSED: ReasonHelp(
        "CONNECT came to the inbound port, or a proxy request came inside a CONNECT tunnel.",
        "Send proxy requests to the outbound port (15001), from loopback.",
    ),
    Reason.HEAD_TOO_LARGE: ReasonHelp(
        "The request's head is longer than 32 KiB or has more than 100 fields.",
        "Look for a cookie or token that has grown; these limits are fixed.",
    ),
    Reason.REQUEST_LINE_TOO_LONG: ReasonHelp(
        "The request's first line is longer than 32 KiB.",
        "Look for a query that has grown; the limit is fixed. An opaque protocol whose first line is as long needs its "
        "port declared: appProtocol: tcp in its Service document, or --protocol tcp.",
    ),
    Reason.PROTOCOL_REFUSED: ReasonHelp(
        "The connection's first bytes are of a protocol that this port does not take from this client.",
        "The detail names the protocol and the rule. A port that is declared HTTP takes no opaque bytes; a peer that "
        "announces opaque bytes (ALPN sidecar-tcp) sends no HTTP, except to a port that is declared tcp; a PROXY "
        "protocol header needs a port that is declared tcp. Declare the port in its Service document, by appProtocol "
        "or by its name, or with --protocol.",
    ),
    Reason.HEAD_TIMEOUT: ReasonHelp(
        "The request's head began but was not complete in time.",
        "A slow or broken client, or an attack (slowloris). --request-head-timeout gives more time.",
    ),
    Reason.BODY_TOO_LARGE: ReasonHelp(
        "The request's body is longer than --max-body.", "Raise --max-body, or let the client send less."
    ),
    Reason.BODY_TOO_SLOW: ReasonHelp(
        "The request's body came more slowly than --body-min-rate allows.",
        "A very slow network, or an attack. Lower --body-min-rate if such clients are real.",
    ),
    Reason.CLIENT_IDLE: ReasonHelp(
        "The client stopped sending its body or reading the reply; or neither side of a connection that is relayed as "
        "bytes (TCP in the log) said anything.",
        "Look at the client. --stream-idle-timeout gives more time to a request, --idle-timeout to relayed bytes; "
        "there, it may only mean that nobody had anything to say.",
    ),
    Reason.CONNECTION_IDLE: ReasonHelp(
        "The connection was idle between requests for --idle-timeout. No request has failed, so no record, log line or "
        "metric says so.",
        "Nothing is wrong; clients connect again.",
    ),
    Reason.CLIENT_CLOSED: ReasonHelp(
        "The client went away before its reply was complete.",
        "If the detail says that it was in the middle of its body, look at the client and the network. Else compare "
        "the duration with the client's own time-out: mostly the app was slower than the client would wait. If no "
        "first byte came from the upstream, the app had not begun to answer.",
    ),
    Reason.NO_ROUTE: ReasonHelp(
        "The outbound port got a request that names no destination.",
        "Send an absolute URL or CONNECT: set http_proxy=http://127.0.0.1:15001 and https_proxy likewise (curl knows "
        "the first in lower case only), or curl -x.",
    ),
    Reason.RBAC_DENIED: ReasonHelp(
        "An AuthorizationPolicy denies the request: a DENY rule matches, or there are ALLOW policies and none matches.",
        "The detail names the policy, or the nearest ALLOW rule and the field that differs: change the call, or the "
        "policy. POST /explain on the admin port tries a request that was never made.",
    ),
    Reason.POLICY_CHANGED: ReasonHelp(
        "It was allowed when it began, and an AuthorizationPolicy that came later denies it: it was cut.",
        "The detail names the policy. If the caller is to be allowed, add it to an ALLOW rule.",
    ),
    Reason.RATE_LIMITED: ReasonHelp(
        "A RateLimitPolicy allows no more requests, or connections, from this source now.",
        "The detail names the policy and its limit; GET /limits shows which keys are limited, and for how long. If the "
        "caller is to have more, raise the rate, or give it an override.",
    ),
    Reason.CALLER_REFUSED: ReasonHelp(
        "A client whose own address is no loopback address used the outbound port.",
        "Only processes beside this proxy may call through it, from 127.0.0.1 or ::1: let them bind no other address, "
        "and remove rules that lead other machines here.",
    ),
    Reason.OWN_LISTENER: ReasonHelp(
        "The destination is a listener of this very proxy, which would be a loop.", "Call the app's own port instead."
    ),
    Reason.NOT_REDIRECTED: ReasonHelp(
        "With --interception redirect, a connection was made to the inbound port itself, or to one that was never "
        "redirected there.",
        "Call the app's own port; the rules of sidecar-init bring it here. If that is what was done, the rules are "
        "gone: run sidecar-init.",
    ),
    Reason.NOT_THIS_POD: ReasonHelp(
        "A redirected connection wanted to go to an address that is not this pod's.",
        "Something routes foreign packets into this pod; look at routes and at the rules (sidecar-init --show).",
    ),
    Reason.BLACK_HOLE: ReasonHelp(
        "The outbound policy is REGISTRY_ONLY, by --outbound-policy or a Sidecar document, and the destination is no "
        "service, no host of a ServiceEntry and none of --allow-host (BlackHoleCluster); or an entry, or a name "
        "that is not the service's own, leads to an endpoint of a service, which is never spoken to in plaintext.",
        "Write a ServiceEntry for it, or name it with --allow-host HOST[:PORT]. A captured connection goes to the "
        "address that the app chose: the name it says (Host, SNI) has to lead there as well, and bytes without a name "
        "are allowed by an address alone.",
    ),
    Reason.NO_CONFIGURATION: ReasonHelp(
        "The app called somebody before this sidecar knew the mesh: with --control, and neither --mesh nor --config, "
        "nothing is known until the control plane has answered once.",
        "Look at /ready and at the log for why the control plane does not answer. Give --state-dir, and the last good "
        "configuration serves after a restart; let the app start when /ready says so.",
    ),
    Reason.PEER_REFUSED: ReasonHelp(
        "A client showed no certificate, or one that is not taken; nothing of its reached the app.",
        "The detail names the rule. A client of the mesh goes through its own sidecar; one that has none needs a port "
        "that is PERMISSIVE. For a wrong or ended certificate look at /certs of the client's sidecar.",
    ),
    Reason.PLAINTEXT_REFUSED: ReasonHelp(
        "A client spoke plaintext to a port that takes mutual TLS only (STRICT).",
        "Give the client a sidecar, or set this port's mode to PERMISSIVE (--mtls, --mesh) while it has none.",
    ),
    Reason.HANDSHAKE_FAILED: ReasonHelp(
        "A client's TLS handshake failed for another reason than its certificate.",
        "The detail has OpenSSL's word or the alert that the client sent. TLS 1.3 is spoken here, and ALPN has to "
        "offer a protocol of the mesh, http/1.1, or nothing.",
    ),
    Reason.HANDSHAKE_TIMEOUT: ReasonHelp(
        "A client connected to a port that takes mutual TLS, and finished no handshake within 10 s.",
        "A port scan, a health check by TCP, a client without a sidecar that waits for the app to speak first, or a "
        "slow network.",
    ),
    Reason.REVOKED: ReasonHelp(
        "The connection was cut: the peer's certificate, or one that signed it, was revoked while it was open.",
        "The detail has the serial number. Where it was not meant, let an operator look at what is revoked "
        "(sidecarctl revocations).",
    ),
    Reason.CERTIFICATE_EXPIRED: ReasonHelp(
        "The connection was cut: the peer's certificate, or this proxy's own, expired while it was open.",
        "The detail says whose. That sidecar gets no new certificate, or its clock is wrong: look at /certs there, and "
        "whether it reaches the control plane. A connection that was busy until the end of the certificate it began "
        "with ends so too: shorter streams, or a longer --leaf-ttl.",
    ),
    Reason.ROOT_WITHDRAWN: ReasonHelp(
        "The connection was cut: the root of the peer's certificate was taken out of the bundle of trust.",
        "After a rotation of the root: the peer has no certificate of the new one yet; look at /certs there, and "
        "whether it reaches the control plane.",
    ),
    Reason.NO_IDENTITY: ReasonHelp(
        "This proxy has no certificate that is good now, and so serves nothing that needs one.",
        "Look at /certs and the application log: is the control plane reached, is the token good, is the clock right?",
    ),
    Reason.NO_ENDPOINT: ReasonHelp(
        "The service is known, and has no endpoint.",
        "Is it running, and does --mesh (or the registry) list where? /config_dump shows what this proxy was told.",
    ),
    Reason.UPSTREAM_HANDSHAKE: ReasonHelp(
        "The TLS handshake with the service's sidecar failed, or it refused this proxy's certificate.",
        "The detail has the alert or OpenSSL's word. Is there a sidecar at that address? Its own log and /explain name "
        "the rule if it refused; nothing was sent in plaintext.",
    ),
    Reason.UPSTREAM_IDENTITY: ReasonHelp(
        "Whoever answered at the service's address has shown another identity than those that may serve it; or the "
        "connection was cut while it was used, since a certificate on it was no longer good.",
        "At a handshake nothing was sent; of a cut the detail says why. Does the service's definition name the service "
        "account that it runs as? If it does, somebody else answers at that address.",
    ),
    Reason.DNS_FAILED: ReasonHelp(
        "The destination's name could not be looked up.",
        "Check the name, /etc/resolv.conf and that the name servers answer.",
    ),
    Reason.CONNECT_FAILED: ReasonHelp(
        "Nobody accepts connections at the upstream's address.",
        "Inbound: is the app running, and does it listen on the address and port of --upstream? Outbound: the same, of "
        "whom the app calls. The detail names the address.",
    ),
    Reason.CONNECT_TIMEOUT: ReasonHelp(
        "The upstream's address did not answer within --connect-timeout.",
        "A firewall that drops packets, a wrong address, or an accept queue that is full: look at the app's machine.",
    ),
    Reason.UPSTREAM_CLOSED: ReasonHelp(
        "The upstream closed or reset the connection before its answer was complete. With a status other than 503 the "
        "answer had begun: then the client's connection was reset as well, so that what it got does not look whole.",
        "Look for a crash or restart in the app's log at this time. If it comes on reused connections only, the app's "
        "keep-alive time-out is shorter than --pool-idle-timeout: make that one shorter.",
    ),
    Reason.UPSTREAM_PROTOCOL: ReasonHelp(
        "The upstream's answer breaks HTTP's rules.",
        "Mend the app; the detail names the rule. Often: two lengths, a length beside chunked, or control bytes.",
    ),
    Reason.UPSTREAM_TIMEOUT: ReasonHelp(
        "The upstream took the request and did not begin to answer within --stream-idle-timeout, or the time of the "
        "request's route was over: timeout for all attempts until the end of the answer, perTryTimeout for one.",
        "The app hangs or is overloaded: look at what it does with this path at this time. The detail names the limit. "
        "If the app rightly takes so long, raise that limit.",
    ),
    Reason.UPSTREAM_IDLE: ReasonHelp(
        "The upstream stopped in the middle of its answer for --stream-idle-timeout. The client had its status by "
        "then; its connection was reset, so that what it got does not look whole. Of relayed bytes (TCP in the log): "
        "nothing came for five minutes after the client had said its last.",
        "The app hangs in the middle of a stream; let it send something now and then, or raise --stream-idle-timeout.",
    ),
    Reason.NO_CLUSTER: ReasonHelp(
        "A route of a VirtualService leads to a service, a port or a subset that this proxy does not see.",
        "The detail names it. Look whether it exists and is exported here: sidecarctl get services, and for a subset "
        "the DestinationRule of its host; sidecarctl check finds such routes in documents.",
    ),
    Reason.FAULT_INJECTED: ReasonHelp(
        "The route has a fault.abort, and this request is of the share that gets its status.",
        "Nothing is wrong: take the fault out of the VirtualService when the test is over.",
    ),
    Reason.RETRY_BUDGET: ReasonHelp(
        "The last attempt failed, and was not retried: the cluster's budget for retries is used up by those in "
        "progress, or by those of the last seconds.",
        "The detail names the failure. Many requests to this service fail now, and more retries would add to its "
        "load: look at the service. trafficPolicy.retryBudget of its DestinationRule, or retryBudget of its "
        "BackendTrafficPolicy, allows more.",
    ),
    Reason.POOL_FULL: ReasonHelp(
        "All connections to the upstream are in use, and --max-waiting requests wait already.",
        "The app is slower than its load: scale it, or raise --max-app-connections if it can take more at once. "
        "/clusters shows how many are open and waiting now.",
    ),
    Reason.POOL_TIMEOUT: ReasonHelp(
        "All connections to the upstream were in use for as long as a request may wait for one.",
        "The app is slower than its load: scale it, or raise --max-app-connections if it can take more at once. "
        "/clusters shows how many are open and waiting now.",
    ),
    Reason.MEMORY: ReasonHelp(
        "The proxy is near its memory limit: until it is below 85 % of it, it serves one at a time, refuses further "
        "requests with 503, and resets further connections.",
        "Raise --memory-limit or the container's limit; /memory shows what is used.",
    ),
    Reason.TOO_MANY_CONNECTIONS: ReasonHelp(
        "As many connections are open as --max-connections allows; or 512 TLS handshakes are under way, and this one "
        "was the oldest of the peer that has most of them.",
        "Raise it (and ulimit -n), or look for clients that open connections and leave them, or handshakes.",
    ),
    Reason.DRAIN_DEADLINE: ReasonHelp(
        "The process ended before this was complete: --drain-seconds had passed, or a second signal came.",
        "Give it more time to drain, also in the pod's terminationGracePeriodSeconds.",
    ),
    Reason.INTERNAL: ReasonHelp(
        "The proxy failed for a reason of its own.", "Please report it, with the traceback from its log."
    ),
}
