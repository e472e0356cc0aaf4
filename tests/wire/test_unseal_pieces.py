"""Whatever a peer says, and in whatever pieces it comes: what comes out is the same.

The invariant: what comes out is the app's bytes in their order, as far as they go, or an end with a reason; never more.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.tls.record_reader import BLANK_RECORDS
from sidecar.tls.records import PLAIN_BYTES
from tests.support.sealing import ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, UPDATE, UPDATE_ASKING, ticket
from tests.wire.feeding import SPLITS, cut_at
from tests.wire.unsealing import FULL, Part, hear, wire_of

_PAD = st.sampled_from([0, 0, 0, 1, 17, 300])
_TEXT = st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from([FULL, FULL[:16_383], b"\0\0", b"\x17"]))
_LINES = st.one_of(
    st.tuples(st.just(DATA), _TEXT, _PAD.filter(lambda size: size < 239)),
    st.tuples(st.just(DATA), st.just(b""), _PAD),
    st.tuples(st.just(HANDSHAKE), st.sampled_from([UPDATE, UPDATE_ASKING, ticket(), ticket(3) + UPDATE]), _PAD),
)
_LAST = st.sampled_from(
    [None, (ALERT, CLOSE_NOTIFY), (ALERT, b"\x02\x28"), (DATA, FULL + b"x"), (99, b"x"), (HANDSHAKE, b""),
     b"\x15\3\3\0\2\2\0"]
)  # fmt: skip


def _expected(parts: Sequence[Part]) -> tuple[bytes, bool]:
    """The app's bytes, by another rule than the product's, and whether blank records end it before the last one."""
    data, blank = b"", 0
    for part in parts:
        if isinstance(part, bytes):
            break
        if part[0] == DATA and 0 < len(part[1]) <= PLAIN_BYTES:
            data, blank = data + part[1], 0
        elif part[0] in (DATA, HANDSHAKE) and len(part[1]) <= PLAIN_BYTES:
            blank += 1
            if blank > BLANK_RECORDS:
                return data, True
    return data, False


@settings(max_examples=150, deadline=None)
@given(st.lists(_LINES, max_size=60), _LAST, st.lists(st.integers(0, 200_000), max_size=12))
def test_what_comes_out_is_what_the_app_said(lines: list[Part], last: Part | None, places: list[int]) -> None:
    parts = [*lines, *([] if last is None else [last])]
    wire = wire_of(parts)
    data, blank = _expected(lines)
    whole = hear([wire])
    assert whole.data == data
    assert (whole.end is not None) == (blank or last is not None)
    assert hear(cut_at(wire, [place % (len(wire) + 1) for place in places])) == whole


@settings(max_examples=60, deadline=None)
@given(st.lists(_LINES.filter(lambda part: len(part[1]) < 300), max_size=12), _LAST)
def test_byte_by_byte_is_the_same(lines: list[Part], last: Part | None) -> None:
    wire = wire_of([*lines, *([] if last is None else [last])])
    if len(wire) > 4_000:
        wire = wire[:4_000]
    assert hear(SPLITS["bytewise"](wire)) == hear([wire])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_LINES, min_size=1, max_size=20),
    st.integers(0, 1 << 30),
    st.sampled_from(["flip", "insert", "remove", "swap", "replace"]),
    st.binary(min_size=1, max_size=30),
)
def test_whoever_changes_it_on_the_way_adds_nothing(lines: list[Part], where: int, how: str, noise: bytes) -> None:
    wire = wire_of(lines)
    at = where % len(wire)
    if how == "flip":
        wire = wire[:at] + bytes([wire[at] ^ 1 << where % 8]) + wire[at + 1 :]
    elif how == "insert":
        wire = wire[:at] + noise + wire[at:]
    elif how == "remove":
        wire = wire[:at] + wire[at + len(noise) :]
    elif how == "swap":
        wire = wire[at:] + wire[:at]
    else:
        wire = wire[:at] + noise + wire[at + len(noise) :]
    heard = hear([wire])
    assert _expected(lines)[0].startswith(heard.data)
    assert heard.end != ""  # and a clean end is none of the things that can be made so
