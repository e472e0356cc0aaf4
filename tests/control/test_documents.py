"""The calls of documents, each as an operator makes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from control import rate_limits
from tests.control.documents import JSON, YAML, apply, as_yaml, get, path_of, put, results, service, version
from tests.control.plane import running

WEB = service()
CARD = service("card", addresses=["10.0.0.9"])


async def test_a_document_is_written_read_changed_and_taken_away(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        assert (await get(plane, path_of(WEB))).status == 404
        made = await put(plane, WEB)
        assert (made.status, made.headers["etag"]) == (201, '"1"')
        assert made.json == {
            "kind": "Service",
            "namespace": "shop",
            "name": "web",
            "result": "created",
            "generation": 1,
        }
        found = await get(plane, path_of(WEB))
        assert (found.status, found.headers["etag"]) == (200, '"1"')
        assert found.json["document"] == WEB and found.json["generation"] == 1
        assert found.json["author"].startswith("token:") and found.json["time"].endswith("Z")
        changed = await put(plane, service(port=81))
        assert (changed.status, changed.json["result"], changed.headers["etag"]) == (200, "configured", '"2"')
        gone = await plane.ask("DELETE", path_of(WEB), plane.operator)
        assert (gone.status, gone.json["result"], gone.json["generation"]) == (200, "deleted", 3)
        assert (await get(plane, path_of(WEB))).status == 404
        assert (await plane.ask("DELETE", path_of(WEB), plane.operator)).status == 404
        subjects = [line["subject"] for line in plane.audit() if line["what"] == "resources.put"]
        assert subjects == ["Service shop/web created generation 1", "Service shop/web configured generation 2"]


async def test_what_changes_nothing_makes_no_generation(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane, WEB)
        before = await version(plane)
        again = await put(plane, WEB)
        assert (again.status, again.json["result"], again.headers["etag"]) == (200, "unchanged", '"1"')
        assert results(await apply(plane, WEB)) == [("web", "unchanged", 1)]
        assert await version(plane) == before
        assert len((await get(plane, f"{path_of(WEB)}/history")).json["items"]) == 1


async def test_a_change_that_is_meant_for_another_state_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        assert (await put(plane, WEB, if_match='"1"')).status == 412
        assert (await put(plane, WEB, if_none_match="*")).status == 201
        refused = await put(plane, service(port=81), if_none_match="*")
        assert (refused.status, refused.json["type"]) == (412, "urn:sidecar:problem:precondition")
        assert (await put(plane, service(port=81), if_match='"1"')).status == 200
        assert (await put(plane, service(port=82), if_match='"1"')).status == 412
        for etag, status in (('"1"', 412), ('"2"', 200)):
            reply = await plane.ask("DELETE", path_of(WEB), plane.operator, headers={"if-match": etag})
            assert reply.status == status


async def test_a_reader_that_has_it_already_is_told_so(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane, WEB)
        same = await get(plane, path_of(WEB), if_none_match='"7", "1"')
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", '"1"')
        assert (await get(plane, path_of(WEB), if_none_match='"7"')).status == 200


async def test_an_apply_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        body = as_yaml(WEB, CARD)
        reply = await plane.ask("POST", "/v1/resources:apply", plane.operator, body, headers=YAML)
        assert reply.status == 200, reply
        assert results(reply) == [("web", "created", 1), ("card", "created", 1)]
        assert reply.json["version"] == await version(plane) and reply.json["dryRun"] is False
        mixed = await apply(plane, service(port=81), CARD, service("new"))
        assert results(mixed) == [("web", "configured", 2), ("card", "unchanged", 1), ("new", "created", 1)]
        before = await version(plane)
        bad = as_yaml(service(port=90), service("bad", port=0)).replace(b'"port": 0', b'"port":\n 0')
        refused = await plane.ask("POST", "/v1/resources:apply", plane.operator, bad, headers=YAML)
        assert (refused.status, refused.json["type"]) == (422, "urn:sidecar:problem:documents")
        (problem,) = refused.json["problems"]
        assert (problem["document"], problem["path"]) == ("Service shop/bad", "spec.ports[0].port")
        line = bad.splitlines()[problem["line"] - 1]
        assert b'"port":' in line
        assert await version(plane) == before
        assert (await get(plane, path_of(WEB))).json["document"]["spec"]["ports"] == [{"port": 81}]


async def test_documents_that_contradict_what_is_there_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        assert (await put(plane, CARD)).status == 201
        thief = service("thief", addresses=["10.0.0.9"])
        refused = await put(plane, thief)
        assert refused.status == 422
        (problem,) = refused.json["problems"]
        assert problem["document"] == "Service shop/thief" and "10.0.0.9" in problem["why"]
        assert (await get(plane, path_of(thief))).status == 404
        # Together with what makes room for it, it holds.
        moved = service("card", addresses=["10.0.0.10"])
        assert results(await apply(plane, moved, thief)) == [("card", "configured", 2), ("thief", "created", 1)]


async def test_a_dry_run_and_a_check_say_what_would_be_and_change_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        before = await version(plane)
        dry = await apply(plane, WEB, query="?dryRun=true")
        assert results(dry) == [("web", "created", 1)] and dry.json["dryRun"] is True
        good = await plane.ask("POST", "/v1/resources:check", plane.operator, [WEB], headers=JSON)
        assert (good.status, good.json) == (200, {"problems": [], "notes": []})
        bad = await plane.ask("POST", "/v1/resources:check", plane.operator, [service(port=0)], headers=JSON)
        assert bad.status == 200 and [each["path"] for each in bad.json["problems"]] == ["spec.ports[0].port"]
        broken = await plane.ask("POST", "/v1/resources:check", plane.operator, b"a: [\n", headers=YAML)
        assert broken.status == 200 and broken.json["problems"][0]["line"] == 2
        odd = service() | {
            "kind": "PeerAuthentication",
            "apiVersion": "security.istio.io/v1",
            "spec": {"selector": {"matchLabels": {"app": "nobody"}}, "mtls": {"mode": "STRICT"}},
        }
        noted = await plane.ask("POST", "/v1/resources:check", plane.operator, [odd], headers=JSON)
        assert noted.json["problems"] == [] and noted.json["notes"][0]["path"] == "spec.selector"
        assert await version(plane) == before
        for query in ("?dryRun=maybe", "?dryrun=true"):
            assert (await apply(plane, WEB, query=query)).status == 400
        assert await version(plane) == before


async def test_a_service_can_be_written_by_its_spec_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        body = WEB["spec"] | {"labels": {"app": "web"}}
        made = await plane.ask("PUT", "/v1/services/shop/web", plane.operator, body)
        assert (made.status, made.headers["etag"]) == (201, '"1"')
        found = (await get(plane, path_of(WEB))).json["document"]
        assert found["spec"] == WEB["spec"] and found["metadata"]["labels"] == {"app": "web"}
        wrong = await plane.ask("PUT", "/v1/services/shop/web", plane.operator, {"ports": [{"port": 0}]})
        assert wrong.status == 422
        assert {each.get("path", "") for each in wrong.json["problems"]} >= {"ports[0].port"}
        late = await plane.ask("DELETE", "/v1/services/shop/web", plane.operator, headers={"if-match": '"9"'})
        assert late.status == 412
        assert (await plane.ask("DELETE", "/v1/services/shop/web", plane.operator)).status == 200
        assert (await get(plane, path_of(WEB))).status == 404


@pytest.mark.parametrize(
    ("body", "headers", "status", "word"),
    [
        (b"", YAML, 400, "nothing"),
        (b"{", JSON, 400, "JSON"),
        (b"{}", {"content-type": "text/plain"}, 415, "application/yaml"),
        (as_yaml(WEB, CARD), YAML, 422, "takes one"),
        (as_yaml(CARD), YAML, 422, "the path says Service shop/web"),
        (as_yaml(service(namespace="bank")), YAML, 422, "the path says Service shop/web"),
        (as_yaml(WEB).replace(b"Service", b"Lantern", 1), YAML, 422, "Lantern"),
        (b"x" * (rate_limits.DOCUMENT_BODY_BYTES + 1), YAML, 413, ""),
    ],
)
async def test_what_is_no_such_document_is_refused(
    tmp_path: Path, body: bytes, headers: dict[str, str], status: int, word: str
) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("PUT", path_of(WEB), plane.operator, body, headers=headers)
        assert reply.status == status and word in reply.json.get("detail", "")
        assert reply.json["request_id"] == reply.headers["x-request-id"]


async def test_documents_are_kept_by_the_next_process_with_their_history(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane, WEB)
        await put(plane, service(port=81))
        await put(plane, CARD)
        await plane.ask("DELETE", path_of(CARD), plane.operator)
    async with running(tmp_path) as plane:
        found = await get(plane, path_of(WEB))
        assert found.headers["etag"] == '"2"' and found.json["document"] == service(port=81)
        assert (await put(plane, CARD)).json["generation"] == 3
        assert {each.key[2] for each in plane.control.documents.mesh.documents()} == {"web", "card"}
