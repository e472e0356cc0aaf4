"""A sidecar whose endpoint is heard of every second: ``python -m tests.support.short_ttl FLAGS``.

The time to live that it asks for is the shortest there is, so that an outage of a few seconds is longer than three of
its heartbeats. Everything else is as it is.
"""

from __future__ import annotations

import sys

from sidecar.cli import main
from sidecar.feed import registration

SECONDS = 3.0

if __name__ == "__main__":
    vars(registration)["TTL"] = SECONDS
    sys.exit(main())
