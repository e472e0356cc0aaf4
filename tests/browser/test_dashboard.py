"""The page in front of a running load: what it shows, that it stays smooth, and that everybody can use it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from time import monotonic

import pytest

from tests.browser.chromium import Chromium, Tab
from tests.browser.conftest import RATE
from tests.browser.traffic import running_load
from tests.support.process import SidecarProcess
from tests.support.raw import ask

LINKS = (
    "/requests", "/stats", "/stats/prometheus", "/clusters", "/listeners", "/config_dump", "/server_info", "/memory",
    "/help",
)  # fmt: skip
BUSY = 0.2  # of the page's thread, in CPU time: with a picture per second, 200 ms each, a wait that a hand would feel
NUMBER = "parseFloat(document.querySelector('[data-direction={}] [data-figure={}]').innerText.replaceAll(',', ''))"


def open_page(browser: Chromium, sidecar: SidecarProcess, *, width: int = 1280, height: int = 900) -> Tab:
    tab = browser.open(f"http://127.0.0.1:{sidecar.admin}/", width=width, height=height)
    tab.wait("document.body.dataset.stream === 'live'")
    return tab


def brightness(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((brightness(one), brightness(other)))
    return (light + 0.05) / (dark + 0.05)


def seconds_shown(tab: Tab, count: int) -> list[float]:
    """The sum of the two rates of requests, each time that it changes."""
    return list(
        tab.run(
            "new Promise(done => { const seen = [];"
            f"const look = () => {{ const sum = {NUMBER.format('inbound', 'requests')}"
            f" + {NUMBER.format('outbound', 'requests')};"
            "if (!isNaN(sum) && sum !== seen[seen.length - 1]) seen.push(sum);"
            f"if (seen.length < {count}) setTimeout(look, 50); else done(seen); }}; look(); }})"
        )
    )


@pytest.mark.alone
def test_figures_move_and_agree_with_the_load(
    browser: Chromium, loaded: tuple[SidecarProcess, Callable[[], int]]
) -> None:
    busy, sent = loaded
    tab = open_page(browser, busy)
    tab.wait(f"{NUMBER.format('inbound', 'requests')} > 0")
    seconds_shown(tab, 2)  # from here on a whole second is shown
    before, began = sent(), monotonic()
    seen = seconds_shown(tab, 7)[1:]
    rate = (sent() - before) / (monotonic() - began)
    assert rate > RATE / 3  # the machine keeps up with some of it
    assert sum(seen) / len(seen) == pytest.approx(rate, rel=0.15), (seen, rate)
    assert tab.run(f"{NUMBER.format('inbound', 'connections')}") >= 1
    middle, late = (tab.run(NUMBER.format("inbound", name)) for name in ("p50", "p99"))
    assert 0 < middle <= late
    drawn = "document.querySelector('[data-direction=inbound] [data-chart=rate] path.requests').getAttribute('d')"
    assert tab.run(f"{drawn}.split('L').length") >= 3
    assert "127.0.0.1" in tab.text("#sources") and f":{busy.command[4].rpartition(':')[2]}" in tab.text("#destinations")
    for words in ("Client connections", "Memory", "Loop lag"):
        assert words in tab.text("#limits")
    assert "live" in tab.text("#state")
    assert tab.said == []


def cpu_seconds(tab: Tab) -> float:
    """What the page's thread has used so far. Not how long its tasks took, in which others on the machine take part."""
    tab.ask("Performance.enable", timeDomain="threadTicks")
    found = {each["name"]: each["value"] for each in tab.ask("Performance.getMetrics")["metrics"]}
    return float(found["TaskDuration"])


@pytest.mark.alone
def test_the_page_stays_smooth(browser: Chromium, busy: SidecarProcess) -> None:
    tab = open_page(browser, busy)
    tab.wait("document.querySelectorAll('#failure-table tbody tr').length >= 10")
    before = cpu_seconds(tab)
    frames, seconds = tab.run(
        "new Promise(done => { let frames = 0;"
        "const began = performance.now(); const frame = () => { frames += 1;"
        "  const passed = performance.now() - began;"
        "  if (passed < 5000) requestAnimationFrame(frame); else done([frames, passed / 1000]); };"
        "requestAnimationFrame(frame); })"
    )
    used = cpu_seconds(tab) - before
    assert 0 < used < BUSY * seconds, (used, seconds)
    assert frames / seconds > 2, (frames, seconds)
    assert tab.said == []


def test_a_failure_is_one_click_away_from_its_story(browser: Chromium, busy: SidecarProcess) -> None:
    tab = open_page(browser, busy)
    wait_for = "[...document.querySelectorAll('#failure-table tbody tr')].find(r => r.innerText.includes('{}'))"
    for flag in ("UC", "UF", "DPE", "5xx"):
        tab.wait(wait_for.format(flag))
    # Whoever points at the rows or is among them has them hold still; else they would move under the click.
    tab.wait(
        f"(link => {{ if (link) {{ link.focus(); link.id = 'wanted'; }} return link; }})"
        f"({wait_for.format('UC')}?.querySelector('a')) !== undefined"
    )
    tab.click("#wanted")
    tab.wait("document.querySelector('#story[open] .steps')")
    story = tab.text("#story")
    for words in (
        "What to do:",
        "closed or reset the connection",
        "Upstream",
        "Headers stripped",
        "/fail/close",
        "503",
    ):
        assert words in story
    assert "=77" not in story and "***" in story  # no value of a query
    shown = tab.run("decodeURIComponent(location.hash)").removeprefix("#explain/")
    assert json.loads(busy.admin_get(f"/explain/{shown}?format=json")[1])["request_id"] == shown
    tab.press("Escape")
    tab.wait("!document.querySelector('#story').open && location.hash === ''")
    assert tab.said == []


def test_a_story_is_asked_for_by_id_and_an_unknown_one_is_said_to_be(browser: Chromium, app_port: int) -> None:
    """Without load behind it, under which the last thousand requests are the last second."""
    request = b"GET /cart HTTP/1.1\r\nHost: app\r\nConnection: close\r\nX-Request-Id: %b\r\n"
    with SidecarProcess(app_port, access_log="off") as sidecar:
        ask(sidecar.inbound, request % b"order/77+a" + b"X-Forwarded-Client-Cert: By=me\r\n\r\n")
        tab = browser.open(f"http://127.0.0.1:{sidecar.admin}/#explain/order%2F77%2Ba")
        tab.wait("document.querySelector('#story[open] .steps')")
        assert "x-forwarded-client-cert" in tab.text("#story").lower()
        tab.press("Escape")
        tab.run(
            "document.getElementById('ask-id').value = 'never <b>seen</b>'; document.getElementById('ask-id').focus()"
        )
        tab.press("Enter")
        tab.wait("document.querySelector('#story[open]')?.innerText.includes('no request with this id')")
        assert [each for each in tab.said if "404" not in each] == []  # the browser notes the 404 by itself


def test_the_keyboard_reaches_everything_in_order(browser: Chromium, busy: SidecarProcess) -> None:
    tab = open_page(browser, busy)
    tab.wait("document.querySelectorAll('#failure-table tbody a').length >= 3")
    tab.run("document.activeElement.blur()")
    reached = []
    for _ in range(len(LINKS) + 5):
        tab.press("Tab")
        reached.append(
            tab.run("(e => e.getAttribute('href') ?? (e.id || e.className || e.type))(document.activeElement)")
        )
    assert reached[: len(LINKS) + 5 - 1] == [
        "#failures", "/requests", "/stats", "/stats/prometheus", "/clusters", "/listeners", "/config_dump",
        "/server_info", "/memory", "/help", "ask-id", "submit", "scroll",
    ]  # fmt: skip
    assert reached[-1].startswith("#explain/")
    shown = tab.run("getComputedStyle(document.activeElement).outlineStyle")
    assert shown != "none"  # one sees where one is
    tab.press("Enter")
    tab.wait("document.querySelector('#story[open] .steps')")
    assert tab.run("document.getElementById('story').contains(document.activeElement)")
    tab.press("Escape")
    tab.wait("!document.querySelector('#story').open")
    assert tab.run("document.activeElement.getAttribute('href')") == reached[-1]  # back where one was


def test_rows_hold_still_while_somebody_reads_them(browser: Chromium, busy: SidecarProcess) -> None:
    tab = open_page(browser, busy)
    first = "document.querySelector('#failure-table tbody tr').innerText"
    tab.wait("document.querySelectorAll('#failure-table tbody tr').length >= 5")
    tab.run("document.querySelector('#failure-table tbody a').focus()")
    before = tab.run(first)
    tab.wait("document.getElementById('held').innerText.includes('held')")
    assert tab.run(first) == before
    tab.run("document.activeElement.blur()")
    tab.wait(f"{first} !== {json.dumps(before)}")


@pytest.mark.parametrize("width", [320, 390, 768, 1024])
def test_no_width_needs_sideways_scrolling(browser: Chromium, busy: SidecarProcess, width: int) -> None:
    tab = open_page(browser, busy, width=width)
    tab.wait("document.querySelectorAll('#failure-table tbody tr').length >= 5")
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.said == []


def test_a_screen_reader_finds_its_way_and_is_not_told_every_second(browser: Chromium, busy: SidecarProcess) -> None:
    tab = open_page(browser, busy)
    tab.wait("document.querySelectorAll('#failure-table tbody tr').length >= 5")
    for landmark in ("header", "main", "nav[aria-label]"):
        assert tab.run(f"document.querySelectorAll('{landmark}').length") == 1, landmark
    assert (
        tab.run(
            "[...document.querySelectorAll('section, form input, svg[role=img]')].filter(e => e.checkVisibility()"
            " && !(e.ariaLabel || e.ariaLabelledByElements?.length || e.labels?.length)).length"
        )
        == 0
    )
    assert tab.run("[...document.querySelectorAll('thead th')].every(e => e.scope === 'col')")
    assert tab.run("document.documentElement.lang") == "en"
    live = tab.run("[...document.querySelectorAll('[aria-live]')].map(e => e.id)")
    assert live == ["announce"]
    changes, summaries = tab.run(
        "new Promise(done => { let changes = 0, drawn = 0;"
        "new MutationObserver(() => changes += 1).observe(document.getElementById('announce'), {childList: true});"
        "new MutationObserver(() => { drawn += 1; if (drawn === 4) done([changes, drawn]); })"
        "  .observe(document.getElementById('limits'), {childList: true}); })"
    )
    assert summaries == 4 and changes <= 1


def test_the_lists_are_one_click_away(browser: Chromium, busy: SidecarProcess) -> None:
    tab = open_page(browser, busy)
    found = tab.run("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))")
    assert sorted(found) == sorted(LINKS)
    for link in LINKS:
        assert busy.admin_get(link)[0] == 200, link
    tab.click("nav a[href='/listeners']")
    tab.wait("location.pathname === '/listeners' && document.body.innerText.includes('inbound')")


def test_light_and_dark_are_two_looks(browser: Chromium, busy: SidecarProcess) -> None:
    tab = open_page(browser, busy)
    grounds = {}
    for scheme in ("light", "dark"):
        tab.prefer(scheme)
        ink, ground = tab.run("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
        grounds[scheme] = contrast(ink, ground)
        for muted in (".facts", ".tiles dt", "th"):
            colour = tab.run(f"getComputedStyle(document.querySelector('{muted}')).color")
            assert contrast(colour, ground) >= 4.5, (scheme, muted)  # WCAG 2.2, 1.4.3
    assert min(grounds.values()) >= 7
    assert brightness(tab.run("getComputedStyle(document.body).backgroundColor")) < 0.05


def test_a_lost_stream_is_said_and_found_again(browser: Chromium, app_port: int) -> None:
    flags = ("--drain-delay", "0", "--drain-seconds", "1")
    with SidecarProcess(app_port, *flags, access_log="off") as first:
        port = first.admin
        tab = open_page(browser, first)
        assert "All is well" in tab.wait(
            "document.querySelector('.headline').innerText.includes('All is well')"
            " && document.querySelector('.headline').innerText"
        )
        first.stop()
        tab.wait("document.body.dataset.stream === 'lost'")
        assert "lost" in tab.text("#stream") and "old" in tab.text("#verdict")
        assert "lost" in tab.run("document.getElementById('announce').textContent")
    addresses = ("--inbound", "127.0.0.1:0", "--outbound", "127.0.0.1:0", "--admin", f"127.0.0.1:{port}")
    with SidecarProcess(app_port, *flags, access_log="off", addresses=(*addresses, "--scrape", "off")) as second:
        tab.wait("document.body.dataset.stream === 'live'")
        assert "All is well" in tab.wait(
            "document.querySelector('.headline').innerText.includes('All is well')"
            " && document.querySelector('.headline').innerText"
        )
        assert all("ERR_" in each for each in tab.said), tab.said  # the browser's own notes on the lost connection
        second.admin_get("/healthcheck/fail", "POST")
        tab.wait("document.querySelector('#state').innerText === 'healthcheck failed'")


def test_the_verdict_names_an_app_that_is_down(browser: Chromium) -> None:
    with SidecarProcess(9, access_log="off") as sidecar, running_load(sidecar, 9, rate=50.0):
        tab = open_page(browser, sidecar)
        tab.wait("document.querySelector('#verdict').dataset.kind === 'bad'")
        verdict = tab.text("#verdict")
        assert "connect failed" in verdict and "is the app running" in verdict.lower()
