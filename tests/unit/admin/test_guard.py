"""Who may use the admin API: hosts, tokens, and pages of other sites."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from quicedge.admin.guard import Guard, TokenError, read_token

TOKEN = "correct-horse-battery"


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Client:
    """Asks a guarded application, without a socket."""

    def __init__(self, *, token: str | None = None, hosts: tuple[str, ...] | None = ()) -> None:
        async def answer(request: Request) -> PlainTextResponse:
            return PlainTextResponse("done")

        app = Starlette(
            routes=[Route("/api", answer, methods=["GET", "POST"]), Route("/healthz", answer)]
        )
        self._app = Guard(app, hosts=hosts, token=token)

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        given = {"host": "localhost:4480", **headers}
        scope = {
            "type": "http", "method": method, "path": path, "query_string": b"", "root_path": "",
            "server": ("192.0.2.1", 4480),
            "headers": [(k.replace("_", "-").encode(), v.encode("latin-1"))
                        for k, v in given.items()],
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], dict(sent[0]["headers"]), body)


async def test_a_page_of_another_site_cannot_act() -> None:
    here = Client()
    json = "application/json"
    assert (await here.ask("/api", "POST", content_type=json)).status == 200
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""):
        assert (await here.ask("/api", "POST", content_type=kind)).status == 415
    foreign = "http://attacker.example"
    assert (await here.ask("/api", "POST", content_type=json, origin=foreign)).status == 403
    own = "http://localhost:4480"
    assert (await here.ask("/api", "POST", content_type=json, origin=own)).status == 200


async def test_the_address_that_a_caller_connected_to_is_ours() -> None:
    """Probes and scrapers of Kubernetes name pods by address, which no name can stand for."""
    here = Client()
    assert (await here.ask("/api", host="192.0.2.1:4480")).status == 200
    for other in ("192.0.2.2:4480", "192.0.2.1.nip.example:4480", "[2001:db8::1]:4480"):
        assert (await here.ask("/api", host=other)).status == 403


async def test_rebound_names_are_refused_and_listed_ones_are_not() -> None:
    rebound = "attacker.example:4480"
    assert (await Client().ask("/api", host=rebound)).status == 403
    listed = Client(hosts=("edge.example",))
    assert (await listed.ask("/api", host="Edge.example:4480")).status == 200
    assert (await listed.ask("/api", host=rebound)).status == 403
    assert (await Client(hosts=None).ask("/api", host=rebound)).status == 200


async def test_a_listed_ipv6_address_is_accepted_in_brackets() -> None:
    listed = Client(hosts=("2001:db8::1",))
    for host in ("[2001:db8::1]", "[2001:DB8::1]:4480"):
        assert (await listed.ask("/api", host=host)).status == 200
    for host in ("2001:db8::1", "[2001:db8::2]:4480", "[2001:db8::1]x"):
        assert (await listed.ask("/api", host=host)).status == 403


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"]
)
async def test_without_the_token_nothing_is_told(value: str) -> None:
    answer = await Client(token=TOKEN).ask("/api", authorization=value)
    assert answer.status == 401
    assert answer.headers[b"www-authenticate"] == b"Bearer"
    assert TOKEN.encode() not in answer.body


async def test_with_the_token_all_is_open_and_health_always_is() -> None:
    here = Client(token=TOKEN)
    assert (await here.ask("/api", authorization=f"bearer {TOKEN}")).body == b"done"
    assert (await here.ask("/healthz")).body == b"done"


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    assert read_token(str(path)) == TOKEN
    path.chmod(0o640)
    with pytest.raises(TokenError, match="mode 640"):
        read_token(str(path))
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(TokenError, match="16"):
        read_token(str(path))
    with pytest.raises(TokenError, match="gone"):
        read_token(str(tmp_path / "gone"))
    assert os.access(path, os.R_OK)
