"""``python -m tests.guards``: take out each guard of the h11 table in turn, and name the test that notices.

A guard that no test misses is a guard that the next change may lose. Each row of the table names the exact text of its
guard and what stands there without it; the text is replaced in a temporary copy of the tree, and the hostile cases of
that row are run there, after they have passed in a copy with every guard in place. The exit code is 1 where a removed
guard made no test fail, or where the text of a guard is no longer found.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.cases.traps import ROWS

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Patch:
    """Replace ``old``, which must be there exactly once, by ``new`` in ``file``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Guard:
    """What holds one row: ``row`` is its id in the table, ``patches`` take the guard out, ``tests`` are pytest's
    arguments that must fail then; by default the row's hostile cases."""

    row: str
    what: str
    patches: tuple[Patch, ...]
    tests: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.tests or ("tests/hostile/test_cases.py", "-k", f"{self.row}- and one_verdict")


_HEAD = "sidecar/http/h1/head.py"
_GRAMMAR = "sidecar/http/h1/grammar.py"
_BODY = "sidecar/http/h1/body.py"
_UPSTREAM = "sidecar/http/h1/client.py"
_ANSWERS = "tests/hostile/test_upstreams.py"
_FIELD_PATTERN = r'rb"([^:]++):[ \t]*+((?:[^\r]*[^\r \t])?)[ \t]*+\r\n"'

_TWO_LENGTHS = Patch(
    _HEAD,
    """        if length is not None:
            raise ProxyError(Reason.BAD_FRAMING, "both Content-Length and Transfer-Encoding are sent")
""",
    "",
)

GUARDS: tuple[Guard, ...] = (
    Guard("H11-1", "both lengths in one head are refused", (_TWO_LENGTHS,)),
    Guard("H11-2", "the same rule, on answers", (_TWO_LENGTHS,), (_ANSWERS, "-k", "H11-2-")),
    Guard(
        "H11-3",
        "no transfer coding in HTTP/1.0",
        (
            Patch(
                _HEAD,
                """        if not minor:
            raise ProxyError(Reason.BAD_FRAMING, "Transfer-Encoding is not part of HTTP/1.0")
""",
                "",
            ),
        ),
    ),
    Guard(
        "H11-4",
        "lines of heads and trailers end with CRLF",
        (
            Patch(_GRAMMAR, r'VALUE + rb"*+\r\n"' + "\nFIELD_BLOCK", r'VALUE + rb"*+\r?\n"' + "\nFIELD_BLOCK"),
            Patch(_GRAMMAR, _FIELD_PATTERN, r'rb"([^:]++):[ \t]*+((?:[^\r\n]*[^\r\n \t])?)[ \t]*+\r?\n"'),
        ),
    ),
    Guard(
        "H11-5",
        "a field is one line",
        (
            Patch(
                _GRAMMAR,
                r'VALUE + rb"*+\r\n"' + "\nFIELD_BLOCK",
                r'VALUE + rb"*+(?:\r\n[ \t]" + VALUE + rb"*+)*+\r\n"' + "\nFIELD_BLOCK",
            ),
            Patch(_GRAMMAR, _FIELD_PATTERN, r'rb"([^:]++):[ \t]*+([^\r]*(?:\r\n[ \t][^\r]*)*)\r\n"'),
        ),
    ),
    Guard(
        "H11-6",
        "no control byte in a value",
        (Patch(_GRAMMAR, r'rb"[^\x00-\x08\x0a-\x1f\x7f]"', r'rb"[^\x00\n\r]"'),),
    ),
    Guard(
        "H11-7",
        "no version but 1.0 and 1.1",
        (Patch(_GRAMMAR, r'rb"++) HTTP/1\.([01])\r\n"', r'rb"++) HTTP/[0-9]\.([0-9])\r\n"'),),
    ),
    Guard(
        "H11-8",
        "a length has no leading zero",
        (Patch(_HEAD, 'rb"0|[1-9][0-9]{0,17}"', 'rb"[0-9]{1,18}"'),),
    ),
    Guard(
        "H11-8",
        "a length is sent once, and is one number",
        (
            Patch(_HEAD, 'rb"0|[1-9][0-9]{0,17}"', 'rb"0|[1-9][0-9]{0,17}(?:, *[0-9]+)*"'),
            Patch(
                _HEAD,
                "_ONCE: Final = frozenset({headers.HOST, headers.CONTENT_LENGTH, ",
                "_ONCE: Final = frozenset({headers.HOST, ",
            ),
            Patch(_HEAD, "return int(length)\n", 'return int(length.split(b",")[0])\n'),
        ),
    ),
    Guard(
        "H11-9",
        "a chunk's size has 16 digits at most",
        (Patch(_BODY, 'rb"([0-9A-Fa-f]{1,16})("', 'rb"([0-9A-Fa-f]{1,64})("'),),
    ),
    Guard(
        "H11-10",
        "no white space behind a chunk's size",
        (Patch(_BODY, 'rb"([0-9A-Fa-f]{1,16})("', r'rb"([0-9A-Fa-f]{1,16})[ \t]*("'),),
    ),
    Guard(
        "H11-10",
        "an extension is token, sign, token or quoted text",
        (
            Patch(
                _BODY,
                """rb"(?:;" + grammar.TOKEN + rb"++(?:=(?:" + grammar.TOKEN + rb"++|" + _QUOTED + rb"))?)*+\"""",
                r'rb"(?:;[^\n]*?)?"',
            ),
        ),
    ),
    Guard(
        "H11-11",
        "trailers that frame, route or vouch are dropped",
        (Patch(_BODY, "headers.trailers_allowed(fields)", "fields"),),
    ),
    Guard(
        "H11-12",
        "Host is host and port, and nothing else",
        (Patch(_HEAD, "    else:\n        check_authority(authority)\n", ""),),
    ),
    Guard("H11-13", "no fragment in a target", (Patch(_GRAMMAR, r'rb"[\x21\x22\x24-\x7e]"', r'rb"[\x21-\x7e]"'),)),
    Guard(
        "H11-13",
        "a target is a path, an http:// URL, or what its method allows",
        (
            Patch(
                _HEAD,
                """        raise ProxyError(Reason.BAD_REQUEST, "the target is neither a path nor an http:// URL")
""",
                "        return target, authority, False\n",
            ),
        ),
    ),
    Guard(
        "H11-13",
        "the authority of an absolute target is the one that counts",
        (
            Patch(
                _HEAD,
                """        raise ProxyError(Reason.BAD_REQUEST, "the target names another authority than Host")
""",
                "        named = authority\n",
            ),
        ),
    ),
    Guard("H11-13", "CONNECT has no body", (Patch(_HEAD, "if body or not minor:", "if not minor:"),)),
    Guard(
        "H11-14",
        "a head has 32 KiB at most",
        (Patch(_GRAMMAR, "HEAD_BYTES: Final = 32 * 1024", "HEAD_BYTES: Final = 1 << 24"),),
    ),
    Guard(
        "H11-14",
        "a head has 100 fields at most",
        (Patch(_GRAMMAR, "HEAD_FIELDS: Final = 100", "HEAD_FIELDS: Final = 1 << 24"),),
    ),
    Guard(
        "H11-15",
        "ten interim answers at most",
        (Patch("sidecar/proxy/attempt.py", "INTERIM_HEADS: Final = 10", "INTERIM_HEADS: Final = 1 << 24"),),
        (_ANSWERS, "-k", "H11-15-"),
    ),
    Guard(
        "H11-16",
        "a connection with bytes that nobody asked for is not used again",
        (
            Patch(
                _UPSTREAM,
                "                self._keep = False  # bytes that nobody asked for\n",
                "                pass\n",
            ),
            Patch(_UPSTREAM, "            if reader.rest:\n                self._keep = False\n", ""),
        ),
        (_ANSWERS, "-k", "H11-16-"),
    ),
)


def copy_tree(source: Path, target: Path) -> Path:
    """A tree without its history, environments and results."""
    ignored = shutil.ignore_patterns(".git", ".venv*", "venv", "__pycache__", "results", ".*_cache", "*.egg-info")
    shutil.copytree(source, target, ignore=ignored)
    return target


def apply(tree: Path, patches: tuple[Patch, ...]) -> None:
    """Take the guard out; ValueError where the text is not there exactly once."""
    for patch in patches:
        path = tree / patch.file
        text = path.read_text()
        if text.count(patch.old) != 1:
            raise ValueError(f"{patch.file}: {text.count(patch.old)} times, not once: {patch.old!r}")
        path.write_text(text.replace(patch.old, patch.new))


def run(tree: Path, arguments: tuple[str, ...]) -> tuple[int, list[str]]:
    """pytest in the copy: its exit code and the names of the tests that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", "-rfE", *arguments]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=600, check=False)
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1):
        failed = [f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-400:]}"]
    return done.returncode, failed


def judge(guard: Guard, whole: Path) -> str | None:
    """Take the guard out of a copy of ``whole`` and print the row's line; what is wrong, or None."""
    with tempfile.TemporaryDirectory(prefix="guards-") as directory:
        tree = copy_tree(whole, Path(directory, "tree"))
        try:
            apply(tree, guard.patches)
        except ValueError as error:
            return f"{guard.row}: {error}"
        code, failed = run(tree, guard.arguments)
    words = ROWS[guard.row][0]
    if code != 1 or not failed:
        return f"{guard.row} ({words}): {guard.what} taken out, and no test fails ({code} {failed})"
    print(f"{guard.row:7} {words}\n        guard: {guard.what}\n        fails: {', '.join(failed)}", flush=True)
    return None


def main() -> int:
    """The command; 0 where each row has a guard that a test misses."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards", description=__doc__)
    parser.add_argument("rows", nargs="*", help="ids such as H11-4; all by default")
    wanted = parser.parse_args().rows or list(ROWS)
    wrong = [f"{row} ({ROWS[row][0]}): no guard is named" for row in wanted if not any(g.row == row for g in GUARDS)]
    guards = [guard for guard in GUARDS if guard.row in wanted]
    with tempfile.TemporaryDirectory(prefix="guards-") as directory:
        whole = copy_tree(ROOT, Path(directory, "whole"))
        for arguments in sorted({guard.arguments for guard in guards}):
            code, failed = run(whole, arguments)
            if code != 0:
                wrong.append(f"with every guard in place {' '.join(arguments)} fails: {code} {failed}")
        if not wrong:
            wrong = [found for guard in guards if (found := judge(guard, whole)) is not None]
    for line in wrong:
        print(f"WRONG {line}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
