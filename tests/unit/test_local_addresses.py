"""Whose an address is, and which of ours others can reach; real sockets, and what the kernel tells in files."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest

from sidecar.errors import ProxyError, Reason
from sidecar.net import local_addresses
from sidecar.net.listener import Listener, is_own
from sidecar.net.local_addresses import every_outward_address, is_local, outward_addresses
from tests.support.descriptors import no_descriptors


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("127.9.8.7", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("fe80::1", False),  # of a link, and without it nobody's
    ],
)
def test_an_address_is_ours_if_it_can_be_bound(host: str, ours: bool) -> None:
    assert is_local(host) is ours


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "::1"])
def test_without_a_descriptor_nobody_can_tell(host: str) -> None:
    with no_descriptors(), pytest.raises(ProxyError) as caught:
        is_local(host)
    assert caught.value.reason is Reason.CONNECT_FAILED


def test_a_destination_that_may_be_a_listener_of_ours_is_not_dialed_without_a_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = Listener("scrape", sock)
        with no_descriptors(), pytest.raises(ProxyError):
            is_own([listener], "192.0.2.1", listener.address.port)


def test_a_machine_without_ipv6_has_none_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(family: int, _kind: int) -> socket.socket:
        assert family == socket.AF_INET6
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", without)
    assert not is_local("2001:db8::1")


def test_outward_addresses_are_ours_and_not_loopbacks() -> None:
    for family, text in outward_addresses().items():
        address = ipaddress.ip_address(text)
        assert family == f"ipv{address.version}"
        assert not address.is_loopback and not address.is_link_local
        assert is_local(text)


GLOBAL = "fd770000000000000000000000000001 02 40 00 80     eth0\n"


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("00000000000000000000000000000001 01 80 10 80       lo\n" + GLOBAL, "fd77::1"),
        ("00000000000000000000000000000006 01 80 00 a0       lo\n", None),  # sidecar-init's own
        ("fe80000000000000c0d9defffe96c381 02 40 20 80     eth0\n", None),
        (GLOBAL.replace("80     eth0", "c0     eth0"), None),  # tentative
        (GLOBAL.replace("80     eth0", "88     eth0"), None),  # somebody else has it
        ("", None),
    ],
)
def test_which_ipv6_address_others_can_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, found: str | None
) -> None:
    file = tmp_path / "if_inet6"
    file.write_text(table)
    monkeypatch.setattr(local_addresses, "_IF_INET6", str(file))
    assert outward_addresses().get("ipv6") == found


def test_all_outward_addresses_are_ours_and_have_the_one_of_each_family_among_them() -> None:
    every = every_outward_address()
    assert len(set(every)) == len(every)
    assert set(outward_addresses().values()) <= set(every)
    for text in every:
        address = ipaddress.ip_address(text)
        assert not address.is_loopback and not address.is_link_local and text == str(address)
        assert is_local(text)
    families = [":" in text for text in every]
    assert families == sorted(families), "IPv4 first"


def test_all_ipv6_addresses_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "if_inet6"
    other = GLOBAL.replace("0001 02", "0002 03").replace("eth0", "net1")
    file.write_text("00000000000000000000000000000001 01 80 10 80       lo\n" + GLOBAL + other)
    monkeypatch.setattr(local_addresses, "_IF_INET6", str(file))
    assert [each for each in every_outward_address() if ":" in each] == ["fd77::1", "fd77::2"]


def test_a_kernel_without_ipv6_has_no_such_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_addresses, "_IF_INET6", str(tmp_path / "missing"))
    assert "ipv6" not in outward_addresses()
