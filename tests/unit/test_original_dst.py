"""The kernel's answer -> where a connection wanted to go. Real answers are seen in tests/netns."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from sidecar.addresses import OriginalDst
from sidecar.net.original_dst import original_dst


class Answering:
    """A socket whose kernel gives this answer, or fails with this errno."""

    def __init__(self, family: int, answer: bytes | int, name: tuple[str, int]) -> None:
        self.family = family
        self._answer = answer
        self._name = name

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.SOL_IP if self.family == socket.AF_INET else socket.IPPROTO_IPV6, 80)
        if isinstance(self._answer, int):
            raise OSError(self._answer, os.strerror(self._answer).lower())
        assert size == len(self._answer)
        return self._answer

    def getsockname(self) -> tuple[str, int]:
        return self._name


def asked(family: int, answer: bytes | int, name: tuple[str, int]) -> OriginalDst | None:
    return original_dst(Answering(family, answer, name))  # type: ignore[arg-type]


def v4(host: str, port: int) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))


def v6(host: str, port: int) -> bytes:
    address = socket.inet_pton(socket.AF_INET6, host)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", port, 7, address, 2)


def test_an_answer_of_each_family() -> None:
    assert asked(socket.AF_INET, v4("10.0.0.5", 8080), ("127.0.0.1", 15001)) == OriginalDst("10.0.0.5", 8080)
    assert asked(socket.AF_INET6, v6("fd77::5", 443), ("::1", 15001)) == OriginalDst("fd77::5", 443)


def test_the_same_port_elsewhere_and_another_port_here_are_both_captured() -> None:
    assert asked(socket.AF_INET, v4("10.0.0.5", 15001), ("127.0.0.1", 15001)) == OriginalDst("10.0.0.5", 15001)
    assert asked(socket.AF_INET, v4("10.0.0.5", 80), ("10.0.0.5", 15006)) == OriginalDst("10.0.0.5", 80)


def test_the_address_that_it_arrived_at_is_no_capture() -> None:
    assert asked(socket.AF_INET, v4("127.0.0.1", 15001), ("127.0.0.1", 15001)) is None
    assert asked(socket.AF_INET6, v6("::1", 15001), ("::1", 15001)) is None


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOTCONN, errno.EINVAL])
def test_a_kernel_that_knows_of_nothing(number: int) -> None:
    assert asked(socket.AF_INET, number, ("127.0.0.1", 15001)) is None


def test_what_no_connection_should_answer_is_raised() -> None:
    with pytest.raises(OSError, match="bad") as caught:
        asked(socket.AF_INET, errno.EBADF, ("127.0.0.1", 15001))
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_connection_that_nobody_redirected(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        with socket.create_connection(listener.getsockname()[:2]) as client:
            accepted, _ = listener.accept()
            with accepted:
                assert original_dst(accepted) is None
            assert original_dst(client) is None
