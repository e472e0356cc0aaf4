"""Conditions on one text, what a regex begins with, and rewrites of a path by regex."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.string_match import compile_regex, compile_regex_rewrite, compile_string, literal_prefix
from sidecar.resources.virtual_service import StringMatch


@pytest.mark.parametrize(
    ("match", "value", "holds"),
    [
        (StringMatch(exact="a"), b"a", True),
        (StringMatch(exact="a"), b"A", False),
        (StringMatch(exact="a"), b"ab", False),
        (StringMatch(exact=""), b"", True),
        (StringMatch(exact=""), b"a", False),
        (StringMatch(exact="é"), "é".encode(), True),
        (StringMatch(prefix="a"), b"ab", True),
        (StringMatch(prefix="a"), b"ba", False),
        (StringMatch(prefix=""), b"", True),
        (StringMatch(regex="a|b"), b"b", True),
        (StringMatch(regex="a|b"), b"ab", False),
        (StringMatch(regex="a"), b"a\n", False),
        (StringMatch(regex=r"\d+"), b"42", True),
        (StringMatch(regex="[é]"), "é".encode(), True),
        (StringMatch(regex="."), "é".encode(), True),  # one character
        (StringMatch(regex="."), b"\xe9", False),  # no UTF-8
        (StringMatch(regex=""), b"", True),
        (StringMatch(regex="*"), b"anything", True),
        (StringMatch(), b"", True),
    ],
)
def test_a_value(match: StringMatch, value: bytes, holds: bool) -> None:
    assert compile_string(match)(value) is holds


@pytest.mark.parametrize(
    ("match", "value", "holds"),
    [
        (StringMatch(exact="aB"), b"Ab", True),
        (StringMatch(exact="aB"), b"Abc", False),
        (StringMatch(prefix="aB"), b"AbC", True),
        (StringMatch(prefix="aB"), b"A", False),
        (StringMatch(exact="É"), "é".encode(), False),  # ASCII only
        (StringMatch(regex="a"), b"A", False),
    ],
)
def test_a_value_without_regard_to_case(match: StringMatch, value: bytes, holds: bool) -> None:
    assert compile_string(match, ignore_case=True)(value) is holds


@pytest.mark.parametrize("pattern", ["(", "a**", r"(a)\1", "(?=a)", "[b-a]", "(?P<x"])
def test_what_is_no_re2_is_an_error(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"^regex '"):
        compile_string(StringMatch(regex=pattern))
    assert capfd.readouterr() == ("", "")


def test_a_regex_that_explodes_elsewhere_takes_linear_time() -> None:
    match = compile_string(StringMatch(regex="(a+)+b"))
    assert not match(b"a" * 50_000)
    assert match(b"a" * 50_000 + b"b")


def test_re2_is_imported_with_the_first_regex() -> None:
    program = (
        "import sys\n"
        "from sidecar.policy import string_match, virtual_hosts\n"
        "from sidecar.resources.virtual_service import StringMatch\n"
        "string_match.compile_string(StringMatch(prefix='a'))\n"
        "string_match.compile_string(StringMatch(regex='*'))\n"
        "assert 're2' not in sys.modules\n"
        "string_match.compile_string(StringMatch(regex='a'))\n"
        "assert 're2' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("pattern", "begin"),
    [
        ("/api/v1/[0-9]+", b"/api/v1/"),
        ("/api/(v1|v2)/x", b"/api/v"),
        ("^/api$", b"/api"),
        ("/é.*", "/é".encode()),
        ("/ab?", b"/a"),
        (".*", b""),
        ("/a|b", b""),
        ("(?i)/ab", b"/"),
        ("", b""),
    ],
)
def test_what_a_regex_begins_with(pattern: str, begin: bytes) -> None:
    assert literal_prefix(pattern) == begin


@given(st.text("ab/.*+?|()[]^$\\", max_size=10), st.text("ab/", max_size=6))
def test_every_match_begins_so(pattern: str, text: str) -> None:
    try:
        regex = compile_regex(pattern)
    except ValueError:
        return
    if regex.fullmatch(text.encode()):
        assert text.encode().startswith(literal_prefix(pattern))


@pytest.mark.parametrize(
    ("match", "rewrite", "path", "rewritten"),
    [
        ("/v1/", "/v2/", b"/v1/a/v1/b", b"/v2/a/v2/b"),
        ("^/service/([^/]+)(/.*)$", r"\2/instance/\1", b"/service/foo/v1/api", b"/v1/api/instance/foo"),  # Envoy's own
        ("one", "two", b"/xxx/one/yyy/one/zzz", b"/xxx/two/yyy/two/zzz"),
        ("^(.*?)one(.*)$", r"\1two\2", b"/xxx/one/yyy/one/zzz", b"/xxx/two/yyy/one/zzz"),
        ("(?i)/xxx/", "/yyy/", b"/aaa/XxX/bbb", b"/aaa/yyy/bbb"),
        ("a", r"[\0]", b"/a/a", b"/[a]/[a]"),
        ("a", r"\\1", b"/a", rb"/\1"),
        ("(b)?a", r"<\1>", b"/a", b"/<>"),
        ("a", "", b"/a/b", b"//b"),
        ("a", "é", b"/a", "/é".encode()),
        ("x", "y", b"/a", b"/a"),
        ("a", r"\1", b"/a", b"/a"),  # no such group: as it was
        ("a*", "x", b"/aa/b", b"x/x/xbx"),
        ("x*", "-", b"/star/x", b"-/-s-t-a-r-/-"),  # as Envoy does
    ],
)
def test_a_rewrite(match: str, rewrite: str, path: bytes, rewritten: bytes) -> None:
    assert compile_regex_rewrite(match, rewrite)(path) == rewritten


@pytest.mark.parametrize(("match", "rewrite"), [("(", "x"), ("a", "\\"), ("a", r"\x"), ("a", r"\0\\\x")])
def test_a_rewrite_without_meaning(match: str, rewrite: str) -> None:
    with pytest.raises(ValueError, match=r"^re(gex|write) '"):
        compile_regex_rewrite(match, rewrite)
