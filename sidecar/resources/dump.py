"""A Snapshot as plain JSON, for ``/config_dump``: what is in force, in the words of the mesh file, free of secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sidecar.resources.snapshot import Endpoint, Entry, Service, ServicePort, Snapshot

if TYPE_CHECKING:
    from sidecar.resources.authorization import PolicySpec

Json = dict[str, object]


def dump(snapshot: Snapshot) -> Json:
    """What the proxy obeys. Modes are those in force, with what the command line said in them."""
    me = snapshot.me
    return {
        "schema": snapshot.schema,
        "source": snapshot.source,
        "version": str(snapshot.version),
        "trustDomain": snapshot.trust_domain,
        "proxy": {"namespace": me.namespace, "service": me.service, "serviceAccount": me.service_account},
        "mtls": {
            "mode": snapshot.default_mode.value,
            "portLevelMtls": {str(port): mode.value for port, mode in sorted(snapshot.modes.items())},
        },
        "outboundTrafficPolicy": {"mode": snapshot.outbound_policy},
        "authorization": [_policy(policy) for policy in snapshot.policies],
        "rateLimits": [msgspec.to_builtins(policy) for policy in snapshot.limits],
        "virtualServices": [msgspec.to_builtins(each) for each in snapshot.virtual_services],
        "destinationRules": [msgspec.to_builtins(each) for each in snapshot.destination_rules],
        "backendTrafficPolicies": [msgspec.to_builtins(each) for each in snapshot.backend_policies],
        "services": [_service(service) for _, service in sorted(snapshot.services.items())],
        "serviceEntries": [_entry(entry) for _, entry in sorted(snapshot.entries.items())],
    }


def _policy(policy: PolicySpec) -> Json:
    """In the words of the document; what is left out of a rule matches all."""
    return {
        "name": policy.name,
        "namespace": policy.namespace,
        "action": policy.action,
        "dryRun": policy.dry_run,
        "rules": [msgspec.to_builtins(rule) for rule in policy.rules],
    }


def _service(service: Service) -> Json:
    return {
        "name": service.name,
        "namespace": service.namespace,
        "identities": sorted(map(str, service.identities)),
        "addresses": list(service.addresses),
        "ports": [_port(port) for _, port in sorted(service.ports.items())],
    }


def _entry(entry: Entry) -> Json:
    return {
        "name": entry.name,
        "namespace": entry.namespace,
        "ports": [
            {
                "host": port.host,
                "port": port.port,
                "name": port.name,
                "protocol": port.protocol,
                "resolution": port.resolution,
                "addresses": list(port.addresses),
                "endpoints": [str(place) for place in port.places],
            }
            for port in entry.ports
        ],
    }


def _port(port: ServicePort) -> Json:
    return {
        "port": port.port,
        "name": port.name,
        "protocol": port.protocol,
        "sni": port.sni.decode("ascii"),
        "endpoints": [_endpoint(endpoint) for endpoint in port.endpoints],
    }


def _endpoint(endpoint: Endpoint) -> Json:
    further: Json = {"alsoAt": list(endpoint.others)} if endpoint.others else {}
    return {
        "address": endpoint.address,
        **further,
        "port": endpoint.port,
        "mode": endpoint.mode,
        "labels": dict(endpoint.labels),
        **({"weight": endpoint.weight} if endpoint.weight != 1 else {}),
    }
