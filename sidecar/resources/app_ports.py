"""What the ports of the app take, as lines for the log. Pure.

Called by ``mesh_runtime`` with each Snapshot. Operators read here which ports relay bytes as they are, since an app
must not believe ``x-forwarded-client-cert`` in those.
"""

from __future__ import annotations

from sidecar.resources.protocols import MEANINGS, Protocol, of_one_port, protocol_in_force
from sidecar.resources.snapshot import ServicePort, Snapshot


def port_lines(snapshot: Snapshot, told: Protocol, *, captured: bool) -> list[str]:
    """Return a line for each port of the app that a service of this workload declares; empty where there is none.

    ``told`` is ``--protocol``. ``captured``: connections come to the app's own ports; otherwise all ports of the
    service lead to one.
    """
    own = snapshot.own
    if own is None:
        return []
    groups: dict[int, list[ServicePort]] = {}
    for port in own.ports.values():
        groups.setdefault(port.target if captured else 0, []).append(port)
    return [_line(f"{own.name}.{own.namespace}", ports, told) for ports in groups.values()]


def _line(service: str, ports: list[ServicePort], told: Protocol) -> str:
    protocol = protocol_in_force(told, of_one_port([port.protocol for port in ports]))
    numbers = ", ".join(f"{port.port} ({port.protocol})" for port in ports)
    several = " (they lead to one port of the app)" if len(ports) > 1 else ""
    many = "s" if len(ports) > 1 else ""
    return f"inbound: port{many} {numbers} of service {service}{several}: {protocol}: {MEANINGS[protocol]}"
