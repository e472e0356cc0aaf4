"""The two forms of a path, row by row, and what no path may do to them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import ProxyError, Reason
from sidecar.http.paths import forwarded, judged

# path as sent -> forwarded, judged
ROWS = [
    (b"/", b"/", {b"/"}),
    (b"/app/../admin", b"/admin", {b"/admin"}),
    (b"/app/%2E./admin", b"/admin", {b"/admin"}),
    (b"/app/%2e%2E/admin", b"/admin", {b"/admin"}),
    (b"/app//", b"/app//", {b"/app/"}),
    (b"/app%2f/", b"/app%2f/", {b"/app/"}),
    (b"/app%2F/", b"/app%2F/", {b"/app/"}),
    (b"/app\\admin", b"/app\\admin", {b"/app/admin"}),
    (b"/app\\..\\admin", b"/app\\..\\admin", {b"/admin"}),
    (b"/app%5c..%5Cadmin", b"/app%5c..%5Cadmin", {b"/admin"}),
    (b"/app%2f..%2fadmin", b"/app%2f..%2fadmin", {b"/admin"}),
    (b"/%2Fapp%5cadmin%5Cabc", b"/%2Fapp%5cadmin%5Cabc", {b"/app/admin/abc"}),
    (b"/app//../admin", b"/app/admin", {b"/app/admin", b"/admin"}),
    (b"/app%2f%2f..%2fadmin", b"/app%2f%2f..%2fadmin", {b"/app/admin", b"/admin"}),
    (b"/app/\\../admin", b"/app/\\../admin", {b"/app/admin", b"/admin"}),
    # what the app is sent counts as well as what it was to be sent
    (b"/a%2fb/\\../..", b"/a%2fb/", {b"/", b"/a/", b"/a/b/"}),
    (b"/admin;a=b", b"/admin;a=b", {b"/admin"}),
    (b"/;/admin", b"/;/admin", {b"/admin"}),
    (b"/app;x/admin;y", b"/app;x/admin;y", {b"/app/admin"}),
    (b"/%61dmin", b"/admin", {b"/admin"}),
    (b"/%41-%5F%7e%30", b"/A-_~0", {b"/A-_~0"}),
    (b"/..", b"/", {b"/"}),
    (b"/../../x", b"/x", {b"/x"}),
    (b"/a/.", b"/a/", {b"/a/"}),
    (b"/a/..", b"/", {b"/"}),
    (b"/a/./b/", b"/a/b/", {b"/a/b/"}),
    (b"//a", b"//a", {b"/a"}),
    (b"/a?b=/../%2e%00", b"/a?b=/../%2e%00", {b"/a"}),
    (b"/a/../b?c%2f", b"/b?c%2f", {b"/b"}),
    (b"/a?", b"/a?", {b"/a"}),
    (b"/a%3fb", b"/a%3fb", {b"/a%3fb"}),
    (b"/a%23b", b"/a%23b", {b"/a%23b"}),
    # left alone: none of them is /admin
    (b"/app/0x2e0x2e/admin", b"/app/0x2e0x2e/admin", {b"/app/0x2e0x2e/admin"}),
    (b"/app/%252e%252e/admin", b"/app/%252e%252e/admin", {b"/app/%252e%252e/admin"}),
    (b"/app/%252fadmin", b"/app/%252fadmin", {b"/app/%252fadmin"}),
    (b"/app/.../admin", b"/app/.../admin", {b"/app/.../admin"}),
    (b"/app/..../admin", b"/app/..../admin", {b"/app/..../admin"}),
    (b"/Admin", b"/Admin", {b"/Admin"}),
    (b"/.admin", b"/.admin", {b"/.admin"}),
    (b"/admin.", b"/admin.", {b"/admin."}),
]

REFUSED = [
    b"/%00", b"/admin%00", b"/a%0d%0ab", b"/a%0Ab", b"/a%0db",
    b"/%c0%ae%c0%ae/admin", b"/%C0%AF", b"/%c1%9c", b"/%e0%80%ae", b"/%f0%80%80%ae", b"/%f8%80%80%80%ae",
    b"/%fc%80%80%80%80%ae",
    b"/app/..;x/admin", b"/app/.;/admin", b"/..;", b"/app/%2e%2e;x/admin", b"/app/..;/admin?q", b"/app\\..;x/admin",
    b"/app\\.;/admin", b"/app%2f..;x/admin", b"/app%5C%2e.;x/admin",
    b"/%", b"/%2", b"/%zz", b"/%%32e", b"/a%2/../b",
]  # fmt: skip


@pytest.mark.parametrize(("sent", "expected", "seen"), ROWS, ids=[row[0].decode() for row in ROWS])
def test_a_path_has_its_two_forms(sent: bytes, expected: bytes, seen: set[bytes]) -> None:
    assert forwarded(sent) == expected
    assert judged(sent) == seen


@pytest.mark.parametrize("sent", REFUSED, ids=[path.decode() for path in REFUSED])
def test_a_path_that_reads_in_two_ways_is_refused(sent: bytes) -> None:
    with pytest.raises(ProxyError) as caught:
        forwarded(sent)
    assert caught.value.reason is Reason.BAD_REQUEST


@pytest.mark.parametrize("byte", [byte for byte in range(1, 256) if byte not in b"\r\n"])
def test_only_what_is_unreserved_or_parts_a_path_is_decoded(byte: int) -> None:
    escaped = b"/admin%%%02x" % byte
    plain = bytes((byte,))
    unreserved = plain.isalnum() or plain in b"-._~"
    assert forwarded(escaped) == (b"/admin" + plain if unreserved else escaped)
    parts = plain in b"/\\"
    assert judged(escaped) == {b"/admin/" if parts else b"/admin" + plain if unreserved else escaped}


PIECES = [
    b"/", b"//", b".", b"..", b"%2e", b"%2E", b"%2f", b"%2F", b"%5c", b"\\", b";", b";x=y", b"a", b"admin", b"%61",
    b"%25", b"%252e", b"%3b", b"%c3%a9", b"?", b"%3f", b"%", b"%00", b"%c0", b"%ae", b"2e", b"*", b"...",
]  # fmt: skip
TARGETS = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: b"/" + b"".join(pieces))


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(TARGETS)
def test_what_was_forwarded_once_is_forwarded_as_it_is(target: bytes) -> None:
    try:
        once = forwarded(target)
    except ProxyError:
        return
    assert forwarded(once) == once
    path = once.partition(b"?")[0]
    assert not {b".", b".."} & set(path.split(b"/"))
    assert once.startswith(b"/")


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(TARGETS)
def test_nothing_is_left_to_decode_in_what_is_judged(target: bytes) -> None:
    try:
        forms = judged(target)
    except ProxyError:
        return
    assert judged(forwarded(target)) <= forms
    assert 1 <= len(forms) <= 4
    for form in forms:
        assert form.startswith(b"/")
        assert not {b".", b".."} & set(form.split(b"/"))
        for hidden in (b"%2e", b"%2f", b"%5c", b"\\", b";", b"//", b"?"):
            assert hidden not in form.lower()
        assert judged(form) == {form}
