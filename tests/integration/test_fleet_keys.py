"""Ticket keys that rotate by themselves: clients resume at any host; nobody changes a file."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.fleet import private_file
from tests.support.origin import demo_origin
from tests.support.peers import wait_until
from tests.support.redisserver import redis_server
from tests.support.visitor import Visitor


@contextmanager
def hosts(directory: Path, location: str) -> Iterator[list[RunningEdge]]:
    """Two edges that share ticket keys at a location."""
    secret = private_file(directory / "fleet.secret", secrets.token_hex(32))
    with ExitStack() as stack:
        origin = stack.enter_context(demo_origin())
        edges = []
        for number in range(2):
            (directory / f"host{number}").mkdir()
            extra = f'[fleet]\nserver_id = "0a0{number}"\nsecret_file = "{secret}"'
            tls = f'shared_keys = "{location}"'
            place = directory / f"host{number}"
            edges.append(stack.enter_context(edge(place, origin, extra=extra, tls=tls)))
        for running in edges:
            wait_until(lambda one=running: "ticket keys changed" in one.log(), "the keys")
        yield edges


def visit(running: RunningEdge, ticket: Any = None) -> Visitor:
    visitor = Visitor(running.port, ticket)
    visitor.run(lambda v, ended: v.ticket is not None)
    visitor.close()
    return visitor


@pytest.mark.parametrize("kind", ["directory", "redis"])
def test_a_ticket_of_one_host_resumes_at_another(tmp_path: Path, kind: str) -> None:
    with ExitStack() as stack:
        if kind == "redis":
            location = stack.enter_context(redis_server(tmp_path)).url
        else:
            (tmp_path / "keys").mkdir(mode=0o700)
            location = str(tmp_path / "keys")
        first, second = stack.enter_context(hosts(tmp_path, location))

        def resumes() -> bool:
            # The log tells of keys before all workers have them.
            return bool(visit(second, visit(first).ticket).quic.tls.session_resumed)

        wait_until(resumes, "a resumption at the other host")
        assert visit(first, visit(second).ticket).quic.tls.session_resumed
