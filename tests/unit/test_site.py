"""The site: pages that are made from the code are in step with it, every link leads somewhere, nothing is fetched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs.generate import DOCS, PAGES
from sidecar.errors import Reason
from sidecar.option_table import OPTIONS

ROOT = Path(__file__).parents[2]


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """As ``make docs`` does."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Page(HTMLParser):
    """What a page of the site refers to: ``links`` are for people, ``assets`` are fetched with the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.assets: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if name := found.get("id"):
            self.ids.add(name)
        if tag == "a" and (target := found.get("href")):
            self.links.append(target)
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev") and (target := found.get("href")):
            self.assets.append(target)
        if tag in ("script", "img", "iframe", "source", "video") and (target := found.get("src")):
            self.assets.append(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("site")
    done = build(ROOT, found)
    assert done.returncode == 0, done.stderr
    return found


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(found) >= 10
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_is_made_from_the_code_is_in_step(name: str) -> None:
    assert DOCS.joinpath(name).read_text() == PAGES[name](), "run make docs"


def test_every_page_is_in_the_site(pages: dict[Path, Page], site: Path) -> None:
    written = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert written == {path.relative_to(site) for path in pages}


def test_every_link_leads_to_a_page_and_a_place_on_it(pages: dict[Path, Page]) -> None:
    wrong = []
    for path, page in pages.items():
        for link in [*page.links, *page.assets]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (
                parts.fragment and target in pages and not _known(pages[target], parts.fragment)
            ):
                wrong.append(f"{path.name}: {link}")
    assert wrong == []


def _known(page: Page, fragment: str) -> bool:
    return unquote(fragment) in page.ids or fragment.startswith("__")  # its own, as for a skip link


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    assets = {asset for page in pages.values() for asset in page.assets}
    assert assets, "the pages have a style"
    assert [asset for asset in assets if urlsplit(asset).netloc] == []
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        assert "url(http" not in text and "url(//" not in text and "@import" not in text, sheet


def test_no_code_is_copied_into_the_site(site: Path) -> None:
    assert list(site.rglob("*.py")) == []


def test_every_flag_and_every_reason_has_its_place(pages: dict[Path, Page], site: Path) -> None:
    assert {reason.word for reason in Reason} <= pages[site / "response-flags.html"].ids
    text = (site / "reference" / "cli.html").read_text()
    assert [option.flag for option in OPTIONS if f"<code>{option.flag} " not in text] == []


@pytest.mark.parametrize("line", ["[x](nowhere.md)", "[x](getting-started.md#nowhere)", "[x](../README.md)"])
def test_a_broken_link_is_an_error(line: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write(f"\n{line}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr or "README" in done.stderr
