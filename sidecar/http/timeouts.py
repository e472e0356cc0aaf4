"""Limits on how long a client may take, and how much it may send, whatever protocol carries its requests."""

from __future__ import annotations

import msgspec


class Timeouts(msgspec.Struct, frozen=True):
    """Limits in seconds. ``body_min_rate`` is in bytes per second, required over every ``body_min_window`` seconds of
    waiting for a client; ``max_body`` is in bytes, 0 for no limit."""

    request_head: float
    idle: float
    stream_idle: float
    body_min_rate: int
    body_min_window: float
    max_body: int
