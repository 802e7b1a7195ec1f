"""Two edges that share ticket keys and, in Redis, a register of tickets used for 0-RTT data."""

from __future__ import annotations

import json
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import free_port, wait_until
from tests.support.redisserver import RedisServer, redis_server
from tests.support.visitor import Visitor


def key_file(path: Path, *keys: str, mode: int = 0o600) -> Path:
    path.write_text("# of a test\n" + "".join(f"{key}\n" for key in keys))
    path.chmod(mode)
    return path


@contextmanager
def fleet(directory: Path, redis: str, *, options: str = "") -> Iterator[list[RunningEdge]]:
    """Two edges before one origin."""
    keys = key_file(directory / "fleet.keys", secrets.token_hex(32))
    extra = f"""
[quic]
early_data = true
handshake_timeout = "2s"
[limits]
redis = "{redis}"
"""
    with ExitStack() as stack:
        origin = stack.enter_context(demo_origin())
        edges = []
        for name in ("a", "b"):
            (directory / name).mkdir()
            tls = f'shared_keys = "{keys}"'
            edges.append(
                stack.enter_context(
                    edge(directory / name, origin, extra=extra, tls=tls, options=options)
                )
            )
        yield edges


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


def ticket_of(running: RunningEdge) -> Any:
    visitor = Visitor(running.port)
    visitor.run(lambda v, ended: v.ticket is not None)
    visitor.close()
    return visitor.ticket


def early_ticket_of(running: RunningEdge) -> Any:
    """A ticket that promises early data: the edge gives none before it knows the register."""
    found: list[Any] = []

    def is_early() -> bool:
        found.append(ticket_of(running))
        return found[-1].max_early_data_size is not None

    wait_until(is_early, "a ticket good for early data")
    return found[-1]


def ask(
    running: RunningEdge, ticket: Any, *, verdict: str | None = None
) -> tuple[Visitor, dict[str, str]]:
    """A request in the first flight; the fields that the origin saw.

    `verdict`: the handshake goes on once the register has said this, as from far away.
    """
    visitor = Visitor(running.port, ticket)
    stream_id = visitor.request(b"GET", b"/echo")
    if verdict is not None:
        visitor.send(visitor.flight())
        wait_until(lambda: verdict in verdicts(running), "the verdict")
    visitor.run(lambda v, ended: stream_id in ended)
    status, body = visitor.answers[stream_id]
    assert status == 200
    return visitor, dict(json.loads(body)["fields"])


def send_to(running: RunningEdge, datagrams: list[bytes]) -> None:
    """From an address of its own, as somebody would who has copied them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        for data in datagrams:
            attacker.sendto(data, ("127.0.0.1", running.port))


def verdicts(running: RunningEdge) -> dict[str, int]:
    total: dict[str, int] = {}
    for worker in running.admin("/api/v1/status")["workers"]:
        for name, count in worker["stats"]["early_data"].items():
            total[name] = total.get(name, 0) + count
    return {name: count for name, count in total.items() if count}


def paths(running: RunningEdge) -> list[str]:
    return [record["path"] for record in running.access()]


def test_a_ticket_of_one_edge_is_good_for_early_data_at_another_once(
    tmp_path: Path, redis: RedisServer
) -> None:
    with fleet(tmp_path, redis.url, options="workers = 2") as (first, second):
        ticket = early_ticket_of(first)
        visitor, fields = ask(second, ticket, verdict="first")
        assert visitor.quic.tls.session_resumed
        assert visitor.quic.tls.early_data_accepted
        assert fields["early-data"] == "1"
        assert fields["x-forwarded-for"] == "unknown"
        visitor.close()

        # The edge that issued it learns from the register that it was used.
        again, fields = ask(first, ticket)
        assert again.quic.tls.session_resumed
        assert "early-data" not in fields
        again.close()
        assert verdicts(second) == {"first": 1}
        assert verdicts(first).get("first", 0) == 0


def test_a_first_flight_replayed_at_another_edge_is_never_processed(
    tmp_path: Path, redis: RedisServer
) -> None:
    with fleet(tmp_path, redis.url) as (first, second):
        visitor = Visitor(first.port, early_ticket_of(first))
        stream_id = visitor.request(b"GET", b"/echo?replayed")
        flight = visitor.flight()
        visitor.send(flight)
        visitor.run(lambda v, ended: stream_id in ended)
        assert visitor.quic.tls.early_data_accepted
        visitor.close()

        send_to(second, flight)
        wait_until(lambda: verdicts(second) == {"used": 1}, "the verdict")
        # A copy cannot complete the handshake: its requests go with it.
        wait_until(
            lambda: second.admin("/api/v1/status")["connections"] == 0, "the end of the handshake"
        )

        # What was held back on its way is early data still: the above could have failed.
        delayed = Visitor(first.port, early_ticket_of(first))
        delayed.request(b"GET", b"/echo?delayed")
        send_to(second, delayed.flight())
        wait_until(lambda: "/echo?delayed" in paths(second), "the request")
        assert paths(second) == ["/echo?delayed"]
        assert paths(first).count("/echo?replayed") == 1


def test_without_the_register_requests_wait_for_the_handshake(
    tmp_path: Path, redis: RedisServer
) -> None:
    with fleet(tmp_path, redis.url) as (first, second):
        ticket = early_ticket_of(first)
        redis.stop()
        for running in (second, first):
            visitor, fields = ask(running, ticket)
            assert visitor.quic.tls.early_data_accepted
            assert "early-data" not in fields
            assert fields["x-forwarded-for"] == "127.0.0.1"
            visitor.close()
            assert verdicts(running) == {"unknown": 1}
            wait_until(
                lambda edge=running: "0-RTT register unavailable" in edge.log(), "the warning"
            )

        # A register that was started anew does not know what was used before.
        unused = ticket_of(first)
        port = int(redis.url.rpartition(":")[2].partition("/")[0])
        with redis_server(tmp_path, port):
            visitor, fields = ask(second, unused)
            assert visitor.quic.tls.session_resumed
            assert "early-data" not in fields
            visitor.close()


def test_a_register_that_is_silent_delays_nobody(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", free_port()))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with fleet(tmp_path, url) as (first, second):
            ticket = ticket_of(first)
            assert ticket.max_early_data_size is None
            visitor, fields = ask(second, ticket)
            assert visitor.quic.tls.session_resumed
            assert "early-data" not in fields
            visitor.close()


def test_keys_are_rotated_without_an_end_of_connections(tmp_path: Path) -> None:
    old, new = secrets.token_hex(32), secrets.token_hex(32)
    keys = key_file(tmp_path / "fleet.keys", old)

    def reload(running: RunningEdge, *now: str, mode: int = 0o600) -> None:
        before = running.admin("/api/v1/status")
        key_file(keys, *now, mode=mode)
        running.process.send_signal(signal.SIGHUP)

        def is_over() -> bool:
            status = running.admin("/api/v1/status")
            return any(status[k] != before[k] for k in ("reloads", "last_reload_error"))

        wait_until(is_over, "the reload")

    tls = f'shared_keys = "{keys}"'
    with demo_origin() as origin, edge(tmp_path, origin, tls=tls) as running:
        staying, _ = ask(running, None)
        ticket = staying.ticket

        def resumes(ticket: Any) -> bool:
            visitor, _ = ask(running, ticket)
            visitor.close()
            return bool(visitor.quic.tls.session_resumed)

        reload(running, new, old)
        assert resumes(ticket)
        fresh = ticket_of(running)
        reload(running, new)
        assert resumes(fresh)
        assert not resumes(ticket)

        reload(running, old, mode=0o644)
        assert "mode 644" in running.admin("/api/v1/status")["last_reload_error"]
        assert resumes(fresh)

        stream_id = staying.request(b"GET", b"/echo")
        staying.run(lambda v, ended: stream_id in ended)
        staying.close()
        assert old not in running.log()
        assert new not in running.log()
