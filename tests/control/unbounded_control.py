"""``sidecar-control`` that bounds nobody and lets nobody wait, for whoever sends thousands of requests; its flags are
those of the command. What callers are told does not depend on either."""

from __future__ import annotations

import sys

from control import long_poll, rate_limits
from control.cli import main
from control.rate_limits import Rate

if __name__ == "__main__":
    unbounded = Rate(1e6, 1_000_000)
    for name in ("CALLS", "NAMES", "CERTIFICATES", "REFUSALS"):
        setattr(rate_limits, name, unbounded)
    setattr(long_poll, "LONGEST_WAIT", 0.1)  # noqa: B010  # it is Final for everybody else
    sys.exit(main())
