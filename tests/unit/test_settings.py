"""Text becomes Settings: every form of a value, where it comes from, and what is refused."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from sidecar import os_limits, settings, value_parsers
from sidecar.addresses import Address
from sidecar.errors import StartError
from sidecar.option_table import OPTIONS
from sidecar.resources.snapshot import Mode, Node

UPSTREAM = {"upstream": "127.0.0.1:8080"}


def load(environ: dict[str, str] | None = None, /, **flags: str) -> settings.Settings:
    return settings.load(UPSTREAM | flags, environ or {})


def test_the_defaults_are_those_of_the_reference() -> None:
    told = load()
    assert told.upstream == Address("127.0.0.1", 8080)
    assert told.inbound == (Address("0.0.0.0", 15006), Address("::", 15006))
    assert told.outbound == (Address("127.0.0.1", 15001), Address("::1", 15001))
    assert told.admin == (Address("127.0.0.1", 15000), Address("::1", 15000))
    assert told.scrape == (Address("0.0.0.0", 15020), Address("::", 15020))
    assert (told.dns, told.dns_host) == ((), ())
    assert (told.protocol, told.access_log, told.access_log_file) == ("auto", "text", "-")
    assert (told.drain_seconds, told.drain_delay) == (30.0, 0.0)
    assert (told.trusted_proxies, told.via, told.max_body) == ((), False, 0)
    assert (told.body_min_rate, told.body_min_window) == (240, 30.0)
    assert (told.max_app_connections, told.max_waiting) == (1024, 1024)
    assert (told.request_head_timeout, told.idle_timeout, told.stream_idle_timeout) == (10.0, 3600.0, 300.0)
    assert (told.connect_timeout, told.pool_idle_timeout) == (5.0, 55.0)
    assert (told.log_level, told.log_format, told.interception) == ("info", "text", "none")
    assert told.max_connections == os_limits.descriptor_limit() // 2
    assert told.memory_limit == os_limits.memory_limit()


def test_dns_is_on_where_look_ups_are_redirected_unless_it_is_said_otherwise() -> None:
    def found(**flags: str) -> tuple[object, str, str]:
        (shown,) = [each for each in settings.in_force(flags, {}) if each.flag == "--dns"]
        return settings.load(flags, {}).dns, shown.text, shown.source

    here = (Address("127.0.0.1", 15053), Address("::1", 15053))
    assert found(interception="redirect") == (here, "15053", "default")
    assert found(**UPSTREAM) == ((), "off", "default")
    assert found(interception="redirect", dns="off") == ((), "off", "flag")
    assert found(**UPSTREAM, dns="15053") == (here, "15053", "flag")


def test_every_field_is_an_option_and_every_option_a_field() -> None:
    made_of_another = {"body_min_window"}
    assert {option.field for option in OPTIONS} == set(settings.Settings.__struct_fields__) - made_of_another


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.field)
def test_every_example_and_every_written_default_is_accepted(option) -> None:
    option.parse(option.example)
    if option.computed is None:
        option.parse(option.default)
    others = {"SIDECAR_DRAIN_SECONDS": "1m", "SIDECAR_CONTROL": "https://control", "SIDECAR_TOKEN_FILE": "token"}
    if option.field == "workload_labels":
        others = {"SIDECAR_CONFIG": "policy.yaml"}  # it is for use without a control plane
    assert load(others | {option.twin: option.example})


JOINED = {"control": "https://control", "token_file": "token"}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://control.internal", "https://control.internal:15012"), ("https://c:1/", "https://c:1"),
        ("http://localhost", "http://localhost:15010"), ("http://[::1]", "http://[::1]:15010"),
        ("http://127.0.0.9:80", "http://127.0.0.9:80"), ("https://[2001:db8::1]:9", "https://[2001:db8::1]:9"),
    ],
)  # fmt: skip
def test_where_the_control_plane_is(text: str, url: str) -> None:
    control = load(**JOINED | {"control": text}).control
    assert control is not None and str(control) == url
    assert control.authority == url.partition("://")[2]  # also in a request's Host


@pytest.mark.parametrize(
    "text",
    [
        "http://control", "http://10.0.0.1:15010", "http://0.0.0.0", "http://localhost.evil", "control:15012",
        "https://", "https://a/path", "https://u@a", "https://a?q", "https://a:0", "https://a:x", "ftp://a", "HTTP://a",
        "https://::1",
    ],
)  # fmt: skip
def test_where_the_control_plane_can_not_be(text: str) -> None:
    with pytest.raises(StartError, match=r"^--control: "):
        load(**JOINED | {"control": text})


@pytest.mark.parametrize("field", ["token_file", "control_ca", "identity_dir", "mesh", "mtls"])
def test_what_is_about_an_identity_wants_a_control_plane(field: str) -> None:
    with pytest.raises(StartError, match=rf"^--{field.replace('_', '-')}: means nothing .* add --control URL"):
        load(**{field: "strict"})


def test_one_thing_says_what_the_mesh_is() -> None:
    assert load(**JOINED, config="documents").config == "documents"
    with pytest.raises(StartError, match=r"^--config: and --mesh can't both say what the mesh is; leave one out$"):
        load(**JOINED, mesh="mesh.yaml", config="documents")
    told = load(**JOINED, control_id="spiffe://example.org/ns/a/sa/b")
    assert (load(**JOINED).trust_domain, told.trust_domain) == ("cluster.local", "example.org")


def test_documents_are_obeyed_without_a_control_plane_and_then_selectors_look_at_the_flag() -> None:
    told = load(config="policy.yaml", workload_labels="app=web,version=v2")
    assert (told.config, told.alone) == ("policy.yaml", {"app": "web", "version": "v2"})
    assert load(config="policy.yaml").alone == {}
    assert load(**JOINED, config="policy.yaml").alone is None
    with pytest.raises(StartError, match=r"^--workload-labels: is for use without --control, .*; leave it out$"):
        load(**JOINED, config="policy.yaml", workload_labels="app=web")
    with pytest.raises(StartError, match=r"^--workload-labels: means nothing without documents; add --config PATH$"):
        load(workload_labels="app=web")


def test_a_control_plane_wants_a_token_and_roots_are_for_tls() -> None:
    with pytest.raises(StartError, match="--control: needs --token-file"):
        load(control="https://control")
    with pytest.raises(StartError, match="--control-ca: "):
        load(control="http://localhost", token_file="token", control_ca="root.pem")


def test_whom_a_snapshot_is_made_for() -> None:
    assert load().me == Node("default", "", "default", None)
    told = load(**JOINED, namespace="shop", service="web", service_account="app", mtls="permissive")
    assert told.me == Node("shop", "web", "app", Mode.PERMISSIVE)
    assert load(**JOINED, mtls="strict").me.mtls is Mode.STRICT
    (shown,) = [each for each in settings.in_force({}, {}) if each.flag == "--mtls"]
    assert (shown.text, shown.source) == ("strict, or as documents say", "default")


def test_a_twin_says_the_same_as_its_flag_and_the_flag_wins() -> None:
    assert load({"SIDECAR_PROTOCOL": "tcp"}) == load(protocol="tcp")
    assert load({"SIDECAR_PROTOCOL": "tcp"}, protocol="http").protocol == "http"


def test_a_wrong_twin_under_a_right_flag_does_no_harm() -> None:
    assert load({"SIDECAR_PROTOCOL": "gopher"}, protocol="http").protocol == "http"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("10s", 10), ("250ms", 0.25), ("5m", 300), ("1h", 3600), ("0", 0), ("1.5", 1.5), ("0.5h", 1800)]
    + [("1h2m", 3720), ("1m1.5s", 61.5), ("1s250ms", 1.25)],
)
def test_durations(text: str, seconds: float) -> None:
    assert value_parsers.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", " ", "10 s", "-1", "+1", "nan", "inf", "1e3", "1_000", "١", "10S", "10d", "ms", ".", "1.", "10s ", "10\n"]
    + ["1h2", "1h 2m", "1h-2m", "1s" * 9],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        value_parsers.duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("64KiB", 65536), ("64kib", 65536), ("1MiB", 1 << 20), ("512Mi", 1 << 29), ("10MB", 10_000_000)]
    + [("2GiB", 2 << 30), ("7B", 7), ("1kB", 1000), ("1TiB", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert value_parsers.size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0MiB", "-1", "1.5MiB", "1_0", "٣", "1XB", "MiB", "64 KiB", "nan", "64\u212aiB"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        value_parsers.size(text)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("15006", ["0.0.0.0:15006", "[::]:15006"]),
        ("0", ["0.0.0.0:0", "[::]:0"]),
        ("127.0.0.1:0", ["127.0.0.1:0"]),
        ("[::1]:9", ["[::1]:9"]),
        ("[0:0::1]:9", ["[::1]:9"]),
        ("[::ffff:127.0.0.1]:9", ["127.0.0.1:9"]),
        ("localhost:9", ["127.0.0.1:9", "[::1]:9"]),
    ],
)
def test_addresses_to_listen_on(text: str, hosts: list[str]) -> None:
    assert [str(address) for address in load(inbound=text).inbound] == hosts


def test_off_is_for_admin_and_scrape() -> None:
    told = load(admin="off", scrape="off")
    assert (told.admin, told.scrape) == ((), ())
    for field in ("inbound", "outbound"):
        with pytest.raises(StartError, match=f"--{field}: 'off' is not a port"):
            load(**{field: "off"})


@pytest.mark.parametrize("field", ["outbound", "admin"])
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.1"])
def test_what_serves_local_peers_listens_on_loopback(field: str, host: str) -> None:
    with pytest.raises(StartError, match=f"--{field}: .* is not a loopback address"):
        load(**{field: f"{host}:1500"})


def test_trusted_proxies_are_networks() -> None:
    told = load(trusted_proxies="10.0.0.0/8, 192.0.2.7,fd00::/8,::ffff:198.51.100.0/120")
    assert told.trusted_proxies == tuple(map(ip_network, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "198.51.100.0/24"]))


def test_the_rate_of_a_body() -> None:
    told = load(body_min_rate="1KiB/500ms")
    assert (told.body_min_rate, told.body_min_window) == (1024, 0.5)


@pytest.mark.parametrize(("text", "via"), [("on", True), ("true", True), ("off", False), ("false", False)])
def test_via(text: str, via: bool) -> None:
    assert load(via=text).via is via


def test_none_is_no_limit() -> None:
    told = load(max_body="none", memory_limit="none")
    assert (told.max_body, told.memory_limit) == (0, 0)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"upstream": "127.0.0.1:15006"}, "--upstream: 127.0.0.1:15006 is this sidecar's own --inbound"),
        ({"upstream": "localhost:15006"}, "--upstream: localhost:15006 is this sidecar's own --inbound"),
        ({"upstream": "[::1]:15000"}, r"--upstream: \[::1\]:15000 is this sidecar's own --admin"),
        ({"outbound": "15006"}, "--outbound: 127.0.0.1:15006 is taken by --inbound"),
        ({"inbound": "10.0.0.1:15020"}, "--scrape: 0.0.0.0:15020 is taken by --inbound"),
        ({"drain_delay": "31"}, "--drain-delay: 31 s is longer than the whole drain"),
        (
            {"interception": "redirect"},
            "--interception: redirect serves what was captured where that was addressed to; leave",
        ),
    ],
)
def test_values_that_are_wrong_together(flags: dict[str, str], problem: str) -> None:
    with pytest.raises(StartError, match=problem):
        load(**flags)


def test_values_that_are_right_together() -> None:
    assert load(upstream="10.0.0.9:15006").upstream == Address("10.0.0.9", 15006)  # another machine's
    assert load(inbound="127.0.0.1:9", scrape="127.0.0.2:9").scrape == (Address("127.0.0.2", 9),)
    assert load(inbound="0", outbound="0", admin="0", scrape="0")
    assert load(drain_delay="30").drain_delay == 30


def test_a_typo_in_a_twin_is_told() -> None:
    environ = {"SIDECAR_ACESS_LOG": "json", "SIDECAR_XYZZY_PLUGH": "1", "SIDECAR_VIA": "on", "PATH": "/bin"}
    assert settings.unknown_twins(environ) == [
        "the environment's SIDECAR_ACESS_LOG is not a setting and has no effect; did you mean SIDECAR_ACCESS_LOG?",
        "the environment's SIDECAR_XYZZY_PLUGH is not a setting and has no effect",
    ]


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/pod/app\n", {"pod/app/memory.max": "max\n", "pod/memory.max": "1000\n"}, 1000),
        ("0::/pod/app\n", {"pod/app/memory.max": "500\n", "pod/memory.max": "1000\n"}, 500),
        ("0::/\n", {"memory.max": "700\n"}, 700),
        ("0::/\n", {}, 0),
        ("4:cpu,memory:/host/pod\n0::/\n", {"memory/memory.limit_in_bytes": "800\n"}, 800),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0),
        ("", {}, 0),
    ],
)
def test_the_memory_limit_of_the_cgroup(tmp_path: Path, membership: str, files: dict[str, str], limit: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "cgroup").write_text(membership)
    assert os_limits.memory_limit(str(tmp_path / "cgroup"), str(tmp_path)) == limit
