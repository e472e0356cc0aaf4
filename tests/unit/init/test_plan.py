"""The plan: golden tables, rule by rule, as people are shown them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping

import pytest

from init import render
from init.cli import read
from init.options import split
from init.plan import Wanted, by_family, merged, plan
from init.rules import Drop, Plan, Redirect, Zone

EXCLUDED = "tcp dport @excluded_inbound_ports return"
ALL_IN = "meta l4proto tcp redirect to :15006"
ALL_OUT = "meta l4proto tcp redirect to :15001"
OUTPUT = [
    "tcp dport 15005 ip daddr != 127.0.0.0/8 fib daddr type local redirect to :15001",
    "tcp dport 15005 ip6 daddr != ::1/128 fib daddr type local redirect to :15001",
    'oifname "lo" ip saddr 127.0.0.6/32 return',
    'oifname "lo" ip6 saddr ::6/128 return',
    'oifname "lo" meta skuid 1337 jump own',
    'oifname "lo" meta skgid 1337 jump own',
    "meta skuid 1337 return",
    "meta skgid 1337 return",
]
TO_ITSELF = ['oifname "lo" return', "ip daddr 127.0.0.0/8 return", "ip6 daddr ::1/128 return"]
RESOLVERS = (ipaddress.ip_address("10.96.0.10"), ipaddress.ip_address("fd00::a"))


def planned(line: str, ipv6: bool = True) -> Plan:
    values = read(split(line.split()), {})
    fields = {name: values[name] for name in Wanted.__dataclass_fields__ if name in values}
    return plan(Wanted(**{**fields, "ipv6": ipv6}, resolvers=RESOLVERS))


def chains(made: Plan) -> Mapping[str, list[str]]:
    return {
        chain["name"]: [rule["rule"] for rule in chain["rules"]] for chain in json.loads(render.as_json(made))["chains"]
    }


def sets(made: Plan) -> Mapping[str, list[str]]:
    return {found.name: render.elements(found) for found in made.sets}


def test_without_flags() -> None:
    made = planned("")
    assert chains(made) == {
        "prerouting": [EXCLUDED, ALL_IN],
        "output": [*OUTPUT, *TO_ITSELF, ALL_OUT],
        "own": ["ip daddr 127.0.0.0/8 return", "ip6 daddr ::1/128 return", EXCLUDED, ALL_IN],
    }
    assert sets(made) == {"excluded_inbound_ports": ["15000", "15020-15021"]}


# flags -> (the rules of prerouting, the sets beside the ports that are never captured)
INBOUND = [
    ("-b 8080", [EXCLUDED, "tcp dport 8080 redirect to :15006"], {}),
    ("-b 9000-9100,80", [EXCLUDED, "tcp dport @inbound_ports redirect to :15006"],
     {"inbound_ports": ["80", "9000-9100"]}),
    ("-b none", [EXCLUDED], {}),
    ("-d 22 -z 16006", [EXCLUDED, "meta l4proto tcp redirect to :16006"],
     {"excluded_inbound_ports": ["22", "15000", "15020-15021"]}),
    ("-c eth1", ['iifname "eth1" return', EXCLUDED, ALL_IN], {}),
    ("-c net2,net1", ["iifname @excluded_interfaces return", EXCLUDED, ALL_IN],
     {"excluded_interfaces": ['"net1"', '"net2"']}),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "rules", "looked_up"), INBOUND, ids=[line[0] for line in INBOUND])
def test_inbound(flags: str, rules: list[str], looked_up: dict[str, list[str]]) -> None:
    made = planned(flags)
    assert chains(made)["prerouting"] == rules
    assert sets(made) == {"excluded_inbound_ports": ["15000", "15020-15021"]} | looked_up


QUERY = ["udp dport 53", "tcp dport 53"]
# flags -> (the rules of output before "the app to itself", those after it, more sets)
OUTBOUND = [
    ("-p 16001 -i 10.0.0.0/8", [], ["meta l4proto tcp ip daddr 10.0.0.0/8 redirect to :16001"], {}),
    ("-i none", [], [], {}),
    ("-q 443 -i none", [], ["tcp dport 443 redirect to :15001"], {}),
    ("-o 25,5432", [], ["tcp dport @excluded_outbound_ports return", ALL_OUT],
     {"excluded_outbound_ports": ["25", "5432"]}),
    ("-o 25 -q 443 -x 10.0.0.0/9,10.128.0.0/9,fd00::/8", [],
     ["tcp dport 25 return", "tcp dport 443 redirect to :15001", "ip daddr 10.0.0.0/8 return",
      "ip6 daddr fd00::/8 return", ALL_OUT], {}),
    ("-i 192.168.4.0/22,fc00::/7", [],
     ["meta l4proto tcp ip daddr @outbound_cidrs_v4 redirect to :15001",
      "meta l4proto tcp ip6 daddr @outbound_cidrs_v6 redirect to :15001"],
     {"outbound_cidrs_v4": ["192.168.4.0/22"], "outbound_cidrs_v6": ["fc00::/7"]}),
    ("--exclude-uid-ports 999:80 --exclude-uid-ports 998:1-2;999:81",
     ["meta skuid 998 tcp dport @excluded_ports_of_998 return",
      "meta skuid 999 tcp dport @excluded_ports_of_999 return"], [ALL_OUT],
     {"excluded_ports_of_998": ["1-2"], "excluded_ports_of_999": ["80-81"]}),
    ("--capture-all-dns --redirect-dns", [f"{query} redirect to :15053" for query in QUERY], [ALL_OUT], {}),
    ("--redirect-dns",
     [f"{query} {net} redirect to :15053" for net in ("ip daddr 10.96.0.10/32", "ip6 daddr fd00::a/128")
      for query in QUERY], [ALL_OUT], {}),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "before", "after", "looked_up"), OUTBOUND, ids=[line[0] for line in OUTBOUND])
def test_outbound(flags: str, before: list[str], after: list[str], looked_up: dict[str, list[str]]) -> None:
    made = planned(flags)
    drift = 2
    assert chains(made)["output"][drift:] == [*OUTPUT[drift:], *before, *TO_ITSELF, *after]
    assert sets(made) == {"excluded_inbound_ports": ["15000", "15020-15021"]} | looked_up


def test_several_proxies() -> None:
    made = planned("-u 5,4 -g none")
    assert 'oifname "lo" meta skuid @proxy_uids jump own' in chains(made)["output"]
    assert sets(made)["proxy_uids"] == ["4", "5"]
    assert not any("skgid" in rule for rule in chains(made)["output"])


def test_ipv6_that_is_off_is_judged_by_the_same_rules_with_another_verdict() -> None:
    made = planned("-b 80 -d 22 -q 443 -x fd00::/8 --redirect-dns", ipv6=False)
    by_name = {chain.name: chain for chain in made.chains}
    for captured, refused in (
        ("prerouting", "refused_prerouting"),
        ("own", "refused_own"),
        ("output", "refused_output"),
    ):
        for one, other in zip(by_name[captured].rules, by_name[refused].rules, strict=True):
            assert (one.matches, one.comment) == (other.matches, other.comment)
            if isinstance(one.verdict, Redirect) and "looks for these rules" not in one.comment:
                assert other.verdict == Drop()
            assert not isinstance(other.verdict, Redirect)
    assert by_name["refused_in"].priority < by_name["prerouting"].priority


def test_the_zone_is_that_of_exactly_what_is_redirected() -> None:
    made = planned("--redirect-dns -c eth1 --exclude-uid-ports 999:53")
    by_name = {chain.name: chain for chain in made.chains}
    redirected = [rule.matches for rule in by_name["output"].rules if rule.verdict == Redirect(15053)]
    tracked = [rule.matches for rule in by_name["zones"].rules if isinstance(rule.verdict, Zone)]
    assert tracked[-len(redirected) :] == redirected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-b 80,443", "-b 443,80,80"),
        ("-d 1-5,6", "-d 1-6"),
        ("-x 10.0.0.0/8,fd00::/8", "-x fd00::/8,10.1.0.0/16,10.0.0.0/8"),
        ("-u 1,2", "-u 2,1"),
        ("-c a,b", "-c b,a"),
    ],
)
def test_the_order_in_which_a_list_is_written_does_not_matter(one: str, other: str) -> None:
    assert planned(one) == planned(other)


def test_ports_are_merged_and_networks_collapsed() -> None:
    assert merged([(10, 20), (21, 30), (5, 5), (12, 13)]) == ((5, 5), (10, 30))
    nets = [ipaddress.ip_network(text) for text in ("fd00::/8", "10.0.0.0/9", "10.128.0.0/9")]
    assert list(by_family(nets)) == [(ipaddress.ip_network("10.0.0.0/8"),), (ipaddress.ip_network("fd00::/8"),)]
