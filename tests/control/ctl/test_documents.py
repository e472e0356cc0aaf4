"""Documents, as operators handle them: applied, refused with their line, shown, compared, taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.control.ctl.running import Ctl
from tests.support.control_process import ControlProcess

WEB = """\
apiVersion: sidecar/v1
kind: Service
metadata:
  name: web
  namespace: shop
  labels: {team: front}
spec:
  serviceAccounts: [web]
  ports:
  - {port: 80, name: http}
"""
STRICT = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec:
  mtls: {mode: STRICT}
"""
WRONG = """\
apiVersion: sidecar/v1
kind: Service
metadata: {name: bad, namespace: shop}
spec:
  ports:
  - {port: 80, name: http}
  - {port: 99999, name: http-more}
  serviceAccount: web
"""


@pytest.fixture
def ns(ctl: Ctl) -> str:
    """A namespace that no other test has documents in."""
    return ctl.home.name.replace("_", "-")[:50].strip("-").lower()


def in_ns(text: str, ns: str) -> str:
    return text.replace("namespace: shop", f"namespace: {ns}")


def test_applied_shown_applied_again(ctl: Ctl, ns: str) -> None:
    text = in_ns(WEB, ns)
    assert ctl.ok("apply", "-f", "-", text=text) == f"Service {ns}/web created\n"
    assert ctl.ok("apply", "-f", "-", text=text) == f"Service {ns}/web unchanged\n"
    shown = ctl.ok("get", "svc", "web", "-n", ns, "-o", "yaml")
    assert yaml.safe_load(shown) == yaml.safe_load(text)
    assert ctl.ok("apply", "-f", "-", text=shown) == f"Service {ns}/web unchanged\n"
    one = ctl.ok("get", "Service/web", "-n", ns, "-o", "json")
    assert ctl.ok("apply", "-f", "-", text=one) == f"Service {ns}/web unchanged\n"


def test_lists(ctl: Ctl, ns: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(in_ns(WEB, ns) + "---\n" + in_ns(WEB, ns).replace("web", "orders"))
    (tmp_path / "b.yml").write_text(STRICT)
    (tmp_path / "note.txt").write_text("not this")
    done = ctl.ok("apply", "-f", str(tmp_path), "-n", ns)
    assert [line.split()[1:] for line in done.splitlines()] == [
        [f"{ns}/web", "created"], [f"{ns}/orders", "created"], [f"{ns}/strict", "created"],
    ]  # fmt: skip
    listed = ctl.ok("get", "svc", "-n", ns).splitlines()
    assert listed[0].split()[:3] == ["KIND", "NAMESPACE", "NAME"]
    assert [line.split()[2] for line in listed[1:]] == ["orders", "web"]
    assert "STRICT" in ctl.ok("get", "pa", "-n", ns, "--no-headers")
    assert len(ctl.ok("get", "-n", ns, "--no-headers").splitlines()) == 3
    assert f" {ns} " in ctl.ok("get", "PeerAuthentications", "-A")
    assert "front" in ctl.ok("get", "services", "-n", ns, "-o", "wide")
    assert ctl.ok("get", "svc", "-n", ns, "-l", "team=back") == ""
    assert len(ctl("get", "-n", ns, "-l", "team=front", "-o", "json").json) == 2
    assert len(list(yaml.safe_load_all(ctl.ok("get", "-n", ns, "-o", "yaml")))) == 3


def test_a_refused_one_is_shown_with_file_and_line_all_of_it(ctl: Ctl, ns: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(in_ns(WEB, ns))
    bad.write_text("# a comment\n" + in_ns(WRONG, ns))
    for words in (["apply"], ["apply", "--dry-run"], ["check"], ["check", *ctl.flags]):
        done = (Ctl(ctl.home) if words == ["check"] else ctl)(*words, "-f", str(good), "-f", str(bad))
        assert (done.code, done.out) == (1, ""), done
        lines = done.err.splitlines()
        assert any(f"{bad}:8: spec.ports[1].port: " in line for line in lines), lines
        assert any(f"{bad}:9: spec.serviceAccount: " in line for line in lines), lines
    assert ctl("get", "svc", "web", "-n", ns).code == 1, "all or nothing"


def test_what_is_no_yaml_is_named_in_every_file(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: b\n  c: d\n")
    (tmp_path / "b.yaml").write_bytes(b"a: 1\nb: \xff\n")
    done = ctl("apply", "-f", str(tmp_path))
    assert done.code == 1
    assert f"{tmp_path}/a.yaml:2: " in done.err and f"{tmp_path}/b.yaml:2: this is no UTF-8" in done.err


def test_a_contradiction_with_what_is_there_names_both(ctl: Ctl, ns: str, tmp_path: Path) -> None:
    """Right by itself, and not with what others wrote: only the control plane can know."""
    first = in_ns(WEB, ns) + "  addresses: [10.9.8.7]\n"
    ctl.ok("apply", "-f", "-", text=first)
    path = tmp_path / "second.yaml"
    path.write_text(first.replace("web", "other"))
    assert Ctl(ctl.home)("check", "-f", str(path)).code == 0
    for words in (["apply"], ["check", *ctl.flags]):
        done = ctl(*words, "-f", str(path))
        assert done.code == 1 and f"{path}:1: Service {ns}/web: spec.addresses[0]: " in done.err, done


def test_dry_run_and_diff_change_nothing(ctl: Ctl, ns: str) -> None:
    text = in_ns(WEB, ns)
    assert "created (dry run)" in ctl.ok("apply", "--dry-run", "-f", "-", text=text)
    done = ctl("diff", "-f", "-", text=text)
    assert done.code == 1 and "+kind: Service" in done.out.splitlines() and "(there is none)" in done.out
    assert ctl("get", "svc", "web", "-n", ns).code == 1
    ctl.ok("apply", "-f", "-", text=text)
    assert ctl("diff", "-f", "-", text=text) == (0, "", "")
    done = ctl("diff", "-f", "-", text=text.replace("80", "8080"))
    assert done.code == 1
    assert "-  - port: 80" in done.out.splitlines() and "+  - port: 8080" in done.out.splitlines()
    assert ctl("diff", "-f", "-", text=in_ns(WRONG, ns)).code == 2


def test_history_and_back(ctl: Ctl, ns: str) -> None:
    text = in_ns(WEB, ns)
    ctl.ok("apply", "-f", "-", text=text)
    ctl.ok("apply", "-f", "-", text=text.replace("80", "8080"))
    ctl.ok("delete", "svc", "web", "-n", ns)
    rows = [line.split()[:2] for line in ctl.ok("history", "svc", "web", "-n", ns, "--no-headers").splitlines()]
    assert rows == [["3", "deleted"], ["2", "written"], ["1", "written"]]
    assert "generation 4 now" in ctl.ok("rollback", "svc", "web", "-n", ns, "--to", "1")
    assert yaml.safe_load(ctl.ok("get", "svc", "web", "-n", ns, "-o", "yaml")) == yaml.safe_load(text)
    assert "is that already" in ctl.ok("rollback", "svc", "web", "-n", ns, "--to", "1")
    assert ctl("rollback", "svc", "web", "-n", ns, "--to", "99").code == 1
    assert ctl("rollback", "svc", "web", "-n", ns, "--to", "3").code == 5
    assert ctl("rollback", "svc", "web", "-n", ns, "--to", "0").code == 2
    whole = ctl("history", "svc", "web", "-n", ns, "-o", "json").json["items"]
    assert whole[0]["author"].startswith("token:") and whole[1]["document"] is None


def test_deleted_by_name_and_by_file(ctl: Ctl, ns: str) -> None:
    text = in_ns(WEB, ns)
    ctl.ok("apply", "-f", "-", text=text)
    assert ctl.ok("delete", "service", "web", "-n", ns) == f"Service {ns}/web deleted\n"
    done = ctl("delete", "service", "web", "-n", ns)
    assert done.code == 1 and f"there is no Service {ns}/web" in done.err
    assert ctl("delete", "service", "web", "-n", ns, "--ignore-not-found").code == 0
    ctl.ok("apply", "-f", "-", text=text)
    ctl.ok("delete", "-f", "-", text=text)
    assert ctl("get", "svc", "web", "-n", ns).code == 1
    assert ctl("delete").code == 2


def test_described(ctl: Ctl, ns: str) -> None:
    text = in_ns(WEB, ns) + "  endpoints: [{address: 10.1.2.3, port: 8080}]\n"
    ctl.ok("apply", "-f", "-", text=text)
    said = ctl.ok("describe", "svc", "web", "-n", ns)
    assert f"Service {ns}/web, generation 1, by token:" in said
    assert "10.1.2.3:8080" in said and "Last changes:" in said
    row = next(line for line in ctl.ok("services", "-n", ns).splitlines() if line.startswith(ns))
    assert row.split()[1:] == ["web", "80/http", "web", "1/1"]
    assert ctl("describe", "svc", "nobody", "-n", ns).code == 1


def test_many_come_page_by_page(ctl: Ctl, ns: str, tmp_path: Path) -> None:
    one = yaml.safe_load(in_ns(WEB, ns))
    path = tmp_path / "many.json"
    many = [{**one, "metadata": {"name": f"s{number}", "namespace": ns}} for number in range(1100)]
    path.write_text("\n---\n".join(map(json.dumps, many)))
    ctl.ok("apply", "-f", str(path))
    assert len(ctl.ok("get", "svc", "-n", ns, "--no-headers").splitlines()) == 1100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["get", "gadget"], "'gadget' is not a kind; there are Service (svc), PeerAuthentication (pa)"),
        (["get", "svc", "a", "b"], "one name at a time"),
        (["get", "svc/a", "b"], "has a name already"),
        (["get", "svc", "web", "-A"], "leave out the name"),
        (["history", "svc"], "write KIND NAME"),
        (["apply"], "-f"),
        (["apply", "-f", "nowhere.yaml"], "-f nowhere.yaml: No such file or directory"),
        (["apply", "-f", "."], "there is no file in it whose name ends with"),
        (["delete", "svc", "web", "-f", "x"], "name either KIND NAME or -f FILE"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], said: str, ctl: Ctl) -> None:
    done = ctl(*words)
    assert (done.code, done.out) == (2, ""), done
    assert said in done.err and len(done.err.splitlines()) == 1


def test_a_reader_may_look_and_not_change(ctl: Ctl, control: ControlProcess, ns: str) -> None:
    token = ctl.home / "reader"
    ctl.ok("token", "create", "--role", "reader", "--out", str(token))
    reader = Ctl(ctl.home, "--server", control.url, "--token-file", str(token))
    ctl.ok("apply", "-f", "-", text=in_ns(WEB, ns))
    assert "web" in reader.ok("get", "svc", "-n", ns)
    done = reader("delete", "svc", "web", "-n", ns)
    assert done.code == 4 and "operator's token" in done.err


def test_notes_of_what_is_odd_refuse_nothing(ctl: Ctl, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(STRICT.replace("spec:", "spec:\n  selector: {matchLabels: {app: nobody}}"))
    for words in (["check"], ["check", *ctl.flags], ["apply", "--dry-run", *ctl.flags]):
        done = Ctl(ctl.home)(*words, "-f", str(path))
        assert done.code == 0 and f"note: {path}:5: spec.selector" in done.err, done


def test_more_than_one_apply_takes_is_told_before_it_is_sent(ctl: Ctl, tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_text("\n---\n".join([WEB + "  x: " + "y" * (1 << 20)] * 9))
    done = ctl("apply", "-f", str(path))
    assert done.code == 2 and "fewer files at a time" in done.err
