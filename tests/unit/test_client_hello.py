"""ClientHellos that OpenSSL made, cut and split in all ways, and bytes that are none."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http.first_bytes import Detected, detect
from sidecar.tls.client_hello import HELLO_BYTES, RECORDS, Hello, NoHello, read_hello


def client_hello(name: str | None = None, alpn: list[str] | None = None) -> bytes:
    """What OpenSSL sends first, as the one record it sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(hello: bytes, size: int) -> bytes:
    """The same hello in records of at most ``size`` bytes."""
    body = hello[5:]
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def with_extensions(*extensions: tuple[int, bytes], tail: bytes = b"") -> bytes:
    """A hello of our own, for what OpenSSL would not send."""
    block = b"".join(kind.to_bytes(2, "big") + vector(content, 2) for kind, content in extensions)
    body = (
        b"\x03\x03" + bytes(32) + vector(b"", 1) + vector(b"\x13\x01", 2) + vector(b"\0", 1) + vector(block, 2) + tail
    )
    handshake = b"\x01" + vector(body, 3)
    return b"\x16\x03\x01" + vector(handshake, 2)


def vector(content: bytes, prefix: int) -> bytes:
    return len(content).to_bytes(prefix, "big") + content


def server_name(name: bytes, kind: bytes = b"\0") -> tuple[int, bytes]:
    return 0, vector(kind + vector(name, 2), 2)


MANY = [f"protocol-number-{number:04d}" for number in range(150)]
PLAIN = client_hello("app.example.org", ["h2", "http/1.1"])
LARGE = client_hello("app.example.org", MANY)
HELLOS = {
    "plain": (PLAIN, Hello(b"app.example.org", (b"h2", b"http/1.1"))),
    "no-name": (client_hello(), Hello(b"", ())),
    "upper-case": (client_hello("App.Example.ORG"), Hello(b"app.example.org", ())),
    "large": (LARGE, Hello(b"app.example.org", tuple(name.encode() for name in MANY))),
    "two-records": (in_records(PLAIN, len(PLAIN) // 2), Hello(b"app.example.org", (b"h2", b"http/1.1"))),
    "small-records": (in_records(PLAIN, 16), Hello(b"app.example.org", (b"h2", b"http/1.1"))),
    "first-record-of-one": (in_records(PLAIN[:6], 1) + in_records(b"....." + PLAIN[6:], 4096),
                            Hello(b"app.example.org", (b"h2", b"http/1.1"))),
    "large-in-records": (in_records(LARGE, 1000), Hello(b"app.example.org", tuple(n.encode() for n in MANY))),
}  # fmt: skip


def test_the_large_hello_is_beyond_one_packet() -> None:
    assert len(LARGE) > 1500
    assert LARGE.index(b"protocol-number-0149") > 1500


@pytest.mark.parametrize(("data", "expected"), HELLOS.values(), ids=list(HELLOS))
def test_a_hello_is_read(data: bytes, expected: Hello) -> None:
    assert detect(data) is Detected.TLS
    assert read_hello(data) == expected
    assert read_hello(data + b"\x14\x03\x03\x00\x01\x01") == expected


@pytest.mark.parametrize("data", [row[0] for row in HELLOS.values()], ids=list(HELLOS))
def test_every_beginning_of_a_hello_waits_for_the_rest(data: bytes) -> None:
    assert all(read_hello(data[:end]) is None for end in range(len(data)))


@pytest.mark.parametrize("count", [31, 32, 33, 5000])
def test_the_last_protocol_offered_is_read_however_many_come_before(count: int) -> None:
    offered = vector(b"h", 1) * count + vector(b"istio", 1)
    hello = with_extensions((16, vector(offered, 2)))
    assert len(hello) < HELLO_BYTES
    assert read_hello(hello) == Hello(b"", (b"h",) * count + (b"istio",))


@pytest.mark.parametrize("shown", [b"a_b.example", b"xn--nxasmq6b", b"10.0.0.1", b"x" * 254])
def test_a_host_name_is_kept(shown: bytes) -> None:
    assert read_hello(with_extensions(server_name(shown))) == Hello(shown, ())


@pytest.mark.parametrize(
    "shown", [b"", b"a b", b'a"b', b"a\r\nb", b"a\x00b", b"\xc3\xa4", b".a", b"-a", b"x" * 255, b"a/b", b"a:1", b"{}"]
)
def test_what_is_no_host_name_is_left_out(shown: bytes) -> None:
    assert read_hello(with_extensions(server_name(shown), (16, vector(vector(b"h2", 1), 2)))) == Hello(b"", (b"h2",))


def test_another_kind_of_name_is_passed_over() -> None:
    names = vector(b"\1" + vector(b"other", 2) + b"\0" + vector(b"app", 2), 2)
    assert read_hello(with_extensions((0, names))) == Hello(b"app", ())


def test_a_hello_without_extensions_is_one() -> None:
    body = b"\x03\x01" + bytes(32) + vector(b"", 1) + vector(b"\0\x2f", 2) + vector(b"\0", 1)
    assert read_hello(b"\x16\x03\x01" + vector(b"\x01" + vector(body, 3), 2)) == Hello(b"", ())


BROKEN = {
    "another-record": b"\x17" + PLAIN[1:],
    "another-version": b"\x16\x02" + PLAIN[2:],
    "another-message": PLAIN[:5] + b"\x02" + PLAIN[6:],
    "empty-record": b"\x16\x03\x01\x00\x00" + PLAIN,
    "record-too-long": b"\x16\x03\x01\xff\xff" + PLAIN[5:],
    "second-record-is-another": in_records(PLAIN, 100)[:105] + b"\x17\x03\x03\x00\x05hello",
    "name-cut": with_extensions((0, b"\x00\x09\x00\x00\x09app")),
    "name-list-cut": with_extensions((0, b"\x00")),
    "alpn-cut": with_extensions((16, b"\x00\x05\x09h2")),
    "last-alpn-cut": with_extensions((16, vector(vector(b"h2", 1) * 40 + b"\x03h2", 2))),
    "extension-cut": with_extensions((16, b""))[:-4] + b"\x00\x10\x00\x05",
    "session-id-cut": b"\x16\x03\x01" + vector(b"\x01" + vector(b"\x03\x03" + bytes(32) + b"\x20", 3), 2),
    "nothing-in-it": b"\x16\x03\x01" + vector(b"\x01" + vector(b"", 3), 2),
    "never-ends": in_records(b"....." + b"\x01\xff\xff\xff" + bytes(HELLO_BYTES), 16_384),
    "too-many-records": in_records(PLAIN, 1),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=list(BROKEN))
def test_what_is_no_hello_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(NoHello):
        read_hello(data)


def test_as_many_records_as_are_read_are_read() -> None:
    body = PLAIN[5:]
    size = -(-len(body) // RECORDS)
    assert read_hello(in_records(PLAIN, size)) == Hello(b"app.example.org", (b"h2", b"http/1.1"))
    assert len(in_records(PLAIN, 1)) < HELLO_BYTES  # so that the row above is refused for its records


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.sampled_from([b"", PLAIN[:5], PLAIN[:9], PLAIN[:44], PLAIN[:80], b"\x16\x03\x01"]))
def test_any_bytes_are_a_hello_or_none_or_the_beginning_of_one(data: bytes, begin: bytes) -> None:
    judge(begin + data)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), max_size=4))
def test_a_hello_with_wrong_bytes_in_it_is_survived(changes: list[tuple[int, int]]) -> None:
    data = bytearray(PLAIN)
    for position, byte in changes:
        data[position] = byte
    judge(bytes(data))


def judge(data: bytes) -> None:
    """Nothing but NoHello is raised, and who was refused early is not accepted later."""
    try:
        found = read_hello(data)
    except NoHello:
        return
    assert found is None or isinstance(found, Hello)
    if found is not None:
        for end in range(0, len(data), 7):
            assert read_hello(data[:end]) in (None, found)
