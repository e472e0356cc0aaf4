"""A sidecar names all addresses of its pod, proves each by a call from there, and registers what could be proven."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.feed import registration, wiring
from sidecar.feed.config_status import standing
from sidecar.feed.snapshot_holder import SnapshotHolder
from tests.proxy.fickle import plane_at
from tests.proxy.test_registration import PATH, registered

CAPTURED = {"interception": "redirect"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of this machine, which a test may change."""
    addresses = ["127.0.0.2", "127.0.0.3"]
    monkeypatch.setattr(wiring, "every_outward_address", lambda: list(addresses))
    return addresses


@pytest.mark.parametrize(
    "flags",
    [{}, {"advertise": ":99"}],
    ids=["by default", "with a port"],
)
async def test_each_address_is_proven_by_a_call_from_there(
    tmp_path: Path, machine: list[str], flags: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with plane_at(tmp_path) as plane, registered(plane, **CAPTURED, **flags) as web:
        await web.until(lambda: web.registration.addresses == ("127.0.0.2", "127.0.0.3"))
        assert plane.callers[PATH][1:] == ["127.0.0.2", "127.0.0.3"]
        assert web.registration.refused == {} and not web.errors
        await web.until(lambda: web.beats)
        assert web.entry["addresses"] == machine
        assert any("shop/web at 127.0.0.2, 127.0.0.3, as web-1" in line for line in caplog.messages)
        assert "WARNING" not in [record.levelname for record in caplog.records]


@pytest.mark.parametrize(
    "flags",
    [{"advertise": "10.0.0.7", **CAPTURED}, {"upstream": "127.0.0.1:1"}],
    ids=["an address that was said", "without interception"],
)
async def test_nothing_is_named_where_the_address_is_known(
    tmp_path: Path, machine: list[str], flags: dict[str, str]
) -> None:
    async with plane_at(tmp_path) as plane, registered(plane, **flags) as web:
        await web.until(lambda: web.beats)
        assert web.entry["addresses"] == []


def _refused_behind_a_translation(machine: list[str], translated: set[str]) -> str:
    translated.add("127.0.0.3")
    return "unproven"


def _refused_of_the_other_family(machine: list[str], translated: set[str]) -> str:
    machine[1] = "::1"
    return "a call from there failed: the control plane has no IPv6 address (http://127.0.0.1"


def _refused_without_a_way(machine: list[str], translated: set[str]) -> str:
    machine[1] = "192.0.2.1"
    return "a call from there failed: 127.0.0.1"


@pytest.mark.parametrize(
    "arrange", [_refused_behind_a_translation, _refused_of_the_other_family, _refused_without_a_way]
)
async def test_what_can_not_be_proven_is_told_once_and_the_rest_is_registered(
    tmp_path: Path,
    machine: list[str],
    arrange: Callable[[list[str], set[str]], str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registration, "PROVE_AGAIN", 0.0)
    async with plane_at(tmp_path) as plane:
        why = arrange(machine, plane.translated)
        async with registered(plane, **CAPTURED) as web:
            await web.until(lambda: web.registration.beats >= 2)  # and so it was tried again
            assert web.registration.state == "registered"
            assert web.registration.addresses == ("127.0.0.2",)
            (address,) = web.registration.refused
            assert address == machine[1] and web.registration.refused[address].startswith(why)
            told = [line for line in caplog.messages if f"not registered at {address}, " in line]
            assert len(told) == 1 and why in told[0] and "--workload-networks" in told[0]
            shown = standing_of(web.registration)
            assert shown["addresses"] == ["127.0.0.2"]
            assert shown["refused_addresses"] == web.registration.refused
            assert not web.errors, "the registration itself is well"


async def test_what_could_not_be_proven_is_tried_again(
    tmp_path: Path, machine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "PROVE_AGAIN", 0.0)
    async with plane_at(tmp_path) as plane:
        plane.translated.add("127.0.0.3")
        async with registered(plane, **CAPTURED) as web:
            await web.until(lambda: web.registration.refused and web.beats)
            plane.translated.clear()
            await web.until(lambda: web.registration.addresses == ("127.0.0.2", "127.0.0.3"))
            assert web.registration.refused == {}


async def test_an_address_that_comes_or_goes_is_registered_anew(tmp_path: Path, machine: list[str]) -> None:
    async with plane_at(tmp_path) as plane, registered(plane, **CAPTURED) as web:
        await web.until(lambda: len(web.registration.addresses) == 2)
        machine.append("127.0.0.4")
        await web.until(lambda: web.registration.addresses == ("127.0.0.2", "127.0.0.3", "127.0.0.4"))
        del machine[0]
        await web.until(lambda: web.registration.addresses == ("127.0.0.3", "127.0.0.4"))


async def test_a_call_from_an_address_that_is_not_answered_holds_up_no_heartbeat_for_long(
    tmp_path: Path, machine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "PROVE_SECONDS", 0.2)
    async with plane_at(tmp_path) as plane:
        plane.wrong[PATH] = lambda body: None if plane.callers.get(PATH) else plane.registered(PATH, body)
        async with registered(plane, **CAPTURED) as web:
            await web.until(lambda: web.beats)
            assert set(web.registration.refused.values()) == {"no answer within 0.2 s"}


def standing_of(made: registration.Registration) -> dict[str, object]:
    """What ``/config_dump`` shows of it."""
    shown = standing(SnapshotHolder(), None, made)["registration"]
    assert isinstance(shown, dict)
    return shown
