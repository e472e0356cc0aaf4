"""Queries read, answers held against them, replies made."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.update
import pytest
from hypothesis import given
from hypothesis import strategies as some

from sidecar.dns.messages import Malformed, Query, fit, is_answer, rcode_of, read_query, reply_with


def query(name: str = "Web.shop", kind: str = "A", **more: Any) -> Query:
    return read_query(dns.message.make_query(name, kind, **more).to_wire())


def test_what_is_read_of_a_query() -> None:
    found = query("Web.shop", "HTTPS", use_edns=0)
    assert (found.name.to_text(), found.kind, found.rdclass, found.opcode) == ("Web.shop.", 65, 1, dns.opcode.QUERY)
    assert found.wire[12 : found.end].endswith(b"\x04shop\0\0\x41\0\x01")
    assert str(found) == "HTTPS Web.shop."


def test_types_and_opcodes_that_nobody_has_heard_of_are_queries_as_well() -> None:
    assert str(query("web", "TYPE65400")) == "TYPE65400 web."
    update = dns.update.UpdateMessage("shop.test")
    update.add("web", 60, "A", "10.0.0.1")
    assert read_query(update.to_wire()).opcode == dns.opcode.UPDATE


def test_types_of_one_letter_in_two_cases_are_not_taken_for_each_other() -> None:
    """65 is A, 97 is a: what makes names alike must not touch the type."""
    asked = query("web", "TYPE65")
    other = dns.message.make_response(dns.message.make_query("web", "TYPE97", id=7)).to_wire()
    assert not is_answer(asked, other[:2], other)


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NXDOMAIN])
def test_an_error_may_come_without_the_question_but_no_word_about_the_name(rcode: dns.rcode.Rcode) -> None:
    bare = dns.message.Message(id=7)
    bare.flags |= dns.flags.QR
    bare.set_rcode(rcode)
    assert is_answer(query(), b"\0\x07", bare.to_wire()) == (rcode != dns.rcode.NXDOMAIN)


def test_an_answer_may_be_in_another_case() -> None:
    answer = dns.message.make_response(dns.message.make_query("wEB.SHOP", "A", id=7)).to_wire()
    assert is_answer(query(), b"\0\x07", answer)
    assert not is_answer(query(), b"\0\x08", answer)


@pytest.mark.parametrize("edns", [{}, {"use_edns": 0, "payload": 1232}])
def test_a_reply_without_records_has_question_id_and_edns(edns: dict[str, Any]) -> None:
    asked = query(id=4711, **edns)
    reply = dns.message.from_wire(reply_with(asked, dns.rcode.SERVFAIL))
    assert dns.message.from_wire(asked.wire).is_response(reply)
    assert (reply.rcode(), reply.edns >= 0) == (dns.rcode.SERVFAIL, bool(edns))


@pytest.mark.parametrize(
    ("length", "edns", "fits"),
    [
        (512, {}, True),
        (513, {}, False),
        (1232, {"use_edns": 0, "payload": 1232}, True),
        (1233, {"use_edns": 0, "payload": 1232}, False),
        (513, {"use_edns": 0, "payload": 100}, False),
    ],
)
def test_what_is_longer_than_the_client_takes_is_truncated(length: int, edns: dict[str, Any], fits: bool) -> None:
    asked = query(**edns)
    whole = dns.message.make_response(dns.message.from_wire(asked.wire)).to_wire()
    answer = whole + bytes(length - len(whole))
    sent = fit(asked, answer)
    if fits:
        assert sent is answer
    else:
        found = dns.message.from_wire(sent)
        assert found.flags & dns.flags.TC and found.answer == [] and found.id == dns.message.from_wire(asked.wire).id
        assert rcode_of(sent) == dns.rcode.NOERROR


@given(some.binary(max_size=80))
def test_any_bytes_are_a_query_or_malformed(wire: bytes) -> None:
    try:
        found = read_query(wire)
    except Malformed as malformed:
        reply = malformed.reply
        rcode = dns.rcode.FORMERR
    else:
        assert found.key and len(found.wire) >= found.end and str(found)
        reply = reply_with(found, dns.rcode.SERVFAIL)
        rcode = dns.rcode.SERVFAIL
    assert reply is None or (rcode_of(reply) == rcode and reply[:2] == wire[:2])


@given(some.binary(max_size=64))
def test_an_answer_has_the_question_whatever_follows(tail: bytes) -> None:
    asked = query(id=7)
    wire = b"\0\x07\x81\x80\0\x01\0\0\0\0\0\0" + tail
    assert is_answer(asked, b"\0\x07", wire[:12] + asked.wire[12 : asked.end] + tail)
    assert is_answer(asked, b"\0\x07", wire) == tail.lower().startswith(asked.wire[12 : asked.end].lower())
