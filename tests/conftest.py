"""What holds for every test: ``--no-skips`` turns a skipped test into a failed one, and notices are shown at the end.

A test that is skipped since a program is missing proves nothing. Where everything is installed, as in CI, nothing may
be missing. A notice is what a test that passes reports by ``record_property("notice", LINE)``.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.config.getoption("--no-skips"):
        refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if collector.config.getoption("--no-skips"):
        refuse_skip(report)
    return report


NO_SAMPLES = (
    "no samples: "  # documents of other projects, which may lie beside a checkout: tests have their own as well
)


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Makes the report of a skipped test, or of one that is known to fail, that of a failed one."""
    if report.skipped and NO_SAMPLES not in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped, where nothing may be: {report.longrepr}"
        vars(report).pop("wasxfail", None)  # pytest does not count a failure that has it


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "notice"
    ]
    if found:
        terminalreporter.section("notices")
    for line in found:
        terminalreporter.line(str(line))
