"""Tokens, roots and what is taken back, by the command."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs import jointoken
from tests.control.ctl.running import Ctl, operator
from tests.support.control_process import ControlProcess, spiffe_id


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Ctl]:
    """The operator of a control plane of its own: its root is replaced."""
    with ControlProcess(3600.0) as control:
        yield operator(control, tmp_path)


def test_a_token_is_made_listed_and_made_void(ctl: Ctl) -> None:
    text = ctl.ok("token", "create", "-n", "shop", "--service-account", "billing", "--ttl", "1h").strip()
    made = jointoken.parse(text)
    listed = ctl.ok("token", "list")
    (line,) = (line for line in listed.splitlines() if line.startswith(made.id))
    assert line.split()[1:4] == ["workload", "shop", "billing"]
    assert listed.splitlines()[0].split()[0] == "ID" and text not in listed
    assert ctl.ok("token", "list", "--no-headers").splitlines()[0].split()[0] != "ID"
    assert {each["id"] for each in ctl("token", "list", "-o", "json").json["tokens"]} >= {made.id}
    ctl.ok("token", "revoke", made.id)
    assert made.id not in ctl.ok("token", "list")
    done = ctl("token", "revoke", made.id)
    assert done.code == 1 and "no token with this id" in done.err


def test_a_token_goes_to_a_file_for_this_user_alone(ctl: Ctl, tmp_path: Path) -> None:
    out = tmp_path / "token"
    done = ctl("token", "create", "--service-account", "web", "--single-use", "--out", str(out))
    assert done.code == 0 and done.out == ""
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert jointoken.parse(out.read_text().strip()).id in done.err
    shown = next(each for each in ctl("token", "list", "-o", "json").json["tokens"] if each["id"] in done.err)
    assert shown["namespace"] == "default" and shown["singleUse"]


def test_what_can_not_be_made_is_told(ctl: Ctl) -> None:
    done = ctl("token", "create", "--ttl", "forever", "--service-account", "web")
    assert done.code == 1 and "forever" in done.err
    assert ctl("token", "create").code == 1
    assert ctl("token", "create", "--role", "king").code == 2


def test_an_identity_is_taken_back_and_let_go_again(ctl: Ctl) -> None:
    who = spiffe_id("billing")
    done = ctl("revoke", who)
    assert done.code == 0 and f"--lift {who}" in done.err
    assert who in ctl.ok("revocations")
    ctl.ok("revoke", "--lift", who)
    assert who not in ctl("revocations").out
    done = ctl("revoke", "--lift", who)
    assert done.code == 1 and "is not revoked" in done.err


def test_a_certificate_is_taken_back_by_its_number(ctl: Ctl) -> None:
    ctl.ok("revoke", "1F:3A")
    assert "1f3a" in ctl.ok("revocations", "--no-headers")
    done = ctl("revoke", "--lift", "1f3a")
    assert done.code == 5 and "stays so" in done.err
    assert ctl("revoke", "xyz").code == 1
    assert ctl("revoke", "spiffe://elsewhere/ns/a/sa/b").code == 1


def test_the_root_is_replaced_at_once_where_nobody_has_to_know(fresh: Ctl) -> None:
    before = fresh("ca", "status", "-o", "json").json["roots"][0]["id"]
    done = fresh("ca", "rotate", "--wait=issuing")
    assert done.code == 0 and " issues" in done.err, done
    after = {root["id"]: root["phase"] for root in fresh("ca", "status", "-o", "json").json["roots"]}
    assert after.pop(before) == "retiring"
    assert list(after.values()) == ["issuing"]
    assert "retiring" in fresh.ok("ca", "status")


def test_a_rotation_that_makes_tokens_void_wants_a_yes(fresh: Ctl) -> None:
    made = jointoken.parse(fresh.ok("token", "create", "--service-account", "web").strip())
    done = fresh("ca", "rotate")
    assert done.code == 5 and made.id in done.err and "--yes" in done.err
    assert len(fresh("ca", "status", "-o", "json").json["roots"]) == 1
    assert fresh("ca", "rotate", "--yes").code == 0
    assert made.id not in fresh("token", "list", "-o", "json").out


def test_who_makes_his_own_token_void_is_told(fresh: Ctl, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    fresh.ok("token", "create", "--role", "operator", "--out", str(mine))
    me = Ctl(tmp_path, "--server", fresh.flags[1], "--token-file", str(mine))
    assert "(the one that you show)" in me("ca", "rotate").err
    done = me("ca", "rotate", "--yes", "--wait")
    assert done.code == 4 and "log in" in done.err
    fresh.ok("ca", "status")


def test_who_logged_in_still_knows_the_control_plane_afterwards(fresh: Ctl, tmp_path: Path) -> None:
    fresh.ok("login")
    me = Ctl(tmp_path)
    done = me("ca", "rotate", "--wait=issuing")
    assert done.code == 0, done
    assert len(me("ca", "status", "-o", "json").json["roots"]) == 2
    kept = jointoken.parse((tmp_path / ".config" / "sidecarctl" / "tokens" / "default").read_text().strip())
    assert len(kept.pins) == 1, "the old root proves nothing any more"


def test_waiting_has_an_end(fresh: Ctl) -> None:
    done = fresh("ca", "rotate", "--wait", "--timeout", "1s")
    assert done.code == 3 and "goes on by itself" in done.err
    assert fresh("ca", "rotate", "--timeout", "never").code == 2
