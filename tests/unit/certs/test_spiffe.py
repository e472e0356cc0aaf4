"""SPIFFE ids: go-spiffe's tables (spiffeid/id_test.go, path_test.go), ours on top, and what is true of all ids."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from certs.errors import IdentityError, Refusal
from certs.spiffe import SpiffeId, parse, trust_domain_id, workload

LOWER = "abcdefghijklmnopqrstuvwxyz"
TD_CHARS = LOWER + string.digits + "-._"
PATH_CHARS = TD_CHARS + LOWER.upper()


@pytest.mark.parametrize(
    ("text", "trust_domain", "path"),
    [
        ("spiffe://trustdomain", "trustdomain", ""),
        ("spiffe://trustdomain/path", "trustdomain", "/path"),
        ("spiffe://trustdomain/path1/path2", "trustdomain", "/path1/path2"),
        ("spiffe://trustdomain/...", "trustdomain", "/..."),
        ("spiffe://trustdomain/.foo", "trustdomain", "/.foo"),
        ("spiffe://trustdomain/..foo", "trustdomain", "/..foo"),
        ("spiffe://trustdomain/foo..", "trustdomain", "/foo.."),
        ("spiffe://1.2.3.4/x", "1.2.3.4", "/x"),
        ("spiffe://" + TD_CHARS + "/" + PATH_CHARS, TD_CHARS, "/" + PATH_CHARS),
        ("spiffe://" + "a" * 255 + "/p", "a" * 255, "/p"),
        ("spiffe://td/" + "a" * 2036, "td", "/" + "a" * 2036),  # 2,048 bytes
    ],
)
def test_good_ids(text: str, trust_domain: str, path: str) -> None:
    spiffe_id = parse(text)
    assert (spiffe_id.trust_domain, spiffe_id.path, str(spiffe_id)) == (trust_domain, path, text)


BAD = {
    "": "spiffe://",
    "s": "spiffe://",
    "spiffe:/": "spiffe://",
    "Spiffe://trustdomain/path": "spiffe://",
    "SPIFFE://trustdomain/path": "spiffe://",
    "http://trustdomain/path": "spiffe://",
    " spiffe://trustdomain/path": "spiffe://",
    "spiffe://": "no trust domain",
    "spiffe:///path": "no trust domain",
    "spiffe://trustDomain/path": "trust domain has characters",
    "spiffe://trustdomain:8080/path": "trust domain has characters",
    "spiffe://user@trustdomain/path": "trust domain has characters",
    "spiffe://user:pw@trustdomain/path": "trust domain has characters",
    "spiffe://trust%20domain/path": "trust domain has characters",
    "spiffe://trustdomain?query": "trust domain has characters",
    "spiffe://trustdomain#fragment": "trust domain has characters",
    "spiffe://[::1]/path": "trust domain has characters",
    "spiffe://trustdomäin/path": "trust domain has characters",
    "spiffe://trustdomain\n/path": "trust domain has characters",
    "spiffe://trustdomain/": "ends with a slash",
    "spiffe://trustdomain/path/": "ends with a slash",
    "spiffe://trustdomain//path": "empty segment",
    "spiffe://trustdomain/a//b": "empty segment",
    "spiffe://trustdomain/.": "dot segment",
    "spiffe://trustdomain/./path": "dot segment",
    "spiffe://trustdomain/..": "dot segment",
    "spiffe://trustdomain/a/../b": "dot segment",
    "spiffe://trustdomain/pa%74h": "path has characters",
    "spiffe://trustdomain/%2e%2e/path": "path has characters",
    "spiffe://trustdomain/path?query": "path has characters",
    "spiffe://trustdomain/path#fragment": "path has characters",
    "spiffe://trustdomain/path ": "path has characters",
    "spiffe://trustdomain/path\n": "path has characters",
    "spiffe://trustdomain/pa\x00th": "path has characters",
    "spiffe://trustdomain/päth": "path has characters",
    "spiffe://" + "a" * 256 + "/path": "longer than 255",
    "spiffe://td/" + "a" * 2037: "longer than 2048",
}


@pytest.mark.parametrize("text", BAD)
def test_tls_4_bad_ids_are_refused(text: str) -> None:
    with pytest.raises(IdentityError, match=BAD[text]) as caught:
        parse(text)
    assert caught.value.reason is Refusal.BAD_SPIFFE_ID
    assert caught.value.reason.word == "bad_spiffe_id"


@pytest.mark.parametrize("char", [chr(code) for code in range(256)])
def test_each_character_has_its_place(char: str) -> None:
    for text, allowed in ((f"spiffe://t{char}d/path", TD_CHARS + "/"), (f"spiffe://td/p{char}h", PATH_CHARS + "/")):
        if char in allowed:
            assert str(parse(text)) == text
        else:
            with pytest.raises(IdentityError):
                parse(text)


def test_no_bad_id_can_be_constructed() -> None:
    for trust_domain, path in (("", "/a"), ("A", "/a"), ("a", "b"), ("a", "/"), ("a", "/.."), ("a/b", "/c")):
        with pytest.raises(IdentityError):
            SpiffeId(trust_domain, path)


def test_a_workload() -> None:
    spiffe_id = workload("cluster.local", "default", "web.v1")
    assert str(spiffe_id) == "spiffe://cluster.local/ns/default/sa/web.v1"
    assert spiffe_id.workload() == ("default", "web.v1")


@pytest.mark.parametrize(
    ("namespace", "account"),
    [
        ("", "a"), ("a", ""), ("a/b", "c"), ("a", "b/c"), ("a", ".."), ("a.b", "c"), ("-a", "b"), ("a-", "b"),
        ("A", "b"), ("a", "B"), ("a" * 64, "b"), ("a", "b" * 64), ("a", ".".join(["b" * 60] * 5)), ("a", "b..c"),
        ("a", "b\n"), ("a_b", "c"),
    ],
)  # fmt: skip
def test_a_workloads_parts_are_names(namespace: str, account: str) -> None:
    with pytest.raises(IdentityError) as caught:
        workload("cluster.local", namespace, account)
    assert caught.value.reason is Refusal.BAD_SPIFFE_ID


@pytest.mark.parametrize(
    "path", ["", "/ns/a", "/ns/a/sa", "/ns/a/sa/b/c", "/sa/b/ns/a", "/x/ns/a/sa/b", "/ns/A/sa/b", "/ns/a/sa/b_c"]
)
def test_other_paths_are_no_workload(path: str) -> None:
    assert SpiffeId("cluster.local", path).workload() is None


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(LABELS, LABELS)
def test_a_workload_is_read_back(namespace: str, account: str) -> None:
    assert parse(str(workload("td", namespace, account))).workload() == (namespace, account)


@given(st.text(TD_CHARS + "/%AZ:@?#\n", max_size=40))
@example("td/a")
def test_what_is_read_is_written_the_same(rest: str) -> None:
    text = "spiffe://" + rest
    try:
        spiffe_id = parse(text)
    except IdentityError:
        return
    assert str(spiffe_id) == text
    assert SpiffeId(spiffe_id.trust_domain, spiffe_id.path) == spiffe_id


def test_a_trust_domains_own_id() -> None:
    assert str(trust_domain_id("cluster.local")) == "spiffe://cluster.local"
