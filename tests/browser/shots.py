"""``python -m tests.browser.shots``: the pictures of docs/images, of a sidecar with load behind it.

They are taken by hand, when the page has changed, so that a run of the tests changes no file.
"""

from __future__ import annotations

import argparse
import contextlib
import struct
import time
import zlib
from collections import Counter
from pathlib import Path

from tests.browser.chromium import Chromium
from tests.browser.traffic import running_app, running_load
from tests.support.process import ROOT, SidecarProcess

LARGEST = 200_000  # bytes of a picture
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def small(png: bytes) -> bytes:
    """The same picture with 256 colours (PNG, third edition): what is flat keeps its colour, edges lose some shades."""
    chunks = _chunks(png)
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, kind) in ((8, 2), (8, 6)), "true colour is what the browser writes"
    size = 3 if kind == 2 else 4
    pixels = _pixels(zlib.decompress(chunks[b"IDAT"]), width * size, height, size)
    used = Counter(pixels[at : at + 3] for at in range(0, len(pixels), size))
    for bits in range(8):  # as few as it takes until the rest of each colour makes 256 of them
        likeness: dict[bytes, bytes] = {}
        for colour, _ in used.most_common():
            likeness.setdefault(bytes(part >> bits for part in colour), colour)
        if len(likeness) <= 256:
            break
    palette = {colour: number for number, colour in enumerate(likeness.values())}
    number_of = {colour: palette[likeness[bytes(part >> bits for part in colour)]] for colour in used}
    row = width * size
    lines = b"".join(
        b"\0" + bytes([number_of[pixels[at : at + 3]] for at in range(start, start + row, size)])
        for start in range(0, len(pixels), row)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"".join(
        (_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"PLTE", b"".join(palette)),
         _chunk(b"IDAT", zlib.compress(lines, 9)), _chunk(b"IEND", b""))
    )  # fmt: skip


def _chunks(png: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = len(_SIGNATURE)
    while at < len(png):
        length, name = struct.unpack(">I4s", png[at : at + 8])
        found[name] = found.get(name, b"") + png[at + 8 : at + 8 + length]
        at += length + 12
    return found


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _pixels(data: bytes, row: int, height: int, size: int) -> bytes:
    """The bytes of all rows, their filters undone (section 9)."""
    before = bytearray(row)
    rows = []
    for number in range(height):
        start = number * (row + 1)
        how, line = data[start], bytearray(data[start + 1 : start + 1 + row])
        for at in range(row) if how else ():
            left = line[at - size] if at >= size else 0
            above, corner = before[at], before[at - size] if at >= size else 0
            if how == 1:
                guess = left
            elif how == 2:
                guess = above
            elif how == 3:
                guess = (left + above) // 2
            else:
                sums = left + above - corner
                near = (abs(sums - left), abs(sums - above), abs(sums - corner))
                guess = (left, above, corner)[near.index(min(near))]
            line[at] = (line[at] + guess) & 255
        rows.append(bytes(line))
        before = line
    return b"".join(rows)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.shots", description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--seconds", type=float, default=75.0, help="of load before the pictures")
    parser.add_argument("--rate", type=float, default=1000.0)
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    shots: dict[str, bytes] = {}
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(running_app())
        sidecar = stack.enter_context(SidecarProcess(port, "--memory-limit", "256MiB", access_log="off"))
        tab = stack.enter_context(Chromium()).open(f"http://127.0.0.1:{sidecar.admin}/", width=1280, height=1000)
        stack.enter_context(running_load(sidecar, port, rate=options.rate))
        time.sleep(options.seconds)
        for scheme in ("light", "dark"):
            tab.prefer(scheme)
            tab.wait("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
            shots[f"page-{scheme}"] = tab.screenshot(whole=True)
        tab.resize(390, 844)
        tab.wait("innerWidth === 390")
        shots["page-narrow"] = tab.screenshot(whole=True)
        tab.resize(1280, 1000)
        tab.prefer("light")
        row = "[...document.querySelectorAll('#failure-table tbody tr')].find(row => row.innerText.includes('UC'))"
        tab.wait(f"{row} && ({row}.querySelector('a').click(), true)")
        tab.wait("document.querySelector('#story .steps')")
        shots["page-story"] = tab.screenshot()
    for name, picture in shots.items():
        written = small(picture)
        (options.into / f"{name}.png").write_bytes(written)
        print(f"{name}.png: {len(written)} bytes{', too large' if len(written) > LARGEST else ''}")


if __name__ == "__main__":
    main()
