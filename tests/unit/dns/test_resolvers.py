"""/etc/resolv.conf as it is now: servers, search list, and what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.addresses import Address
from sidecar.dns.names import key_of
from sidecar.dns.resolvers import Resolvers


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.test B.test.\noptions ndots:5 edns0\n")
    return path


def test_servers_and_search_list(conf: Path) -> None:
    found = Resolvers(str(conf)).now()
    assert found.servers == (Address("192.0.2.1", 53), Address("2001:db8::1", 53))
    assert found.search == (key_of("a.test"), key_of("b.test"))


def test_as_many_servers_as_the_c_library_asks(conf: Path) -> None:
    conf.write_text("".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 6)))
    assert [server.host for server in Resolvers(str(conf)).now().servers] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_the_file_is_read_again_when_it_changed(conf: Path) -> None:
    resolvers = Resolvers(str(conf))
    before = resolvers.now()
    assert resolvers.now() is before
    conf.write_text("nameserver 192.0.2.9\nsearch a.test\n")
    os.utime(conf, (1, 1))
    assert resolvers.now().servers == (Address("192.0.2.9", 53),)
    assert resolvers.now().search == (key_of("a.test"),)


@pytest.mark.parametrize("text", ["", "nameserver not-an-address\n", None])
def test_a_file_that_says_nothing_changes_nothing(conf: Path, text: str | None, caplog) -> None:
    resolvers = Resolvers(str(conf))
    before = resolvers.now()
    if text is None:
        conf.unlink()
    else:
        conf.write_text(text)
    assert resolvers.now() == before
    assert resolvers.now() == before
    (line,) = caplog.messages
    assert str(conf) in line and "still holds" in line


def test_no_file_at_all_is_no_server(tmp_path: Path, caplog) -> None:
    assert Resolvers(str(tmp_path / "none")).now().servers == ()
    assert len(caplog.messages) == 1


def test_servers_of_the_caller_and_the_search_list_of_the_file(conf: Path) -> None:
    given = [Address("127.0.0.1", 5353)]
    found = Resolvers(str(conf), nameservers=given).now()
    assert found.servers == tuple(given)
    assert found.search == (key_of("a.test"), key_of("b.test"))


@pytest.mark.parametrize("own", ["127.0.0.1", "::1"])
def test_our_own_listener_is_left_out_with_a_warning(conf: Path, own: str, caplog) -> None:
    conf.write_text(f"nameserver {own}\nnameserver 127.0.0.53\nnameserver 0.0.0.0\n")
    found = Resolvers(str(conf), own=[Address(own, 53)]).now()
    assert found.servers == (Address("127.0.0.53", 53),)
    assert [line.split(" is this")[0] for line in caplog.messages] == [f"dns: resolver {own}", "dns: resolver 0.0.0.0"]


def test_the_same_address_on_another_port_is_another(conf: Path, caplog) -> None:
    conf.write_text("nameserver 127.0.0.1\n")
    found = Resolvers(str(conf), own=[Address("127.0.0.1", 15053)]).now()
    assert found.servers == (Address("127.0.0.1", 53),)
    assert caplog.messages == []
