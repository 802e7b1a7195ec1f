"""A server's preferred address (RFC 9000 section 9.6) with a client that nobody here wrote."""

from __future__ import annotations

from pathlib import Path

from tests.support.edge import edge
from tests.support.origin import demo_origin
from tests.support.peers import free_edge_port, process, require, wait_until


def test_a_client_moves_to_the_preferred_address_and_nothing_is_lost(tmp_path: Path) -> None:
    program = require("gtlsclient")
    port = free_edge_port()
    extra = f'[quic]\npreferred_address = ["127.0.0.1:{port}"]\n'
    with demo_origin() as origin, edge(tmp_path, origin, extra, listen=(port,)) as running:
        url = f"https://localhost:{running.port}/slow?seconds=3"
        command = [
            program,
            "-q",
            "--exit-on-all-streams-close",
            "127.0.0.1",
            str(running.port),
            url,
        ]
        with process(command, tmp_path / "client.log"):

            def local_addresses() -> list[str]:
                page = running.admin("/api/v1/connections")
                return [row["local_address"] for row in page["connections"]]

            wait_until(lambda: local_addresses() == [f"127.0.0.1:{port}"], "the move")
            (row,) = running.admin("/api/v1/connections")["connections"]
            assert row["path_validated"]
            assert row["migrations"] == 1
            wait_until(lambda: bool(running.access()), "the answer")
    (record,) = running.access()
    assert record["status"] == 200
    assert record["outcome"] == "complete"
