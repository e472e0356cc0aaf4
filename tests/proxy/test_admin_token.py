"""--admin-token-file: who may change something, if it is told to ask."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from sidecar.admin import routes
from sidecar.admin.tokens import Token, bearer
from tests.proxy.adminport import get, port
from tests.proxy.test_admin_mutations import MUTATIONS, post


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "token"
    made.write_text("sesame\n")
    made.chmod(0o600)
    return made


@pytest.mark.parametrize("path", MUTATIONS)
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 401),
        (b"Authorization: Basic sesame\r\n", 401),
        (b"Authorization: Bearer\r\n", 401),
        (b"Authorization: sesame\r\n", 401),
        (b"Authorization: Bearer sesame\r\nAuthorization: Bearer sesame\r\n", 401),
        (b"Authorization: Bearer sesam\r\n", 403),
        (b"Authorization: Bearer sesame1\r\n", 403),
        (b"Authorization: Bearer SESAME\r\n", 403),
        (b"Authorization: Bearer \xff\xfe\r\n", 403),
        (b"Authorization: Bearer sesame\r\n", 200),
        (b"authorization: bearer  sesame \r\n", 200),
    ],
)
async def test_a_mutation_needs_the_token(
    path: str, sent: bytes, status: int, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with port(token=Token(str(file))) as admin:
        reply = await admin.ask(post(path, sent))
        assert reply.status == status
        assert reply.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
        assert admin.process.quits == (path == "/quitquitquit" and status == 200)
    assert [line for line in caplog.messages if f"POST {path} from 127.0.0.1:40000" in line]
    assert ("refused" in caplog.text) == (status != 200)


async def test_what_only_reads_needs_none(file: Path) -> None:
    async with port(token=Token(str(file))) as admin:
        for path in ("/ready", "/stats", "/requests", "/config_dump"):
            assert (await admin.ask(get(path))).status == 200


async def test_the_method_is_judged_before_the_token_and_the_guard_before_both(file: Path) -> None:
    async with port(token=Token(str(file))) as admin:
        assert (await admin.ask(get("/quitquitquit"))).status == 405
        allowed = post("/quitquitquit", b"Authorization: Bearer sesame\r\n")
        assert (await admin.ask(allowed, "10.0.0.7:1")).status == 403
        assert admin.process.quits == 0


async def test_the_file_is_read_at_each_use(file: Path) -> None:
    async with port(token=Token(str(file))) as admin:
        first, second = (
            post("/healthcheck/ok", b"Authorization: Bearer %b\r\n" % word) for word in (b"sesame", b"new")
        )
        assert [(await admin.ask(each)).status for each in (first, second)] == [200, 403]
        await trio.Path(file).write_text("new")
        assert [(await admin.ask(each)).status for each in (first, second)] == [403, 200]


@pytest.mark.parametrize("content", [None, "", " \n", "x" * 5000])
async def test_a_token_that_can_not_be_read_lets_nobody_in(content: str | None, file: Path) -> None:
    if content is None:
        await trio.Path(file).unlink()
    else:
        await trio.Path(file).write_text(content)
    async with port(token=Token(str(file))) as admin:
        for word in (b"sesame", content.encode() if content and content.strip() else b"x"):
            reply = await admin.ask(post("/quitquitquit", b"Authorization: Bearer %b\r\n" % word))
            assert reply.status == 503
        assert admin.process.quits == 0


async def test_a_pipe_in_place_of_the_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with port(token=Token(str(tmp_path / "pipe"))) as admin:
        reply = await admin.ask(post("/healthcheck/ok", b"Authorization: Bearer sesame\r\n"))
        assert reply.status == 503


@pytest.mark.parametrize(("mode", "words"), [(0o600, ""), (0o640, ""), (0o644, "chmod 600"), (0o602, "chmod 600")])
def test_a_file_that_everybody_can_read_is_odd(mode: int, words: str, file: Path) -> None:
    file.chmod(mode)
    oddity = Token(str(file)).oddity()
    assert (words in oddity) if words else (oddity == "")


def test_so_is_none_and_a_directory(tmp_path: Path) -> None:
    assert "until it can be read" in Token(str(tmp_path / "nothing")).oddity()
    assert "is not a file" in Token(str(tmp_path)).oddity()
    assert Token().oddity() == ""


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ([], None),
        ([b"Bearer x"], b"x"),
        ([b"Bearer x y"], b"x y"),
        ([b"Bearerx"], None),
        ([b"Bearer x", b"Bearer x"], None),
    ],
)
def test_where_a_token_stands(fields: list[bytes], token: bytes | None) -> None:
    assert bearer(fields) == token


def test_nothing_of_the_scrape_port_needs_one() -> None:
    assert not [path for path, route in routes.SCRAPE.items() if route.mutates]
