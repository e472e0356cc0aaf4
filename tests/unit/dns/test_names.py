"""The table of names: keys, families, search domains."""

from __future__ import annotations

import dns.message
import pytest

from sidecar.dns.messages import read_query
from sidecar.dns.names import Known, Names, key_of, names_of
from sidecar.dns_host import DnsHost, parse_dns_hosts


def table(**names: list[str]) -> Names:
    made = Names()
    for name, addresses in names.items():
        made.put(name.replace("_", "."), addresses)
    return made


def addresses(known: Known | None) -> list[str] | None:
    return None if known is None else [record.to_text() for record in (*known.a, *known.aaaa)]


@pytest.mark.parametrize("asked", ["web.shop", "web.shop.", "WEB.Shop", "Web.shop."])
def test_any_case_with_and_without_the_final_dot(asked: str) -> None:
    for put in ("web.shop", "WEB.SHOP."):
        names = Names()
        names.put(put, ["10.0.0.1"])
        assert addresses(names.look_up(key_of(asked))) == ["10.0.0.1"]


def test_the_key_of_a_question_is_that_of_its_name() -> None:
    query = read_query(dns.message.make_query("WEB.shop", "A").to_wire())
    assert query.key == key_of("web.Shop.")


def test_families_are_kept_apart_and_mapped_addresses_are_ipv4() -> None:
    known = table(web=["10.0.0.1", "fd00::1", "::ffff:10.0.0.2"]).look_up(key_of("web"))
    assert known is not None
    assert [each.to_text() for each in known.a] == ["10.0.0.1", "10.0.0.2"]
    assert [each.to_text() for each in known.aaaa] == ["fd00::1"]


def test_what_is_put_again_is_replaced_and_what_is_removed_is_gone() -> None:
    names = table(web=["10.0.0.1"])
    names.put("WEB.", ["10.0.0.2"])
    assert (len(names), addresses(names.look_up(key_of("web")))) == (1, ["10.0.0.2"])
    names.remove("Web")
    names.remove("Web")
    assert (len(names), names.look_up(key_of("web"))) == (0, None)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("web", True),
        ("web.default.svc.test", True),
        ("web.svc.test", True),
        ("web.test", False),
        ("other.default.svc.test", False),
        ("default.svc.test", False),
        ("web.web.svc.test", False),
        ("awebdefault.svc.test", False),
    ],
)
def test_under_the_search_domains(asked: str, found: bool) -> None:
    search = (key_of("default.svc.test"), key_of("SVC.test"))
    assert (table(web=["10.0.0.1"]).look_up(key_of(asked), search) is not None) == found


def test_a_search_domain_is_cut_off_between_labels_only() -> None:
    names = table(a=["10.0.0.1"])
    assert names.look_up(key_of("a.test"), (key_of("test"),)) is not None
    assert names.look_up(key_of(r"a\004test"), (key_of("test"),)) is None


def test_a_name_itself_goes_before_a_shorter_one_under_a_search_domain() -> None:
    names = table(web=["10.0.0.1"], web_test=["10.0.0.2"])
    assert addresses(names.look_up(key_of("web.test"), (key_of("test"),))) == ["10.0.0.2"]


@pytest.mark.parametrize(
    ("name", "given"), [("web", []), ("web", ["ten"]), ("web..a", ["::1"]), ("a" * 64, ["::1"]), ("web", ["::1", ""])]
)
def test_what_can_not_be_put(name: str, given: list[str]) -> None:
    names = Names()
    with pytest.raises(ValueError, match="name"):
        names.put(name, given)
    assert len(names) == 0


def test_the_addresses_of_one_flag_and_of_several_add_up() -> None:
    hosts = parse_dns_hosts("web=10.0.0.1,WEB.=10.0.0.2, web=[FD00::1] ,web=10.0.0.1,db=10.0.0.9")
    assert hosts == (
        DnsHost("web", "10.0.0.1"),
        DnsHost("web", "10.0.0.2"),
        DnsHost("web", "fd00::1"),
        DnsHost("db", "10.0.0.9"),
    )
    assert [str(host) for host in hosts][2] == "web=fd00::1"
    names = names_of(hosts)
    assert addresses(names.look_up(key_of("web"))) == ["10.0.0.1", "10.0.0.2", "fd00::1"]
    assert addresses(names.look_up(key_of("db"))) == ["10.0.0.9"]
    assert parse_dns_hosts("none") == ()


@pytest.mark.parametrize("text", ["web", "web=", "=::1", "web=a", "-a=::1", "a.-b=::1", "10.0.0.1=::1", "a=::1%lo"])
def test_what_is_no_name_with_an_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a name with an address|is not an IP address|is an address"):
        parse_dns_hosts(text)


def test_who_knows_more_is_asked_for_each_name_below_the_search_domains_too() -> None:
    asked: list[str] = []
    known = {"web.shop": ["240.240.0.7", "2001:2::7"], "quiet.shop": []}

    def more(name: str) -> list[str] | None:
        asked.append(name)
        return known.get(name)

    names = Names(more)
    names.put("db.shop", ["10.0.0.1"])
    assert addresses(names.look_up(key_of("WEB.Shop."))) == ["240.240.0.7", "2001:2::7"]
    assert addresses(names.look_up(key_of("web.shop.test"), (key_of("test"),))) == ["240.240.0.7", "2001:2::7"]
    assert addresses(names.look_up(key_of("quiet.shop"))) == [], "a name that is ours, and has nothing"
    assert addresses(names.look_up(key_of("db.shop"))) == ["10.0.0.1"]
    assert names.look_up(key_of("other.test"), (key_of("test"),)) is None
    assert asked == ["web.shop", "web.shop.test", "web.shop", "quiet.shop", "other.test", "other"]


@pytest.mark.parametrize("name", [".", r"web\.shop", r"web\004shop", r"w\233b.shop", r"web\032.shop\127"])
def test_names_that_nobody_is_asked_for(name: str) -> None:
    asked: list[str] = []
    assert Names(asked.append).look_up(key_of(name), (key_of("shop"),)) is None
    assert [each for each in asked if not each.isprintable() or each.count(".") > 1] == []
    assert "web.shop" not in asked
