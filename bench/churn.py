"""A mesh that changes: fills a control plane, lets simulated proxies wait, and changes single endpoints at random
instants.

Called by `registry`, which starts the control plane, and by the tests in a short form. What each proxy needs is decided
first, so what must arrive where is known for each change, and what arrives anywhere else was for nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
import trio

from bench.measure import cpu_seconds, rss_bytes
from bench.simulated import Line, SimulatedProxy
from sidecar.addresses import Address

PER_NAMESPACE: Final = 10  # services
NEEDED: Final = 3  # services of a proxy
APPLIED_AT_ONCE: Final = 500  # documents
REGISTRARS: Final = 16  # tokens; a caller may make 50 calls a second
FIRST_PORT: Final = 20_000  # a change sets its own number as port, by which it is known where it arrives
PATIENCE: Final = 120.0
REGISTRAR: Final = "spiffe://cluster.local/ns/load/sa/registrar"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Size:
    """How large the mesh is, how many changes are made, and how many seconds apart in the mean."""

    services: int = 1000
    endpoints: int = 10
    proxies: int = 200
    changes: int = 300
    apart: float = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it. Delays in seconds, one for each change and proxy that needs it; ``strangers``: snapshots that
    came to proxies for a change that they don't need; ``holds``: the fewest and most services that a proxy was ever
    told of."""

    delays: list[float]
    missing: int
    strangers: int
    holds: tuple[int, int]
    seeded: float
    first: float
    cpu_seeding: float
    cpu_first: float
    cpu_changes: float
    cpu_idle: float
    took: float
    rss: int


def service_at(number: int) -> tuple[str, str]:
    """Namespace and name of a service."""
    return f"team-{number // PER_NAMESPACE}", f"s{number}"


def documents(size: Size, needs: Sequence[Sequence[int]]) -> Iterator[dict[str, object]]:
    """All services, and what each proxy is to know of them."""
    for number in range(size.services):
        namespace, name = service_at(number)
        endpoints = [
            {"address": f"10.{number >> 8 & 255}.{number & 255}.{index + 1}", "port": 8080}
            for index in range(size.endpoints - 1)
        ]
        spec = {"ports": [{"port": 80}], "subjectAltNames": [REGISTRAR], "endpoints": endpoints}
        yield {
            "apiVersion": "sidecar/v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
    for index, needed in enumerate(needs):
        hosts = [f"{namespace}/{name}.{namespace}.svc.cluster.local" for namespace, name in map(service_at, needed)]
        yield {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Sidecar",
            "metadata": {"name": "needed", "namespace": f"edge-{index}"},
            "spec": {"egress": [{"hosts": hosts}]},
        }


async def measure(address: Address, operator: str, pid: int, size: Size, chance: random.Random) -> Measured:
    """Fills a control plane that listens at ``address`` and is the process ``pid``, and changes it. Raises
    ControlRefused where it does not do what it is asked."""
    needs = [sorted(chance.sample(range(size.services), NEEDED)) for _ in range(size.proxies)]
    began, used = time.monotonic(), cpu_seconds(pid)
    line = Line(address, operator)
    for part in _parts(list(documents(size, needs)), APPLIED_AT_ONCE):
        await line.change("POST", "/v1/resources:apply", part)
    registrars = [Line(address, await _token(line, "load", "registrar")) for _ in range(REGISTRARS)]
    await _in_parallel(registrars, range(size.services), lambda line, number: _register(line, number, 8080))
    seeded, cpu_seeding = time.monotonic() - began, cpu_seconds(pid) - used

    tokens = [await _token(line, f"edge-{index}", "app") for index in range(size.proxies)]
    proxies = [SimulatedProxy(Line(address, token), f"p{index}") for index, token in enumerate(tokens)]
    began, used = time.monotonic(), cpu_seconds(pid)
    async with trio.open_nursery() as nursery:
        for proxy in proxies:
            nursery.start_soon(proxy.run)
        for proxy in proxies:
            await proxy.ready.wait()
        first, cpu_first = time.monotonic() - began, cpu_seconds(pid) - used
        used = cpu_seconds(pid)
        await trio.sleep(min(5.0, size.changes * size.apart))
        cpu_idle = (cpu_seconds(pid) - used) / min(5.0, size.changes * size.apart)
        woken = [proxy.woken for proxy in proxies]
        began, used = time.monotonic(), cpu_seconds(pid)
        acknowledged = await _change(registrars, needs, size, chance)
        due = [(port, index) for port, (_, number) in acknowledged.items() for index in _needing(needs, number)]
        with trio.move_on_after(PATIENCE):
            while any(port not in proxies[index].arrived for port, index in due):  # noqa: ASYNC110  # they note it themselves
                await trio.sleep(0.05)
        took, cpu_changes = time.monotonic() - began, cpu_seconds(pid) - used
        nursery.cancel_scope.cancel()
    for each in (line, *registrars, *(proxy.line for proxy in proxies)):
        with trio.CancelScope(shield=True):
            await each.aclose()
    delays = [
        proxies[index].arrived[port] - acknowledged[port][0] for port, index in due if port in proxies[index].arrived
    ]
    needed = [sum(1 for _, one in due if one == index) for index in range(size.proxies)]
    strangers = sum(
        max(0, proxy.woken - before - most) for proxy, before, most in zip(proxies, woken, needed, strict=True)
    )
    return Measured(
        delays=delays,
        missing=len(due) - len(delays),
        strangers=strangers,
        holds=(min(proxy.fewest for proxy in proxies), max(proxy.most for proxy in proxies)),
        seeded=seeded,
        first=first,
        cpu_seeding=cpu_seeding,
        cpu_first=cpu_first,
        cpu_changes=cpu_changes,
        cpu_idle=cpu_idle,
        took=took,
        rss=rss_bytes(pid),
    )  # fmt: skip


async def _change(
    registrars: Sequence[Line], needs: Sequence[Sequence[int]], size: Size, chance: random.Random
) -> dict[int, tuple[float, int]]:
    """Changes one endpoint after the other; when each was acknowledged, and whose it is, by the port that it set."""
    known = sorted({number for needed in needs for number in needed})
    acknowledged = {}
    due = time.monotonic()
    for change in range(size.changes):
        due += chance.expovariate(1 / size.apart)
        await trio.sleep(max(0.0, due - time.monotonic()))
        number, port = chance.choice(known), FIRST_PORT + change
        await _register(registrars[change % len(registrars)], number, port)
        acknowledged[port] = time.monotonic(), number
        # The next one of this service may come within the same batch, and would then replace this one.
        known.remove(number)
        if not known:
            known = sorted({number for needed in needs for number in needed})
            await trio.sleep(1.0)
    return acknowledged


def _needing(needs: Sequence[Sequence[int]], number: int) -> list[int]:
    return [index for index, needed in enumerate(needs) if number in needed]


async def _register(line: Line, number: int, port: int) -> None:
    namespace, name = service_at(number)
    body = {"address": f"10.{number >> 8 & 255}.{number & 255}.200", "port": port, "ttl": "300s"}
    await line.change("PUT", f"/v1/services/{namespace}/{name}/endpoints/one", body)


async def _token(line: Line, namespace: str, account: str) -> str:
    wanted = {"namespace": namespace, "serviceAccount": account, "ttl": "24h", "addresses": ["10.0.0.0/8"]}
    made = msgspec.json.decode(await line.change("POST", "/v1/tokens", wanted), type=dict[str, object])
    return str(made["token"])


async def _in_parallel(lines: Sequence[Line], items: Sequence[T], call: Callable[[Line, T], Awaitable[None]]) -> None:
    async def some(line: Line, share: Sequence[T]) -> None:
        for item in share:
            await call(line, item)

    async with trio.open_nursery() as nursery:
        for index, line in enumerate(lines):
            nursery.start_soon(some, line, items[index :: len(lines)])


def _parts(items: Sequence[T], length: int) -> Iterator[Sequence[T]]:
    return (items[begin : begin + length] for begin in range(0, len(items), length))
