"""Basic authentication, and authentication by another service."""

from __future__ import annotations

import asyncio
import base64
import threading
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from quicedge import shares
from quicedge.config.filterlimits import PASSWORDS_WAITING
from quicedge.config.unusable import UnusableError
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Response
from quicedge.proxy.filters import passwords
from quicedge.telemetry.outcomes import Outcome
from quicedge.upstream.base import UpstreamError
from tests.support.client_info import StubClient
from tests.support.filtered import Client, World, turns

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
OTHER = bcrypt.hashpw("pässword: with colon".encode(), bcrypt.gensalt(4)).decode()


def basic(user: str, password: str) -> tuple[bytes, bytes]:
    encoded = base64.b64encode(f"{user}:{password}".encode())
    return b"authorization", b"Basic " + encoded


def world(more: str = "", users: str = f"ann = '{HASH}', 'jürgen' = '{OTHER}'") -> World:
    return World(
        "[[routes]]\nupstream = 'app'\n"
        f"filters = [{{ basic_auth = {{ users = {{ {users} }} {more} }} }}]"
    )


async def answered(here: World, *fields: tuple[bytes, bytes], **options: Any) -> Client:
    """The answer to a request; its status is 0 if it has reached the origin."""
    before = len(here.origin.requests)
    client = here.send(b"/", *fields, **options)
    async with asyncio.timeout(30):
        while not client.status and len(here.origin.requests) == before:
            await asyncio.sleep(0.001)
    return client


async def test_the_right_password_passes_and_stays_at_the_edge() -> None:
    here = world(", user_header = 'X-User'")
    own = [(b"x-user", b"root"), (b"x_user", b"root")]
    client = await answered(here, basic("ann", "secret"), *own)
    assert client.status == 0
    assert here.asked(b"x_user") is None, "what WSGI takes for it"
    assert here.asked(b"authorization") is None
    assert here.asked(b"x-user") == b"ann"
    assert (await answered(here, basic("jürgen", "pässword: with colon"))).status == 0


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [basic("ann", "wrong")],
        [basic("ann", "secret\0x")],
        [basic("bob", "secret")],
        [basic("ann", "x" * 2000)],
        [basic("", "")],
        [(b"authorization", b"Bearer x")],
        [(b"authorization", b"Basic ***")],
        [(b"authorization", b"Basic " + base64.b64encode(b"ann"))],
        [basic("ann", "secret"), basic("ann", "secret")],
    ],
)
async def test_all_else_is_asked_for_a_password(fields: list[tuple[bytes, bytes]]) -> None:
    here = world(", realm = 'the \"office\"'")
    client = await answered(here, *fields)
    assert client.status == 401
    challenge = b'Basic realm="the \\"office\\"", charset="UTF-8"'
    assert client.value(b"www-authenticate") == challenge
    assert not here.origin.requests
    assert client.exchange is not None
    assert client.exchange.outcome is Outcome.DENIED


async def test_a_password_is_hashed_once_and_never_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[threading.Thread] = []
    check = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> bool:
        threads.append(threading.current_thread())
        return check(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    here = world()
    for _ in range(3):
        assert (await answered(here, basic("ann", "secret"))).status == 0
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    for number in range(2):
        assert (await answered(here, basic("ann", f"wrong {number}"))).status == 401
        assert (await answered(here, basic("nobody", "secret"))).status == 401
    assert len(threads) == 5, "an unknown user takes the same time"


async def test_a_flood_of_wrong_passwords_leaves_others_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    check = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> bool:
        gate.wait(30)
        return check(password, hashed)

    here = world()
    assert (await answered(here, basic("ann", "secret"))).status == 0, "is remembered from now on"
    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    try:
        flood = [here.send(b"/", basic("ann", str(n))) for n in range(2 * PASSWORDS_WAITING)]
        await turns()
        refused = [client for client in flood if client.status == 503]
        assert PASSWORDS_WAITING <= len(refused) < 2 * PASSWORDS_WAITING
        assert refused[0].value(b"retry-after") is not None
        assert (await answered(here, basic("ann", "secret"))).status == 0
        share = shares.Client(b"\xc6\x33\x64\x07", b"\xc6\x33\x64")
        other = StubClient(address=("198.51.100.7", 1), share=share)
        late = here.send(b"/", basic("jürgen", "pässword: with colon"), client=other)
        await turns()
        assert late.status == 0
    finally:
        gate.set()
    async with asyncio.timeout(30):
        while not all(client.status for client in flood) or len(here.origin.requests) < 3:
            await asyncio.sleep(0.001)
    assert passwords._waiting().held == 0


async def test_users_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"# people\n\nann:{HASH}\nbob:{OTHER}:comment\n")
    text = "[[routes]]\nupstream = 'app'\nfilters = [{ basic_auth = { htpasswd = 'users' } }]"
    here = World(text, directory=tmp_path)
    assert (await answered(here, basic("ann", "secret"))).status == 0
    for line, problem in (
        ("ann:$apr1$x$y", r"users:1: is no bcrypt hash; create one with `htpasswd -nB USER`"),
        (f"ann:{HASH.replace('$04$', '$20$')}", r"has a cost of 20; the maximum is 14"),
        ("nonsense", r"users:1: is not USER:HASH"),
    ):
        file.write_text(line)
        with pytest.raises(UnusableError, match=problem):
            World(text, directory=tmp_path)
    file.unlink()
    with pytest.raises(UnusableError, match=r"basic_auth.htpasswd: .*No such file"):
        World(text, directory=tmp_path)


# --- by another service ---------------------------------------------------------------------------

FORWARD = """
[upstreams.auth]
servers = ["http://127.0.0.1:2"]
[[routes]]
upstream = "app"
filters = [{ forward_auth = { upstream = "auth", %s path = "/check?from={host}" } }]
"""


async def test_a_request_passes_with_what_the_service_says() -> None:
    here = World(FORWARD % "copy_headers = ['X-User'],")
    client = here.send(
        b"/private?x", (b"cookie", b"session=1"), (b"x-user", b"root"), method=b"POST", ended=False,
        length=4,
    )  # fmt: skip
    await turns()
    asked = here.request
    assert (asked.method, asked.path, asked.ended) == (b"GET", b"/check?from=a.test", True)
    assert here.asked(b"x-forwarded-method") == b"POST"
    assert here.asked(b"x-forwarded-uri") == b"/private?x"
    assert here.asked(b"x-forwarded-for") == b"192.0.2.1"
    assert here.asked(b"cookie") == b"session=1"
    assert here.asked(b"content-length") is None
    here.origin.respond(200, {b"x-user": b"ann", b"x-other": b"1"}, b"welcome")
    await turns()
    assert len(here.origin.requests) == 2
    assert (here.request.method, here.request.path) == (b"POST", b"/private?x")
    assert here.asked(b"x-user") == b"ann"
    assert here.asked(b"x-other") is None
    assert client.exchange is not None
    client.exchange.request_data(b"body")
    assert here.origin.body == b"body"


async def test_without_an_answer_for_it_a_clients_own_word_is_dropped() -> None:
    here = World(FORWARD % "copy_headers = ['X-User'],")
    here.send(b"/", (b"x-user", b"root"), (b"x_user", b"root"))
    await turns()
    here.origin.respond(204)
    await turns()
    assert here.asked(b"x-user") is None
    assert here.asked(b"x_user") is None, "what WSGI takes for it"


async def test_a_service_that_does_not_answer_in_time_is_504() -> None:
    here = World(FORWARD % "timeout = '10ms',")
    client = here.send()
    async with asyncio.timeout(10):
        while not client.status:
            await asyncio.sleep(0.005)
    assert client.status == 504
    assert here.origin.aborted
    assert client.exchange is not None
    assert client.exchange.outcome is Outcome.ORIGIN_FIRST_BYTE_TIMEOUT
    assert len(here.origin.requests) == 1


async def test_chosen_fields_of_an_answer_that_lets_pass_go_to_the_client() -> None:
    here = World(FORWARD % "client_headers = ['Set-Cookie', 'X-Session-Expires'],")
    client = here.send()
    await turns()
    renewed = {b"set-cookie": b"session=2", b"x-session-expires": b"60", b"x-other": b"1"}
    here.origin.respond(200, renewed)
    await turns()
    assert here.asked(b"set-cookie") is None
    here.origin.respond(200, {b"set-cookie": b"cart=1", b"x-session-expires": b"0"}, b"page")
    assert client.status == 200
    assert client.values(b"set-cookie") == [b"cart=1", b"session=2"]
    assert client.value(b"x-session-expires") == b"60"
    assert client.value(b"x-other") is None


async def test_an_error_of_the_origin_carries_them_too_and_a_lost_client_leaves_nothing() -> None:
    here = World(FORWARD % "client_headers = ['Set-Cookie'],")
    for leaves in (False, True):
        client = here.send()
        await turns()
        here.origin.respond(200, {b"set-cookie": b"session=2"})
        await turns()
        assert client.exchange is not None
        (step,) = client.exchange.filters._phases.all  # type: ignore[attr-defined]
        assert len(step._for_clients) == 1
        if leaves:
            client.exchange.connection_lost(Outcome.CLIENT_GONE)
        else:
            here.origin.handler.failed(UpstreamError(OriginFailure.RESET))
            assert client.status == 502
            assert client.value(b"set-cookie") == b"session=2"
        assert not step._for_clients


async def test_only_chosen_fields_are_sent_to_the_service() -> None:
    here = World(FORWARD % "request_headers = ['Cookie'],")
    here.send(b"/", (b"cookie", b"a=1"), (b"authorization", b"secret"))
    await turns()
    assert here.asked(b"cookie") == b"a=1"
    assert here.asked(b"authorization") is None
    assert here.asked(b"x-forwarded-for") == b"192.0.2.1"


async def test_any_other_answer_goes_to_the_client() -> None:
    here = World(FORWARD % "")
    client = here.send()
    await turns()
    login = {b"location": b"https://login.test/", b"set-cookie": b"a=b", b"connection": b"close"}
    here.origin.respond(302, login, b"go there")
    await turns()
    assert (client.status, client.body) == (302, b"go there")
    assert client.value(b"location") == b"https://login.test/"
    assert client.value(b"set-cookie") == b"a=b"
    assert client.value(b"connection") is None
    assert len(here.origin.requests) == 1
    assert client.exchange is not None
    assert client.exchange.outcome is Outcome.DENIED


async def test_no_answer_lets_nobody_pass() -> None:
    here = World(FORWARD % "")
    client = here.send()
    await turns()
    here.origin.handler.failed(UpstreamError(OriginFailure.CONNECT, "refused"))
    await turns()
    assert client.status == 502
    assert client.exchange is not None
    assert client.exchange.outcome is Outcome.ORIGIN_CONNECT
    assert len(here.origin.requests) == 1


async def test_a_service_with_too_much_to_do_says_when_to_come_back() -> None:
    here = World(FORWARD % "")
    client = here.send()
    await turns()
    here.origin.handler.failed(UpstreamError(OriginFailure.CIRCUIT_OPEN, "open", 7))
    await turns()
    assert (client.status, client.value(b"retry-after")) == (503, b"7")


async def test_an_answer_beyond_all_measure_is_broken_off() -> None:
    here = World(FORWARD % "")
    client = here.send()
    await turns()
    here.origin.handler.response(Response(403, [], b"1.1"))
    here.origin.handler.data(b"x" * 300_000)
    await turns()
    assert client.status == 502
    assert here.origin.aborted


async def test_the_question_is_abandoned_when_the_client_leaves() -> None:
    here = World(FORWARD % "")
    client = here.send()
    await turns()
    assert client.exchange is not None
    client.exchange.connection_lost(Outcome.CLIENT_GONE)
    await turns()
    assert here.origin.aborted
