"""The pool of pipes: its bound, what it keeps, and what it must not keep."""

from __future__ import annotations

from sidecar.net import splice_pipes as pipes_module
from sidecar.net.splice_pipes import IDLE_PIPES, Pipes
from tests.proxy.ends import descriptors


def test_a_pipe_that_holds_bytes_is_not_used_again():
    before = descriptors()
    pipes = Pipes(2)
    first, second = pipes.take(), pipes.take()
    assert first is not None
    assert second is not None
    assert pipes.take() is None
    first.held = 1
    pipes.give(first)
    pipes.give(second)
    assert pipes.idle == 1
    assert pipes.take() is second
    pipes.give(second)
    pipes.close()
    assert descriptors() == before


def test_no_pipe_rather_than_a_tiny_one(monkeypatch):
    """As when the user has too many already: the kernel grants neither our size nor its own."""
    before = descriptors()
    monkeypatch.setattr(pipes_module, "WANTED", 1 << 31)
    monkeypatch.setattr(pipes_module, "SMALLEST", 1 << 31)
    pipes = Pipes(1)
    assert pipes.take() is None
    assert pipes.in_use == 0
    assert descriptors() == before


def test_only_so_many_pipes_wait():
    pipes = Pipes(100)
    taken = [pipe for _ in range(100) if (pipe := pipes.take()) is not None]
    assert len(taken) == 100
    for pipe in taken:
        pipes.give(pipe)
    assert pipes.idle == IDLE_PIPES
    pipes.close()
