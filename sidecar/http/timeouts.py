"""How long a client may take, and how much it may send, whatever carries its requests."""

from __future__ import annotations

import msgspec


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds; ``body_min_rate`` in bytes per second, asked of every ``body_min_window`` seconds of waiting for a
    client; ``max_body`` in bytes, 0 for none."""

    request_head: float
    idle: float
    stream_idle: float
    body_min_rate: int
    body_min_window: float
    max_body: int
