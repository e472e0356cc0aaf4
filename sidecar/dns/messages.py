"""DNS messages: what is read of a query, whether an answer belongs to it, and the replies that we make. Pure.

Who calls it: ``dns.answers`` and ``dns.upstream``. What is forwarded goes on as the bytes that it came as, but for its
id: flags, EDNS options, signatures and types that nobody here has heard of stay what they are. So of a query only its
header and its question are read, by dnspython's ``Parser``; of an answer only the header, and its question is held
against the query's. A whole message is read (40 us) where we have to write one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.wire

HEADER = 12  # bytes (RFC 1035 section 4.1.1)
LARGEST = 65_535  # a length has two bytes over TCP
SMALLEST_LIMIT = 512  # what every client takes over UDP (RFC 1035 section 2.3.4)
OUR_PAYLOAD = 1232  # what we say that we take over UDP (DNS flag day 2020)
KNOWN_TTL = 30  # seconds, as with Istio: what we know may change soon
_OPCODE = 0x7800
_QUESTIONLESS = frozenset((dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED))
_FLAGS_AND_QUESTIONS = struct.Struct("!HH")


class Malformed(Exception):
    """Not a query. ``reply`` is what to say to that; None: nothing, for it may be an answer, or less than a header."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Query:
    """``wire`` is the whole message; its one question ends at ``end``."""

    wire: bytes
    end: int
    name: dns.name.Name
    kind: int
    rdclass: int
    opcode: int  # 0: a standard query

    @property
    def key(self) -> bytes:
        """The name's key, as ``dns.names`` has it."""
        return self.wire[HEADER : self.end - 4].lower()

    def __str__(self) -> str:
        """For logs: type and name, escaped as in zone files."""
        return f"{dns.rdatatype.to_text(dns.rdatatype.RdataType.make(self.kind))} {self.name}"


def read_query(wire: bytes) -> Query:
    """Raises Malformed for what has not exactly one well-formed question, and for answers."""
    if len(wire) < HEADER:
        raise Malformed(None)
    flags, questions = _FLAGS_AND_QUESTIONS.unpack_from(wire, 2)
    if flags & dns.flags.QR:
        raise Malformed(None)
    try:
        if questions != 1:
            raise dns.exception.FormError
        parser = dns.wire.Parser(wire, HEADER)
        name = parser.get_name()
        kind, rdclass = parser.get_struct("!HH")
        if parser.current - HEADER - 4 != sum(map(len, name.labels)) + len(name.labels):
            raise dns.exception.FormError  # the name points elsewhere: there is nothing before it to point to
    except dns.exception.DNSException:
        raise Malformed(_form_error(wire)) from None
    return Query(wire, parser.current, name, kind, rdclass, dns.opcode.from_flags(flags))


def is_answer(query: Query, sent_id: bytes, answer: bytes) -> bool:
    """Whether ``answer`` is one to ``query`` as it was sent with ``sent_id`` (RFC 5452 section 9.1).

    An error may come without the question (as dnspython's ``Message.is_response`` has it). The case of letters may
    differ; it is the client's business to mind it.
    """
    if len(answer) < HEADER or answer[:2] != sent_id:
        return False
    flags, questions = _FLAGS_AND_QUESTIONS.unpack_from(answer, 2)
    asked, _ = _FLAGS_AND_QUESTIONS.unpack_from(query.wire, 2)
    if not flags & dns.flags.QR or (flags ^ asked) & _OPCODE:
        return False
    if questions == 0:
        return rcode_of(answer) in _QUESTIONLESS
    end = query.end
    if questions != 1 or len(answer) < end:
        return False
    return answer[end - 4 : end] == query.wire[end - 4 : end] and answer[HEADER : end - 4].lower() == query.key


def rcode_of(answer: bytes) -> int:
    """The four bits of the header; what EDNS adds to them is not looked at."""
    return answer[3] & 0x0F


def reply_with(query: Query, rcode: dns.rcode.Rcode, *, truncated: bool = False) -> bytes:
    """A reply without records; the header alone where the rest of the query can't be read."""
    try:
        reply = _response(_read_whole(query))
    except Malformed:
        reply = _header(query.wire)
    reply.set_rcode(rcode)
    if truncated:
        reply.flags |= dns.flags.TC
    return reply.to_wire()


def reply_from_table(query: Query, records: tuple[dns.rdata.Rdata, ...], *, tcp: bool) -> bytes:
    """An answer of our own: the records under the name as it was asked for, or no data where there are none. They come
    in another order each time, by dnspython, which spreads the callers.

    Over UDP TC is set where they don't fit. Raises Malformed where the rest of the query can't be read.
    """
    request = _read_whole(query)
    reply = _response(request)
    reply.flags |= dns.flags.AA
    if request.edns > 0:  # RFC 6891 section 6.1.3
        reply.set_rcode(dns.rcode.BADVERS)
    elif records:
        reply.answer.append(dns.rrset.from_rdata_list(query.name, KNOWN_TTL, records))
    return reply.to_wire(max_size=LARGEST if tcp else _payload(request), prefer_truncation=True)


def fit(query: Query, answer: bytes) -> bytes:
    """``answer`` itself if the client takes it over UDP, else an empty one with TC: the client asks again by TCP."""
    if len(answer) <= SMALLEST_LIMIT:
        return answer
    try:
        limit = _payload(_read_whole(query))
    except Malformed:
        limit = SMALLEST_LIMIT
    return answer if len(answer) <= limit else reply_with(query, dns.rcode.Rcode(rcode_of(answer)), truncated=True)


def _read_whole(query: Query) -> dns.message.Message:
    try:
        return dns.message.from_wire(query.wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):  # the latter from records whose data is odd
        raise Malformed(_form_error(query.wire)) from None


def _payload(request: dns.message.Message) -> int:
    """What the client takes over UDP (RFC 6891 section 6.2.3)."""
    return max(request.payload, SMALLEST_LIMIT) if request.edns >= 0 else SMALLEST_LIMIT


def _response(request: dns.message.Message) -> dns.message.Message:
    return dns.message.make_response(request, recursion_available=True, our_payload=OUR_PAYLOAD)


def _header(asked: bytes) -> dns.message.Message:
    """The header of a reply, and no more, to what has at least a header."""
    reply = dns.message.Message(id=int.from_bytes(asked[:2], "big"))
    flags = int.from_bytes(asked[2:4], "big") & (_OPCODE | dns.flags.RD)
    reply.flags = dns.flags.Flag(flags | dns.flags.QR | dns.flags.RA)
    return reply


def _form_error(asked: bytes) -> bytes:
    reply = _header(asked)
    reply.set_rcode(dns.rcode.FORMERR)
    return reply.to_wire()
