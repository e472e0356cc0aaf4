"""What is shown of the identity: ``/certs``, and the figures of its feed. Never a key.

Who calls it: ``mesh_runtime`` for the admin port, and ``gauges`` once at the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs.bundle import Bundle
from sidecar.feed.certificate_renewal import FetchCounters, IdentityFeed
from sidecar.feed.retrying_client import RetryingClient
from sidecar.identity import CredentialEpoch, Identity
from sidecar.telemetry.metric_snapshot import Gauges
from sidecar.tls.acceptor import TlsAcceptor


def certificates(
    identity: Identity, feed: IdentityFeed, caller: RetryingClient, acceptor: TlsAcceptor
) -> dict[str, object]:
    """As JSON, with Envoy's words where it has them."""
    generation, tally = identity.generation, feed.tally
    return {
        "certificates": [] if generation is None else [_generation(generation)],
        "renewal": {
            "next": _moment(tally.next_renewal),
            "outcomes": dict(tally.renewals),
            "last_error": caller.last_error,
            "refused": caller.refused or None,
            "control_plane_clock_ahead_seconds": caller.skew,
        },
        "trust": {
            "control_plane": str(feed.control_id),
            "bundle_version": _version(tally.bundle_version),
            "revocations_version": _version(tally.lists_version),
            "revoked_certificates": sum(len(each.serials) for each in identity.revocations.lists),
            "overdue": tally.overdue,
        },
        "handshakes": {"outcomes": dict(acceptor.outcomes), "groups": dict(acceptor.groups)},
    }


def add_gauges(gauges: Gauges, identity: Identity, feed: IdentityFeed, caller: RetryingClient) -> None:
    """Gives the metrics of the feed their readers."""
    tally: FetchCounters = feed.tally

    def ends() -> float:
        return 0.0 if identity.generation is None else identity.generation.credentials.not_after

    gauges.add("sidecar_certificate_expiry_timestamp_seconds", ends)
    gauges.add_labelled(
        "sidecar_certificate_renewals",
        lambda: [((outcome,), float(times)) for outcome, times in ({"ok": 0} | tally.renewals).items()],
    )
    gauges.add_labelled(
        "sidecar_control_plane_errors", lambda: [(key, float(times)) for key, times in caller.errors.items()]
    )
    gauges.add("sidecar_control_plane_clock_skew_seconds", lambda: caller.skew or 0.0)
    gauges.add("sidecar_revocation_list_overdue", lambda: tally.overdue)


def _generation(generation: CredentialEpoch) -> dict[str, object]:
    ours = generation.credentials
    return {
        "spiffe_id": str(ours.spiffe_id),
        "generation": generation.number,
        "expiration_time": _moment(ours.not_after),
        "cert_chain": [_certificate(each) for each in ours.chain],
        "ca_cert": [_bundle(each) for each in ours.bundles],
    }


def _bundle(bundle: Bundle) -> dict[str, object]:
    return {"trust_domain": bundle.trust_domain, "roots": [_certificate(each) for each in bundle.roots]}


def _certificate(certificate: x509.Certificate) -> dict[str, object]:
    return {
        "serial_number": f"{certificate.serial_number:x}",
        "subject_alt_names": [{"uri": uri} for uri in _uris(certificate)],
        "valid_from": _moment(certificate.not_valid_before_utc.timestamp()),
        "expiration_time": _moment(certificate.not_valid_after_utc.timestamp()),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def _uris(certificate: x509.Certificate) -> Sequence[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _moment(when: float) -> str | None:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if when else None


def _version(version: tuple[int, int] | None) -> str | None:
    return None if version is None else "{}.{}".format(*version)
