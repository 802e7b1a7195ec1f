"""Who may have a certificate on demand, and how often that is asked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import structlog

from quicedge.config.acmelimits import ON_DEMAND_REFUSALS, ON_DEMAND_REFUSED_FOR
from quicedge.config.schema import OnDemand as Settings
from quicedge.supervisor import on_demand
from quicedge.supervisor.on_demand import OnDemand
from tests.support.peers import serve_in_threads


class Asked:
    """An `OnDemand` whose URL is a function, and what it decided."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: bool | None, rate: str) -> None:
        self.now = 1000.0
        self.asked: list[str] = []
        self.allowed: list[str] = []
        self.refused: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

        def ask(url: str, name: str) -> bool | None:
            self.asked.append(name)
            self.gate.wait(10)
            return answer

        monkeypatch.setattr(on_demand, "ask", ask)
        self.it = OnDemand(self.allowed.append, self.refused.append, lambda: self.now)
        self.it.configure(Settings(ask="http://x/", rate=rate))

    async def settle(self) -> None:
        async with asyncio.timeout(10):
            while self.it._asking:
                await asyncio.sleep(0.005)


@pytest.fixture
async def make(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[..., Asked]]:
    made: list[Asked] = []

    def create(answer: bool | None = True, rate: str = "1000/second") -> Asked:
        made.append(Asked(monkeypatch, answer, rate))
        return made[-1]

    yield create
    for one in made:
        one.gate.set()
        await one.settle()
        one.it.close()


async def test_a_name_is_asked_about_once_however_many_clients_want_it(make) -> None:
    one = make()
    one.gate.clear()
    for _ in range(50):
        one.it.want("a.example.com")
        await asyncio.sleep(0)
    one.gate.set()
    await one.settle()
    assert (one.asked, one.allowed) == (["a.example.com"], ["a.example.com"])


@pytest.mark.parametrize("answer", [False, None])
async def test_a_refusal_is_remembered_for_a_while(make, answer: bool | None) -> None:
    one = make(answer)
    one.it.want("a.example.com")
    await one.settle()
    one.it.want("a.example.com")
    await one.settle()
    assert (one.asked, one.allowed) == (["a.example.com"], [])
    assert one.refused == ["a.example.com"] * 2
    one.now += ON_DEMAND_REFUSED_FOR
    one.it.want("a.example.com")
    await one.settle()
    assert len(one.asked) == 2


async def test_names_beyond_the_rate_are_refused_and_come_later(make) -> None:
    one = make(rate="3/minute")
    for n in range(5):
        one.it.want(f"{n}.example.com")
    await one.settle()
    assert sorted(one.allowed) == ["0.example.com", "1.example.com", "2.example.com"]
    assert one.refused == ["3.example.com", "4.example.com"]
    one.now += 20
    one.it.want("3.example.com")
    await one.settle()
    assert "3.example.com" in one.allowed


async def test_strangers_who_want_very_many_names_fill_no_log(make) -> None:
    one = make(rate="1/minute")
    with structlog.testing.capture_logs() as lines:
        for number in range(500):
            one.it.want(f"{number}.example.com")
        assert one.it.counts["too_many"] == len(one.refused) == 499
        assert len(lines) == 1
        one.now += 1.0
        one.it.want("later.example.com")
    assert [line["host"] for line in lines] == ["1.example.com", "later.example.com"]


async def test_names_that_wait_for_an_answer_are_bounded(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_demand, "ON_DEMAND_WAITING", 4)
    one = make()
    one.gate.clear()
    for n in range(10):
        one.it.want(f"{n}.example.com")
    assert len(one.refused) == 6
    one.gate.set()
    await one.settle()
    assert len(one.allowed) == 4


async def test_what_is_remembered_of_refused_names_is_bounded(make) -> None:
    one = make(False)
    for n in range(ON_DEMAND_REFUSALS + 100):
        one.it.leave_alone(f"{n}.example.com", 60)
    assert len(one.it._until) == ON_DEMAND_REFUSALS


# --- the URL ------------------------------------------------------------------------------------


@pytest.fixture
def url() -> Iterator[str]:
    """Answers with the status that the name begins with."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = int(self.path.rpartition("domain=")[2].partition(".")[0])
            self.send_response(status)
            if status == 302:
                self.send_header("location", "/?domain=200.example.com")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/ask?key=1"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "answer"), [(200, True), (204, False), (302, False), (404, False), (500, None)]
)
def test_only_200_allows_and_redirects_are_not_followed(
    url: str, status: int, answer: bool | None
) -> None:
    assert on_demand.ask(url, f"{status}.example.com") is answer


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 200 " + bytes(100_000), b""])
def test_what_is_no_http_is_no_answer(answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve_in_threads(listener, serve)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/ask"
        assert on_demand.ask(url, "a.example.com") is None


def test_no_answer_is_none() -> None:
    assert on_demand.ask("http://127.0.0.1:1/", "a.example.com") is None
