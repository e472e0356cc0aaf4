"""Routes as operators give them: applied at a running control plane, obeyed by a proxy that joined, shown by commands,
and taken back. Two versions of a service registered with `--labels`."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.control.ctl.running import Ctl, operator
from tests.mesh.versions import message, within
from tests.support.control_process import ControlProcess
from tests.support.process import SidecarProcess
from tests.support.raw import Client
from tests.support.upstream import RecordingUpstream, wait_until

SERVICE = """\
apiVersion: sidecar/v1
kind: Service
metadata: {name: books, namespace: shop}
spec: {serviceAccounts: [books], ports: [{port: 80, name: http}]}
"""
SUBSETS = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: books, namespace: shop}
spec: {host: books, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
"""
CANARY = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: books, namespace: shop}
spec:
  hosts: [books]
  http:
  - name: asked
    match: [{headers: {x-canary: {exact: "true"}}}]
    route: [{destination: {host: books, subset: v2}}]
  - name: rest
    route:
    - {destination: {host: books, subset: v1}, weight: 90}
    - {destination: {host: books, subset: v2}, weight: 10}
"""


def all_to(name: str, subset: str) -> str:
    """A VirtualService for books of this name, which leads to one subset."""
    return (
        f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\n"
        f"spec: {{hosts: [books], http: [{{route: [{{destination: {{host: books, subset: {subset}}}}}]}}]}}\n"
    )


class Shop:
    """A control plane, the service books in two versions, and a caller; all joined."""

    def __init__(self, control: ControlProcess, ctl: Ctl, caller: SidecarProcess, apps: dict[str, RecordingUpstream]):
        self.control, self.ctl, self.caller, self.apps = control, ctl, caller, apps

    def apply(self, *texts: str) -> str:
        return self.ctl.ok("apply", "-f", "-", text="---\n".join(texts))

    def routes(self) -> list[dict[str, Any]]:
        """The rules that the caller obeys."""
        found: list[dict[str, Any]] = json.loads(self.caller.admin_get("/routes")[1])
        return found

    def wait_action(self, *actions: str) -> None:
        """Until the caller obeys rules that do this."""
        wait_until(lambda: [each["action"] for each in self.routes()] == list(actions), f"rules: {actions}", 60.0)

    def ask(self, count: int, *fields: str) -> Counter[str]:
        """So many requests, all of which succeed; how many each version has had."""
        for app in self.apps.values():
            app.take()
        with Client(self.caller.outbound) as client:
            client.send(message("books", "/", *fields) * count)
            assert {reply.status for reply in client.replies((b"GET",) * count, count)} == {200}
        return Counter({name: len(app.take().requests) for name, app in self.apps.items()})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("shop")
    with contextlib.ExitStack() as stack:
        control = stack.enter_context(ControlProcess(3600.0))
        ctl = operator(control, directory)
        ctl.ok("apply", "-f", "-", text=SERVICE)

        def joined(app: RecordingUpstream, account: str, name: str, *flags: str) -> SidecarProcess:
            token = directory / f"{name}.token"
            ctl.ok("token", "create", "-n", "shop", "--service-account", account, "--out", str(token))
            words = ("--control", control.url, "--token-file", str(token), "--namespace", "shop")
            return stack.enter_context(SidecarProcess(app.port, *words, "--service-account", account, *flags))

        apps = {name: stack.enter_context(RecordingUpstream(strict=False, mesh=True)) for name in ("v1", "v2")}
        for name, app in apps.items():
            joined(app, "books", name, "--service", "books", "--labels", f"version={name}")
        caller = joined(apps["v1"], "caller", "caller")

        def known() -> bool:
            dump = json.loads(caller.admin_get("/config_dump")[1])
            return json.dumps(dump).count('"version": "v') == 2

        wait_until(known, "the caller knows both versions", 60.0)
        yield Shop(control, ctl, caller, apps)


@pytest.fixture(autouse=True)
def nothing_is_left(shop: Shop) -> Iterator[None]:
    yield
    for kind in ("VirtualService", "DestinationRule"):
        for name in shop.ctl.ok("get", kind, "-n", "shop", "--no-headers").splitlines():
            shop.ctl.ok("delete", f"{kind}/{name.split()[2]}", "-n", "shop")
    wait_until(lambda: not shop.routes(), "the caller obeys no rule", 60.0)


def test_a_canary_is_applied_shown_and_taken_back(shop: Shop) -> None:
    host = "books.shop.svc.cluster.local"
    assert shop.apply(SUBSETS, CANARY).splitlines() == [
        "DestinationRule shop/books created", "VirtualService shop/books created",
    ]  # fmt: skip
    shop.wait_action(f"{host} v2", f"{host} v1 90, {host} v2 10")
    counts = shop.ask(2000)
    assert counts.total() == 2000 and within(counts["v2"], 2000, 0.1), counts
    assert +shop.ask(20, "X-Canary: true") == Counter({"v2": 20})

    rows = shop.ctl.ok("routes", "--proxy", f"127.0.0.1:{shop.caller.admin}").splitlines()
    assert len(rows) == 3 and "shop/books" in rows[1] and "asked" in rows[1] and "rest" in rows[2], rows
    (asked, _) = shop.ctl("routes", "--proxy", f"127.0.0.1:{shop.caller.admin}", "-o", "json").json["items"]
    assert asked["requests"] == {f"{host}:80 v2": 20}
    (listed,) = shop.ctl.ok("get", "vs", "-n", "shop", "--no-headers").splitlines()
    assert listed.split()[:3] == ["VirtualService", "shop", "books"]
    described = shop.ctl.ok("describe", "virtualservice", "books", "-n", "shop")
    assert "asked" in described and "v1" in described, described
    asked_of = ("--outbound", "--proxy", f"127.0.0.1:{shop.caller.admin}", "--host", "books", "-o", "json")
    assert shop.ctl("explain", *asked_of, "GET", "/").json["rule"] == "rest"
    assert shop.ctl("explain", *asked_of, "-H", "x-canary: true", "GET", "/").json["rule"] == "asked"

    assert shop.ctl.ok("delete", "vs/books", "-n", "shop") == "VirtualService shop/books deleted\n"
    wait_until(lambda: not shop.routes(), "the caller obeys no rule", 60.0)
    counts = shop.ask(200)
    assert counts["v1"] > 50 and counts["v2"] > 50, "both versions, as without a rule"


def test_of_two_for_one_host_the_older_counts_after_all_that_may_happen(shop: Shop) -> None:
    """Its name would come second; it is changed; and the control plane is started again."""
    shop.apply(SUBSETS)
    shop.apply(all_to("zebra", "v1"))
    shop.wait_action("books.shop.svc.cluster.local v1")
    done = shop.ctl("apply", "-f", "-", text=all_to("aardvark", "v2"))
    assert done.code == 0 and "zebra" in done.out + done.err, "a note names the one that counts"
    wait_until(lambda: len(shop.routes()) == 2, "the caller knows both", 60.0)

    def zebra_counts() -> None:
        assert [each["virtual_service"] for each in shop.routes()] == ["shop/zebra", "shop/aardvark"]
        assert +shop.ask(20) == Counter({"v1": 20})

    zebra_counts()
    shop.apply(all_to("zebra", "v1").replace("http: [{", "http: [{timeout: 9s, "))
    wait_until(lambda: "timeout 9s" in shop.routes()[0]["action"], "the change is there", 60.0)
    zebra_counts()
    shop.control.end()
    shop.control.start()
    shop.apply(all_to("zebra", "v1").replace("http: [{", "http: [{timeout: 8s, "))
    wait_until(lambda: "timeout 8s" in shop.routes()[0]["action"], "the change is there", 60.0)
    zebra_counts()
    shop.ctl.ok("delete", "vs/zebra", "-n", "shop")
    wait_until(lambda: len(shop.routes()) == 1, "the caller knows one", 60.0)
    assert +shop.ask(20) == Counter({"v2": 20})
