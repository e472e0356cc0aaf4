"""The sidecar with a policy that denies everything: ``python -m tests.support.denying_process FLAGS...``.

Each question is a line on standard error, ``denied: DIRECTION PROTOCOL CLUSTER``. All but the policy is the product's
own.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from sidecar import app, cli
from sidecar.errors import ProxyError, Reason
from sidecar.policy.authorize import Asked, Leave


def deny(asked: Asked) -> Leave:
    print(f"denied: {asked.direction} {asked.protocol} {asked.cluster}", file=sys.stderr, flush=True)
    raise ProxyError(Reason.CALLER_REFUSED, "the policy of the test denies everything")


def main() -> None:
    made = app._context

    def context(*words: Any) -> Any:
        return dataclasses.replace(made(*words), rules=deny)

    setattr(app, "_context", context)  # noqa: B010 - where ``app`` looks for it
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
