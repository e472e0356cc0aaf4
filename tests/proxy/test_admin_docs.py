"""docs/admin.md: a section for each path, and examples that answer what the page says they do."""

from __future__ import annotations

import re

import pytest

from docs.admin_examples import PAGE, rewritten, shape
from sidecar.admin import record_filters, routes

TEXT = PAGE.read_text()
HEADINGS = [
    heading.replace("&lt;", "<").replace("&gt;", ">") for heading in re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
]


@pytest.mark.parametrize("path", routes.ADMIN)
def test_each_path_of_the_admin_port_has_its_section(path: str) -> None:
    route = routes.ADMIN[path]
    method = route.allow.partition(",")[0]
    shown = path + route.rest
    assert [h for h in HEADINGS if h.startswith(f"{method} /") and shown in h.removeprefix(f"{method} ").split(", ")]


@pytest.mark.parametrize("path", routes.SCRAPE)
def test_so_has_each_of_the_scrape_port(path: str) -> None:
    assert [h for h in HEADINGS if h.startswith("Port 15020: ") and path + routes.SCRAPE[path].rest in h]


def test_no_section_is_of_a_path_that_is_not_there() -> None:
    known = {path + route.rest for table in (routes.ADMIN, routes.SCRAPE) for path, route in table.items()}
    assert {path for heading in HEADINGS for path in re.findall(r"/[^ ,]*", heading)} <= known


@pytest.mark.parametrize("name", record_filters.NAMES)
def test_each_filter_is_described(name: str) -> None:
    assert f"| `{name}=" in TEXT


def test_the_examples_answer_what_the_page_says() -> None:
    assert shape(rewritten(TEXT)) == shape(TEXT)
