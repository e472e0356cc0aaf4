"""--config FILE|DIR: which files are read, in which order, and what changes among them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.errors import StartError
from sidecar.feed import config_files
from sidecar.feed.config_files import ConfigFiles, check
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.resources.snapshot import Node
from tests.unit.resources.docs import entry, service

ME = Node(namespace="a", service="x", service_account="x")


class Fed:
    """What is at ``path``, and what it feeds."""

    def __init__(self, path: Path, trust_domain: str = "cluster.local") -> None:
        self.current = SnapshotHolder()
        self.files = ConfigFiles(str(path), ME, trust_domain, self.current, lambda: 1000.0)
        self.files.start()

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.current.snapshot.services]

    async def look(self, times: int = 2) -> None:
        for _ in range(times):
            await self.files.look()


def problems(path: Path) -> list[str]:
    found = check(str(path), ME, "cluster.local")
    assert found.snapshot is None
    return [each.replace(str(path), "DIR") for each in found.problems]


def test_one_file_of_several_documents(tmp_path: Path) -> None:
    path = tmp_path / "any.name"
    path.write_text(service("a/x") + service("a/y") + entry("a/e", "e.example"))
    fed = Fed(path, "example.org")
    assert fed.names == ["x", "y"]
    snapshot = fed.current.snapshot
    assert (snapshot.source, str(snapshot.version), snapshot.trust_domain) == ("file", "0.1", "example.org")
    assert snapshot.by_name("y.a.svc.example.org") is not None
    assert snapshot.entry_by_authority("e.example", 443) is not None


def test_a_service_without_addresses_has_virtual_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("a/x") + service("a/y", more="addresses: [10.9.9.9]"))
    snapshot = Fed(path).current.snapshot
    four, six = snapshot.services["a", "x"].addresses
    assert four.startswith("240.240.") and six.startswith("2001:2::")
    assert snapshot.by_address(four, 80) is snapshot.services["a", "x"].ports[80]
    assert snapshot.services["a", "y"].addresses == ("10.9.9.9",)


async def test_what_is_read_of_a_directory(tmp_path: Path) -> None:
    for name, text in (
        ("b.yml", service("a/y")),
        ("a.yaml", service("a/x")),
        ("c.json", '{"apiVersion": "sidecar/v1", "kind": "Service", "metadata": {"name": "z", "namespace": "a"},'
                   '"spec": {"ports": [{"port": 80}], "serviceAccounts": ["z"]}}'),
        (".hidden.yaml", "no: document"),
        ("README.md", "no: document"),
        ("a.yaml~", "no: document"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d.yaml").write_text("no: document")
    fed = Fed(tmp_path)
    assert fed.names == ["x", "y", "z"]
    (tmp_path / "d.yaml").write_text(service("a/w"))
    await fed.look()
    assert fed.names == ["w", "x", "y", "z"]
    (tmp_path / "a.yaml").rename(tmp_path / "z.yaml")
    await fed.look()
    assert (fed.names, str(fed.current.snapshot.version)) == (["w", "x", "y", "z"], "0.3")
    (tmp_path / "b.yml").unlink()
    await fed.look()
    assert fed.names == ["w", "x", "z"]
    await fed.look()
    assert fed.current.accepted == 4, "what stays as it was is not read again"


def told(fed: Fed) -> list[str]:
    """Where the problems are that keep it from being taken."""
    refusal = fed.current.refusal
    return [] if refusal is None else [each.partition(": ")[0] for each in refusal.problems]


async def test_a_set_is_refused_whole_and_the_last_good_one_stays(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(service("a/x"))
    fed = Fed(tmp_path)
    (tmp_path / "b.yaml").write_text(service("a/y"))
    (tmp_path / "c.yaml").write_text("kind: Service\n")
    await fed.look()
    assert fed.names == ["x"]
    assert told(fed) == [f"{tmp_path}/c.yaml:1"] * 3
    (tmp_path / "c.yaml").unlink()
    await fed.look()
    assert (fed.names, told(fed)) == (["x", "y"], [])


async def test_a_directory_that_is_emptied_or_gone_is_no_mesh_without_services(tmp_path: Path) -> None:
    directory = tmp_path / "documents"
    directory.mkdir()
    (directory / "a.yaml").write_text(service("a/x"))
    fed = Fed(directory)
    (directory / "a.yaml").unlink()
    await fed.look()
    assert (fed.names, fed.current.refused) == (["x"], 1)
    directory.rmdir()
    await fed.look()
    assert (fed.names, fed.current.refused) == (["x"], 2)


async def test_a_directory_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    """``a.yaml -> ..data/a.yaml``, ``..data -> ..1``: a change makes ``..2`` and moves ``..data`` over by rename."""

    def version(number: int, text: str) -> None:
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "a.yaml").write_text(text)
        (tmp_path / "..tmp").symlink_to(f"..{number}")
        (tmp_path / "..tmp").rename(tmp_path / "..data")

    version(1, service("a/x"))
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    fed = Fed(tmp_path)
    version(2, service("a/x") + service("a/y"))
    await fed.look()
    assert fed.names == ["x", "y"]


def test_what_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(tmp_path) == ["DIR: there is no file in it whose name ends with .yaml, .yml, .json"]
    assert problems(tmp_path / "gone") == ["DIR: No such file or directory"]
    (tmp_path / "a.yaml").mkdir()
    os.mkfifo(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").symlink_to("nowhere")
    assert problems(tmp_path) == [
        "DIR/a.yaml: is not a regular file",
        "DIR/b.yaml: is not a regular file",
        "DIR/c.yaml: No such file or directory",
    ]
    with pytest.raises(StartError, match=r"^--config: .*c\.yaml: No such file or directory$"):
        Fed(tmp_path)
    monkeypatch.setattr(config_files, "MAX_FILES", 2)
    assert problems(tmp_path)[0] == "DIR: has more than 2 files; a file may have any number of documents"


def test_files_have_a_bound_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        (tmp_path / name).write_text(service(f"a/{name[0]}"))
    monkeypatch.setattr(config_files, "MAX_BYTES", 200)
    assert problems(tmp_path) == ["DIR: its files are longer than 0 MiB together"]


def test_what_is_odd_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        service("a/x", "y") + "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n"
        "metadata: {name: w, namespace: a}\nspec: {address: 10.9.9.9, labels: {app: vm}}\n"
    )
    Fed(path)
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == [
        f"--config: {path}:10: spec.labels: are selected by no ServiceEntry of its namespace",
        f"--config: {path}: spiffe://cluster.local/ns/a/sa/x, as which this sidecar runs, is not among those who may "
        "serve x",
    ]
