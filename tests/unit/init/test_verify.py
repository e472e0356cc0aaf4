"""Reading a table that somebody else changes at the same time: again, and not for ever."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import cast

import pytest

from init import verify
from init.conversation import Changing, Conversation, Refused

NOBODY = cast(Conversation, object())


def reading(monkeypatch: pytest.MonkeyPatch, *ends: Exception | verify.Seen | None) -> list[int]:
    """Each reading ends as the next of these, the last for ever; returns a list that grows by each."""
    tries: list[int] = []

    def read(_: Conversation) -> verify.Seen | None:
        tries.append(len(tries))
        end = ends[min(tries[-1], len(ends) - 1)]
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(verify, "_read", cast(Callable[[Conversation], verify.Seen | None], read))
    return tries


def test_what_changed_or_went_meanwhile_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = reading(monkeypatch, Changing(), Refused(errno.ENOENT, ""), None)
    assert verify.read(NOBODY) is None
    assert len(tries) == 3


def test_another_refusal_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = reading(monkeypatch, Refused(errno.EPERM, ""))
    with pytest.raises(Refused) as caught:
        verify.read(NOBODY)
    assert caught.value.code == errno.EPERM and len(tries) == 1


@pytest.mark.parametrize("end", [Changing(), Refused(errno.ENOENT, "")])
def test_a_table_that_never_stands_still_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, end: Exception) -> None:
    reading(monkeypatch, end)
    with pytest.raises(Refused, match="keeps changing"):
        verify.read(NOBODY)
