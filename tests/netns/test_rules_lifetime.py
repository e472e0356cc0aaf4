"""The table: put in place, run again, replaced, killed on the way, taken away; and what must never be touched."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import PROXY_ID
from tests.netns.pod import Pod

KILLS = 50
LARGE = ("-b", "80,443,8000-8100", "-x", "10.0.0.0/8,192.168.4.0/22,fc00::/7", "-u", "1337,1338", "-c", "a,b")


def ruleset(pod: Pod) -> str:
    """All tables, with handles and counters."""
    return pod.run("nft", "-a", "list", "ruleset")


def surroundings(pod: Pod) -> list[str]:
    """What is left as it was: rules, policy routing, addresses."""
    commands = (
        ("nft", "list", "ruleset"),
        ("ip", "rule"),
        ("ip", "-6", "rule"),
        ("ip", "-o", "address"),
        ("ip", "-6", "route"),
    )
    return [pod.run(*command).replace(" tentative", "") for command in commands]  # an address that the kernel tries out


@pytest.mark.parametrize("flags", [(), LARGE, ("--ipv6", "off"), ("--capture-all-dns", "--drop-invalid")])
def test_a_second_run_changes_no_handle_and_no_counter(make_pod: MakePod, flags: tuple[str, ...]) -> None:
    pod = make_pod("pod")
    pod.resolvers("10.96.0.10", "fd00::a")
    assert "are in place" in pod.init(*flags)
    before = ruleset(pod)
    assert "were in place already" in pod.init(*flags)
    pod.init("--verify", *flags)
    assert ruleset(pod) == before


@pytest.mark.parametrize("flags", [(), LARGE, ("--ipv6", "off"), ("--capture-all-dns", "--drop-invalid")])
def test_nft_reads_the_script_as_the_same_table(make_pod: MakePod, flags: tuple[str, ...]) -> None:
    pod = make_pod("pod")
    pod.resolvers("10.96.0.10", "fd00::a")
    pod.init(*flags)
    ours = pod.run("nft", "list", "ruleset")
    file = pod.directory / "script.nft"
    file.write_text(pod.init("--dry-run", "--format", "nft", *flags))
    pod.run("nft", "-f", str(file))
    theirs = pod.run("nft", "list", "ruleset")
    assert sorted(_lines(theirs)) == sorted(_lines(ours))


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "made by sidecar-init" not in line]


def test_cleanup_leaves_everything_as_it_was(make_pod: MakePod) -> None:
    pod = make_pod("pod")
    before = surroundings(pod)
    pod.init(*LARGE)
    assert surroundings(pod) != before
    pod.init()
    pod.init("--cleanup")
    assert surroundings(pod) == before
    assert "nothing to take away" in pod.init("--cleanup")


def test_an_address_that_was_there_before_stays(make_pod: MakePod) -> None:
    pod = make_pod("pod")
    pod.run("ip", "-6", "address", "add", "::6/128", "dev", "lo")
    before = surroundings(pod)
    pod.init()
    pod.init("--ipv6", "off")
    pod.init("--cleanup")
    assert surroundings(pod) == before


def test_nobody_elses_table_is_touched(make_pod: MakePod) -> None:
    pod = make_pod("pod")
    script = pod.directory / "others.nft"
    script.write_text(
        """
        table inet sidecars { chain output { type nat hook output priority -100; tcp dport 9 counter return; }; }
        table ip sidecar { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; }
        """
    )
    pod.run("nft", "-f", str(script))
    before = ruleset(pod)
    pod.init()
    assert pod.run("nft", "-a", "list", "table", "inet", "sidecars") in before
    pod.init(*LARGE)
    pod.init("--cleanup")
    assert ruleset(pod) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("delete table inet sidecar", "the table inet sidecar is not there"),
        ("flush chain inet sidecar output", "chain output: 0 rules"),
        ("delete element inet sidecar excluded_inbound_ports { 15000 }", "set excluded_inbound_ports"),
        ("add chain inet sidecar more", "chain more: should not be there"),
        ("add rule inet sidecar own accept", "chain own"),
        ("insert rule inet sidecar output accept", "chain output"),
    ],
)
def test_whatever_was_changed_is_seen_and_made_good(make_pod: MakePod, change: str, said: str) -> None:
    pod = make_pod("pod")
    pod.init()
    pod.run("nft", *change.split())
    assert said in pod.init("--verify", code=5)
    assert "are in place" in pod.init()
    pod.init("--verify")


def test_a_missing_address_is_seen_and_made_good(make_pod: MakePod) -> None:
    pod = make_pod("pod")
    pod.init()
    pod.run("ip", "-6", "address", "del", "::6/128", "dev", "lo")
    assert "::6 is not an address of lo" in pod.init("--verify", code=5)
    pod.init()
    pod.init("--verify")


def test_without_the_capability_it_names_it(make_pod: MakePod) -> None:
    pod = make_pod("pod")
    command = (str(pod.environment.python), "-m", "init.cli")
    for flags in ((), ("--cleanup",), ("--show",), ("--verify",)):
        assert "CAP_NET_ADMIN" in pod.run(*command, *flags, uid=PROXY_ID, code=3)
    assert "to inbound" in pod.run(*command, "--dry-run", uid=PROXY_ID)


def test_ipv6_that_can_not_be_captured_changes_nothing(make_pod: MakePod) -> None:
    pod = make_pod("pod")
    pod.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6")
    before = surroundings(pod)
    for mode in ("auto", "on"):
        assert "::6" in pod.init("--ipv6", mode, code=4)
        assert surroundings(pod) == before
    pod.init("--ipv6", "off")


def test_killed_at_any_instant_it_leaves_the_old_rules_or_the_new(make_pod: MakePod) -> None:
    pod = make_pod("pod")
    plans = [("-b", "8080"), LARGE]
    whole = []
    for flags in plans:
        began = time.monotonic()
        pod.init(*flags)
        took = time.monotonic() - began
        whole.append(pod.run("nft", "list", "ruleset"))
    ended = 0
    for number in range(KILLS):
        command = pod.command(0, str(pod.environment.python), "-m", "init.cli", *plans[number % 2])
        process = subprocess.Popen(command, env=pod.environment.variables, stdout=subprocess.DEVNULL)
        try:
            process.wait(took * (number + 1) / KILLS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        ended += process.wait(10) == 0
        assert pod.run("nft", "list", "ruleset") in whole
    assert ended < KILLS
    pod.init(*LARGE)
    pod.init("--verify", *LARGE)
