"""Writes the pages of the site that the code knows best: ``python -m docs.generate``.

A test holds that each of them is what this would write.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs import (
    api_page,
    cli_page,
    control_cli_page,
    ctl_page,
    init_page,
    metrics_page,
    resources_page,
    response_flags_page,
)

DOCS = Path(__file__).parent
PAGES: dict[str, Callable[[], str]] = {
    "reference/api.md": api_page.text,
    "reference/cli.md": cli_page.text,
    "reference/control-cli.md": control_cli_page.text,
    "reference/init.md": init_page.text,
    "reference/sidecarctl.md": ctl_page.text,
    "reference/resources.md": resources_page.text,
    **resources_page.SCHEMAS,
    "metrics.md": metrics_page.text,
    "response-flags.md": response_flags_page.text,
}


def main() -> None:
    for name, text in PAGES.items():
        DOCS.joinpath(name).parent.mkdir(exist_ok=True)
        DOCS.joinpath(name).write_text(text())


if __name__ == "__main__":
    main()
