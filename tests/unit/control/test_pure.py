"""Tokens' text, versions, confirmations, limits, problems: values in, values out."""

from __future__ import annotations

import pytest

from certs import jointoken
from certs.jointoken import JoinToken
from certs.spiffe import workload
from control import problems
from control.api_trust import stripped, told
from control.bundle_acks import LATELY, BundleAcks
from control.rate_limits import Buckets, Rate
from control.version import Version

TOKEN = JoinToken("0f1e", bytes(range(32)), (b"\x01" * 32, b"\xff" * 32), "spiffe://cluster.local/ns/a/sa/b")


def test_a_token_is_what_its_text_says() -> None:
    text = str(TOKEN)
    assert text.startswith("sct1.0f1e.AAECAwQ") and text.count(".") == 4
    assert jointoken.parse(text) == TOKEN
    assert "secret" not in repr(TOKEN) and "AAECAw" not in repr(TOKEN)


def changed(at: int, part: str) -> str:
    parts = str(TOKEN).split(".")
    parts[at] = part
    return ".".join(parts)


@pytest.mark.parametrize(
    "text",
    ["", "sct1", str(TOKEN) + ".", str(TOKEN) + "\n", " " + str(TOKEN), changed(0, "sct2"), changed(1, ""),
     changed(1, "A"), changed(1, "0" * 33), changed(2, ""), changed(2, "AAAA"), changed(2, "+" * 43),
     changed(2, "A" * 42 + "B"), changed(3, "AAAA"), changed(3, "A" * 43 * 8), changed(4, "w6k"), changed(4, "é"),
     changed(4, "A" * 5000)],
)  # fmt: skip
def test_another_text_is_no_token(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(it|its|a part) "):
        jointoken.parse(text)


def test_every_text_of_a_token_is_its_own() -> None:
    """The spare bits of base64 are zero, so that nobody has the same token under another text."""
    secret = str(TOKEN).split(".")[2]
    others = [secret[:-1] + last for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    good = [other for other in others if not _raises(changed(2, other))]
    assert secret in good and len({jointoken.parse(changed(2, other)).secret for other in good}) == len(good) == 16


def _raises(text: str) -> bool:
    try:
        jointoken.parse(text)
    except ValueError:
        return True
    return False


def test_versions_are_pairs_of_which_the_epoch_counts_first() -> None:
    assert Version.parse("12.3") == Version(12, 3) and str(Version(12, 3)) == "12.3"
    assert Version(1, 99) < Version(2, 0) < Version(2, 1)
    assert Version(1, 99).number < Version(2, 0).number < Version(2, 1).number < 1 << 159
    for text in ("", "1", "1.", ".1", "1.2.3", "-1.2", "1 .2", "１.2", "1" * 16 + ".1"):
        with pytest.raises(ValueError):
            Version.parse(text)


def test_who_has_not_confirmed_is_waited_for() -> None:
    old, new = Version(1, 1), Version(1, 2)
    held = BundleAcks()
    assert held.missing(new, ["a", "b"], 0.0) == ["a", "b"]
    held.note("a1", "a", new, 0.0)
    held.note("b1", "b", old, 0.0)
    assert held.missing(new, ["a", "b"], 1.0) == ["b"]
    held.note("a2", "a", old, 1.0)  # another replica
    assert held.missing(new, ["a"], 2.0) == ["a", "b"]
    held.note("a2", "a", new, 3.0)
    held.note("b1", "b", Version(1, 3), 3.0)
    assert held.missing(new, ["a", "b"], 4.0) == []
    held.note("gone", "a", old, 4.0)  # and never heard of again
    assert held.missing(new, ["a", "b"], 4.0 + LATELY) == []
    held.forget(4.0 + LATELY)
    assert held.missing(new, ["a"], 4.0 + LATELY) == ["a"]


def test_a_replica_with_another_certificate_is_the_same_replica() -> None:
    old, new = Version(1, 1), Version(1, 2)
    held = BundleAcks()
    held.note("before", "a", old, 0.0)
    held.renewed("before", "after", 1.0)
    assert held.missing(new, ["a"], 1.0) == ["a"]
    held.note("after", "a", new, 2.0)
    assert held.missing(new, ["a"], 2.0) == []
    held.renewed("unknown", "other", 2.0)
    held.renewed("", "other", 2.0)
    assert held.missing(new, ["a"], 2.0) == []


def test_what_was_asked_before_the_other_certificate_came_is_the_replicas_word_too() -> None:
    old, new = Version(1, 1), Version(1, 2)
    held = BundleAcks()
    held.renewed("first", "second", 0.0)
    held.renewed("second", "third", 0.0)
    held.note("third", "a", new, 1.0)
    held.note("first", "a", old, 1.0)  # on its way until now; nobody hears of it again
    assert held.missing(new, ["a"], 1.0) == []
    held.forget(3 * LATELY)
    held.note("first", "a", old, 3 * LATELY)  # so late it is somebody who kept it
    assert held.missing(new, [], 3 * LATELY) == ["a"]


def test_nobody_waits_for_a_certificate_that_has_ended() -> None:
    old, new = Version(1, 1), Version(1, 2)
    held = BundleAcks()
    held.note("taken back", "a", old, 0.0)
    held.note("other", "b", old, 0.0)
    assert held.missing(new, [], 1.0, "taken back".__eq__) == ["b"]
    assert held.missing(new, ["a"], 1.0, "taken back".__eq__) == ["a", "b"], "its next one has confirmed nothing yet"
    held.note("next", "a", new, 2.0)
    held.note("other", "b", new, 2.0)
    assert held.missing(new, ["a", "b"], 2.0, "taken back".__eq__) == []


def test_who_asked_by_a_token_is_waited_for_until_it_asks_by_its_certificate() -> None:
    old, new = Version(1, 1), Version(1, 2)
    held = BundleAcks()
    held.note("token:1", "a", old, 0.0, by_certificate=False)
    held.note("of-b", "b", new, 1.0)
    assert held.missing(new, ["a"], 1.0) == ["a"], "another identity's certificate says nothing of it"
    held.note("of-a", "a", new, 1.0)
    assert held.missing(new, ["a"], 1.0) == []
    held.note("token:1", "a", old, 2.0, by_certificate=False)  # a replica that still asks by it
    assert held.missing(new, ["a"], 2.0) == ["a"]


def test_a_bucket_gives_a_burst_and_then_its_rate() -> None:
    buckets = Buckets(Rate(2.0, 3))
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.empty("a", 0.4) and not buckets.empty("b", 0.4)
    assert buckets.take("a", 0.5) == 0.0
    assert buckets.take("a", 0.5) == 0.5
    assert [buckets.take("a", 100.0) for _ in range(4)][:3] == [0.0] * 3, "never more than the burst"
    assert buckets.take("a", 50.0) > 0, "a clock that is set back gives nothing"


def test_what_is_given_back_can_be_taken_again_and_no_more_than_the_burst() -> None:
    buckets = Buckets(Rate(1.0, 2))
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    buckets.give_back("a", 0.0)
    assert [buckets.take("a", 0.0) for _ in range(2)] == [0.0, 1.0]
    for _ in range(5):
        buckets.give_back("a", 0.0)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_the_table_of_buckets_is_bounded() -> None:
    buckets = Buckets(Rate(1.0, 1), keys=3)
    for key in "abcd":
        buckets.take(key, 0.0)
    assert [buckets.empty(key, 0.0) for key in "abcd"] == [False, True, True, True]


@pytest.mark.parametrize("status", problems.TITLES)
def test_a_refusal_depends_on_its_status_alone(status: int) -> None:
    first, second = problems.Refused(status, "one reason"), problems.Refused(status, "another")
    assert problems.body(first.status, "id") == problems.body(second.status, "id")
    assert b"reason" not in problems.body(status, "id")


OWN = workload("cluster.local", "sidecar-system", "sidecar-control")


@pytest.mark.parametrize(
    "name",
    [b"X-Forwarded-Client-Cert", b"x_forwarded_client_cert", b"X-Forwarded-For", b"forwarded", b"x-envoy-peer",
     b"X-Request-Id", b"x-sidecar-anything"],
)  # fmt: skip
def test_what_only_a_mesh_may_say_is_taken_out(name: bytes) -> None:
    kept = [(b"authorization", b"Bearer x"), (b"x-forward", b"1")]
    assert stripped([*kept, (name, b"1")]) == kept


def test_a_door_without_a_certificate_tells_an_address_and_nothing_else() -> None:
    peer = told([(b"x-forwarded-for", b"1.2.3.4, 10.0.0.7"), (b"x-request-id", b"a-1")], OWN)
    assert (peer.address, peer.identity, peer.request_id, peer.bad) == ("10.0.0.7", None, "a-1", "")
    assert told([(b"x-request-id", b"a\tb")], OWN) == type(peer)("socket")
