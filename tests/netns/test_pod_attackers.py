"""What others in a pod can do to the proxy's identity: the app's user, the proxy's own user, and a root without
capabilities. What they can do is written down here as well as what they can't."""

from __future__ import annotations

import json
import os

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import APP_ID, PROXY_ID
from tests.netns.pod import Pod
from tests.netns.test_no_plaintext import APP, Control, mesh_file

ADMIN_TOKEN = "only-the-operator-has-it"
OTHERS = {"the app": APP_ID, "the proxy's own user": PROXY_ID}

# Each way of looking into a process: what came of it.
LOOK = """
import ctypes, sys
pid = int(sys.argv[1])
for name in ("environ", "maps", "mem"):
    try:
        open(f"/proc/{pid}/{name}", "rb").read(1)
        print(name, "read")
    except OSError as error:
        print(name, "refused" if error.errno in (1, 13) else error)
libc = ctypes.CDLL(None, use_errno=True)
print("ptrace", "attached" if libc.ptrace(16, pid, 0, 0) == 0 else "refused" if ctypes.get_errno() == 1 else "?")
"""


@pytest.fixture
def member(make_pod: MakePod) -> Pod:
    """A pod whose sidecar has a certificate, and asks a token of whoever changes something."""
    pod, control = make_pod("a"), Control(make_pod("control"))
    token = pod.directory / "admin-token"
    token.touch(mode=0o600)
    os.chown(token, PROXY_ID, PROXY_ID)
    token.write_text(ADMIN_TOKEN)
    pod.init()
    pod.web(APP)
    pod.sidecar("--admin-token-file", str(token), *control.flags(pod, "a", mesh_file(pod, make_pod("b"))))
    return pod


@pytest.mark.parametrize("who", OTHERS)
def test_nobody_without_capabilities_looks_into_the_proxy(member: Pod, who: str) -> None:
    said = member.run(str(member.environment.python), "-c", LOOK, str(member.proxy.pid), uid=OTHERS[who])
    assert said.splitlines() == ["environ refused", "maps refused", "mem refused", "ptrace refused"]
    (app,) = [process for process in member.processes if process.name.startswith("web")]
    said = member.run(str(member.environment.python), "-c", LOOK, str(app.pid), uid=APP_ID)
    assert said.splitlines()[:2] == ["environ read", "maps read"], "the same look at a process of one's own sees it"


def test_the_app_has_neither_the_token_nor_the_admin_port(member: Pod) -> None:
    assert "Permission denied" in member.run("cat", str(member.directory / "token"), uid=APP_ID, code=1)
    admin = "http://127.0.0.1:15000"
    assert member.curl("-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", f"{admin}/quitquitquit") == "401"
    shown = json.loads(member.curl(f"{admin}/certs"))  # what only reads is for everyone in the pod
    assert shown["certificates"][0]["spiffe_id"].endswith("/sa/a") and "PRIVATE" not in json.dumps(shown)


def test_whoever_is_the_proxys_user_can_become_the_workload(member: Pod) -> None:
    """Not protected: its token is a file that this user reads, and nothing of this user's is captured."""
    assert member.run("cat", str(member.directory / "token"), uid=PROXY_ID).startswith("sct1.")
    assert member.run("kill", "-0", str(member.proxy.pid), uid=PROXY_ID) == ""
