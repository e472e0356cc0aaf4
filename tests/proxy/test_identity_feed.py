"""How a proxy gets its certificate and keeps it, whatever the control plane does (TLS-14, 15, 16, 17, 18)."""

from __future__ import annotations

import gc
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from OpenSSL import SSL

from certs.issue import crl
from certs.keys import new_key
from sidecar.errors import ProxyError, Reason
from tests.proxy.fickle import BILLING, DAY, EPOCH, ORDERS, Fickle, Reply, authority, fed, plane_at

CERTIFICATES, LISTS, BUNDLE = "/v1/certificates", "/v1/crl", "/v1/bundle"


async def test_it_gets_what_it_asked_for(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.until(lambda: proxy.feed.tally.lists_version)
        ours = proxy.identity.require().credentials
        assert ours.spiffe_id == BILLING and len(ours.chain) == 2
        assert plane.shown == {f"Bearer {plane.token}"}
        assert proxy.feed.tally.renewals == {"ok": 1} and not proxy.errors
        assert proxy.feed.tally.next_renewal == pytest.approx(time.time() + 0.45 * DAY, abs=200)


async def test_tls_14_each_renewal_has_a_key_of_its_own(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane:
        plane.ttl = 5.2  # less than 5 s left is refused; half of it is 2.3 s
        async with fed(plane) as proxy:
            await proxy.renewed(2)
            assert len({key.public_numbers() for key in plane.keys}) == len(plane.keys) >= 2
            generation = proxy.identity.require()
            assert generation.credentials.key.public_key().public_numbers() == plane.keys[-1].public_numbers()
            assert not generation.leaving.active


async def test_tls_14_a_hundred_renewals_leave_nothing_behind(tmp_path: Path) -> None:
    def left() -> tuple[int, int]:
        gc.collect()
        return sum(type(each) is SSL.Context for each in gc.get_objects()), len(os.listdir("/proc/self/fd"))

    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.until(lambda: plane.asked.count(LISTS) >= 2 and "/v1/bundle" in plane.asked)  # and wait
        proxy.identity.require().server(), proxy.identity.require().client()
        before = left()
        for times in range(2, 102):
            proxy.feed.renew_now()
            await proxy.renewed(times)
            proxy.identity.require().server(), proxy.identity.require().client()
        assert len({key.public_numbers() for key in plane.keys}) == 101 and not proxy.errors
        await proxy.until(
            lambda: all(now <= then for now, then in zip(left(), before, strict=True))
        )  # a connection that is being closed goes first


def told(answer: dict[str, str]) -> Reply:
    return 201, json.dumps(answer).encode()


def request_of(body: bytes) -> bytes:
    return str(json.loads(body)["csr"]).encode()


def lied(plane: Fickle, **other: str) -> Callable[[bytes], Reply]:
    return lambda body: told(plane.certificate(request_of(body)) | other)


def expired(plane: Fickle, body: bytes) -> Reply:
    plane.ttl = -60.0
    return told(plane.certificate(request_of(body)))


def of_another_root(plane: Fickle, body: bytes) -> Reply:
    before = plane.issuer
    _, plane.issuer = authority()
    try:
        return told(plane.certificate(request_of(body)))
    finally:
        plane.issuer = before


def another_bundle(plane: Fickle) -> Callable[[bytes], Reply]:
    """All of it of another authority, which no token pins."""
    other = Fickle(plane.token_file)
    return lambda body: told(other.certificate(request_of(body)) | {"bundleVersion": f"{EPOCH + 1}.1"})


LIES: dict[str, tuple[str, Callable[[Fickle], Callable[[bytes], Reply]]]] = {
    "another identity": ("wrong_identity", lambda plane: lambda b: told(plane.certificate(request_of(b), ORDERS))),
    "another key": (
        "bad_key",
        lambda plane: lambda b: told(plane.certificate(request_of(b), key=new_key().public_key())),
    ),
    "an empty chain": ("no_certificate", lambda plane: lied(plane, chain="")),
    "an expired certificate": ("expired", lambda plane: lambda b: expired(plane, b)),
    "a certificate of another root": ("unknown_authority", lambda plane: lambda b: of_another_root(plane, b)),
    "another authority altogether": ("unknown_authority", another_bundle),
    "a bundle without roots": ("empty_bundle", lambda plane: lied(plane, bundle="", bundleVersion=f"{EPOCH}.9")),
    "no version": ("bad_answer", lambda plane: lied(plane, bundleVersion="seven")),
    "no certificate at all": ("unreadable", lambda plane: lied(plane, chain="-----BEGIN CERTIFICATE-----\nhello")),
    "not JSON": ("bad_answer", lambda plane: lambda b: (201, b"<html>")),
    "another JSON": ("bad_answer", lambda plane: lambda b: (201, b"[]")),
    "not HTTP": ("bad_answer", lambda plane: lambda b: b"hello\r\n\r\n"),
    "half an answer": ("bad_answer", lambda plane: lambda b: b"HTTP/1.1 201 OK\r\ncontent-length: 9\r\n\r\n{"),
    "nothing": ("bad_answer", lambda plane: lambda b: b""),
    "503": ("status_503", lambda plane: lambda b: (503, b"{}")),
    "401": ("unauthenticated", lambda plane: lambda b: (401, b"{}")),
    "a status that nobody knows": ("status_other", lambda plane: lambda b: (599, b"{}")),
    "too much": ("too_large", lambda plane: lambda b: (201, b" " * 3_000_000)),
    "an endless head": ("bad_answer", lambda plane: lambda b: b"HTTP/1.1 201 OK\r\na: " + b"a" * 100_000),
}


@pytest.mark.parametrize("name", LIES)
async def test_tls_16_a_lie_is_counted_and_what_we_have_stays(tmp_path: Path, name: str) -> None:
    word, lie = LIES[name]
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.renewed(1)
        before = proxy.identity.require().credentials
        plane.wrong[CERTIFICATES] = lie(plane)
        proxy.feed.renew_now()
        await proxy.until(lambda: proxy.feed.tally.renewals.get(word, 0) >= 2)  # and it goes on asking
        assert ("certificate", word) in proxy.errors
        assert proxy.identity.require().credentials.chain == before.chain
        plane.ttl = DAY
        del plane.wrong[CERTIFICATES]
        await proxy.renewed(2)
        assert proxy.identity.require().credentials.chain != before.chain


@pytest.mark.parametrize("name", LIES)
async def test_tls_16_a_lie_at_first_gives_no_identity(tmp_path: Path, name: str) -> None:
    word, lie = LIES[name]
    async with plane_at(tmp_path) as plane:
        plane.wrong[CERTIFICATES] = lie(plane)
        async with fed(plane) as proxy:
            await proxy.until(lambda: ("certificate", word) in proxy.errors)
            with pytest.raises(ProxyError) as refused:
                proxy.identity.require()
            assert refused.value.reason is Reason.NO_IDENTITY


async def test_a_certificate_that_is_soon_over_is_refused(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane:
        plane.ttl = 4.0
        async with fed(plane) as proxy:
            await proxy.until(lambda: ("certificate", "expired") in proxy.errors)
            assert proxy.identity.generation is None


async def test_tls_15_the_old_one_serves_until_its_end_then_nothing_does_then_all_is_well(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.renewed(1)
        plane.wrong[CERTIFICATES] = lambda _: (503, b"")
        proxy.feed.renew_now()
        await proxy.until(lambda: proxy.feed.tally.renewals.get("status_503"))
        proxy.identity.require()
        proxy.clock.ahead = DAY + 1
        with pytest.raises(ProxyError, match="has ended"):
            proxy.identity.require()
        proxy.clock.ahead = 0.0
        del plane.wrong[CERTIFICATES]
        await proxy.renewed(2)
        proxy.identity.require()


@pytest.mark.parametrize("ahead", [3600.0, -3600.0], ids=["an hour ahead", "an hour behind"])
async def test_tls_18_a_clock_that_is_set_does_not_move_the_renewal(tmp_path: Path, ahead: float) -> None:
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.renewed(1)
        await proxy.until(lambda: proxy.feed.tally.lists_version)  # else its first list comes from our future
        proxy.clock.ahead = ahead
        plane.bundle_n += 1
        plane.publish()
        await proxy.until(lambda: proxy.feed.tally.bundle_version == (EPOCH, 2))
        assert proxy.feed.tally.renewals == {"ok": 1} and not proxy.errors
        assert proxy.caller.skew == pytest.approx(-ahead, abs=5)


async def test_a_clock_past_the_end_asks_at_once(tmp_path: Path) -> None:
    """A machine that slept: the monotonic clock stood still, the certificate has ended."""
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.renewed(1)
        proxy.clock.ahead = DAY + 600
        await proxy.until(lambda: len(plane.keys) >= 2)


async def test_clocks_that_differ_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with plane_at(tmp_path) as plane:
        plane.date_ahead = 90.0
        async with fed(plane) as proxy:
            await proxy.until(lambda: proxy.feed.tally.lists_version)
            assert proxy.caller.skew == pytest.approx(90, abs=3)
    assert len([each for each in caplog.messages if "clock is 9" in each and "ahead of" in each]) == 1


async def test_a_new_root_is_a_new_generation(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.until(lambda: proxy.feed.tally.lists_version)
        before = proxy.identity.require()
        plane.roots.append(authority()[0].certificate)
        plane.bundle_n += 1
        plane.publish()
        await proxy.until(lambda: proxy.identity.require() is not before)
        after = proxy.identity.require()
        assert before.leaving.active and after.number == before.number + 1
        assert after.credentials.chain == before.credentials.chain
        assert [len(each.roots) for each in after.credentials.bundles] == [2]


async def test_a_root_that_goes_takes_its_certificate_with_it(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.until(lambda: proxy.feed.tally.lists_version)
        plane.root, plane.issuer = authority()
        plane.roots = [plane.root.certificate]
        plane.bundle_n += 1
        plane.publish()
        await proxy.renewed(2)  # at once, since nobody would take the old one


async def test_within_an_epoch_nothing_older_is_taken(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane:
        plane.bundle_n = plane.lists_n = 5
        async with fed(plane) as proxy:
            await proxy.until(lambda: proxy.feed.tally.lists_version)
            plane.roots = [authority()[0].certificate]
            plane.bundle_n = plane.lists_n = 4
            plane.publish()
            await proxy.until(lambda: {("bundle", "older_version"), ("crl", "older_version")} <= proxy.errors)
            assert proxy.feed.tally.bundle_version == proxy.feed.tally.lists_version == (EPOCH, 5)
            assert [len(each.roots) for each in proxy.identity.require().credentials.bundles] == [1]


async def test_an_older_bundle_beside_a_certificate_is_passed_over(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane:
        plane.bundle_n = 5
        async with fed(plane) as proxy:
            await proxy.renewed(1)
            plane.wrong[CERTIFICATES] = lied(plane, bundleVersion=f"{EPOCH}.4", bundle="")
            proxy.feed.renew_now()
            await proxy.renewed(2)
            assert proxy.feed.tally.bundle_version == (EPOCH, 5)


async def test_tls_17_a_list_revokes(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.until(lambda: proxy.feed.tally.lists_version)
        plane.revoked[77] = time.time()
        plane.lists_n += 1
        plane.publish()
        await proxy.until(lambda: any(77 in each.serials for each in proxy.identity.revocations.lists))


async def test_tls_17_our_own_number_on_a_list_has_us_ask_for_another(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.until(lambda: proxy.feed.tally.lists_version)
        plane.revoked[proxy.identity.require().credentials.chain[0].serial_number] = time.time()
        plane.lists_n += 1
        plane.publish()
        await proxy.renewed(2)


def by_another(plane: Fickle) -> dict[str, object]:
    _, other = authority()
    made = crl(other, {}, time.time(), 9, time.time() + DAY)
    return {"version": f"{EPOCH}.9", "lists": [{"crl": made, "chain": ""}]}


def with_lower_number(plane: Fickle) -> dict[str, object]:
    plane.lists_n = 0
    return plane.lists() | {"version": f"{EPOCH}.9"}


BAD_LISTS: dict[str, tuple[str, Callable[[Fickle], dict[str, object]]]] = {
    "garbage": ("bad_list", lambda _: {"version": f"{EPOCH}.9", "lists": [{"crl": "hello", "chain": ""}]}),
    "somebody else's": ("unknown_authority", by_another),
    "an older one": ("older_list", with_lower_number),
    "too many": ("bad_list", lambda _: {"version": f"{EPOCH}.9", "lists": [{"crl": "", "chain": ""}] * 99}),
    "none": ("bad_answer", lambda _: {}),
}


@pytest.mark.parametrize("name", BAD_LISTS)
async def test_tls_17_a_bad_list_is_told_and_the_old_one_stays(tmp_path: Path, name: str) -> None:
    word, made = BAD_LISTS[name]
    async with plane_at(tmp_path) as plane:
        plane.revoked[77] = time.time()
        async with fed(plane) as proxy:
            await proxy.until(lambda: proxy.feed.tally.lists_version)
            before = proxy.identity.revocations
            plane.wrong[LISTS] = lambda _: (200, json.dumps(made(plane)).encode())
            plane.publish()
            await proxy.until(lambda: ("crl", word) in proxy.errors)
            assert proxy.identity.revocations == before and before.lists[0].serials == {77}


async def test_tls_17_a_list_under_a_new_root_brings_that_with_it(tmp_path: Path) -> None:
    """A rotation ends both long polls at once, and which answer comes first is chance."""
    async with plane_at(tmp_path) as plane:
        said: list[None] = []

        def late(_: bytes) -> tuple[int, bytes] | None:
            said.append(None)
            return None if len(said) == 1 else (200, json.dumps(plane.bundle()).encode())

        plane.wrong[BUNDLE] = late
        async with fed(plane) as proxy:
            await proxy.until(lambda: proxy.feed.tally.lists_version and said)
            root, plane.issuer = authority()
            plane.roots.append(root.certificate)
            plane.revoked[77] = time.time()
            plane.bundle_n += 1
            plane.lists_n += 1
            plane.publish()
            await proxy.until(lambda: proxy.feed.tally.lists_version == (EPOCH, 2))
            assert any(77 in each.serials for each in proxy.identity.revocations.lists)
            assert not proxy.errors


async def test_tls_17_an_overdue_list_is_an_alarm_and_goes_on_being_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with plane_at(tmp_path) as plane:
        plane.revoked[77] = time.time()
        now = time.time()
        made = crl(plane.issuer, plane.revoked, now - 60, 1, now - 1)
        chain = json.loads(json.dumps(plane.lists()))["lists"][0]["chain"]
        answer = {"version": f"{EPOCH}.1", "lists": [{"crl": made, "chain": chain}]}
        plane.wrong[LISTS] = lambda _: (200, json.dumps(answer).encode())
        async with fed(plane) as proxy:
            await proxy.until(lambda: proxy.feed.tally.overdue)
            assert proxy.identity.revocations.lists[0].serials == {77}
    assert [each for each in caplog.messages if "overdue" in each] == [
        "a revocation list is overdue; the last one goes on being used"
    ]


@pytest.mark.parametrize("text", ["", "sct1.x", "two words", "\x00", "a" * 20_000], ids=range(5))
async def test_a_token_file_that_holds_no_token_is_told_and_read_again(tmp_path: Path, text: str) -> None:
    async with plane_at(tmp_path) as plane:
        plane.token_file.write_text(text)
        async with fed(plane) as proxy:
            await proxy.until(lambda: ("certificate", "no_token") in proxy.errors)
            assert not plane.asked
            plane.token_file.write_text(plane.token)
            await proxy.renewed(1)


async def test_a_token_file_that_is_not_there_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with plane_at(tmp_path) as plane:
        plane.token_file.unlink()
        async with fed(plane) as proxy:
            await proxy.until(lambda: ("certificate", "no_token") in proxy.errors)
    assert f"certificate: --token-file: {plane.token_file}: No such file or directory (1 in a row)" in caplog.messages


async def test_tls_19_no_log_of_ours_has_the_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with plane_at(tmp_path) as plane:
        plane.wrong[CERTIFICATES] = lambda _: (401, b"{}")
        async with fed(plane) as proxy:
            await proxy.until(lambda: ("certificate", "unauthenticated") in proxy.errors)
            del plane.wrong[CERTIFICATES]
            await proxy.renewed(1)
        logging.getLogger("planted").warning("%s", plane.token)
        found = [record.name for record in caplog.records if plane.token.split(".")[2] in record.getMessage()]
        assert found == ["planted"]


async def test_calls_follow_each_other_on_few_lines(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.until(lambda: proxy.feed.tally.lists_version and proxy.feed.tally.bundle_version)
        for number in range(2, 6):
            plane.bundle_n = plane.lists_n = number
            plane.publish()
            await proxy.until(lambda: proxy.feed.tally.lists_version == (EPOCH, plane.lists_n))
            await proxy.until(lambda: proxy.feed.tally.bundle_version == (EPOCH, plane.bundle_n))
        assert len(plane.asked) >= 10 and plane.lines <= 3  # the certificate's, and one for each that waits


async def test_a_line_that_ended_while_it_rested_is_no_failure(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane, fed(plane) as proxy:
        await proxy.until(lambda: proxy.feed.tally.lists_version)
        plane.last_answer = True
        for number in range(2, 5):
            plane.lists_n = number
            plane.publish()
            await proxy.until(lambda: proxy.feed.tally.lists_version == (EPOCH, plane.lists_n))
        assert not proxy.errors
