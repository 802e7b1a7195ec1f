"""0-RTT requests through a running edge: what the origin sees of them, and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import edge
from tests.support.origin import demo_origin
from tests.support.visitor import Visitor


def visit(port: int, ticket: Any) -> tuple[Visitor, dict[str, tuple[int, bytes]]]:
    """Send requests in the first flight; the answers by what was asked."""
    visitor = Visitor(port, ticket)
    asked = {
        "GET": visitor.request(b"GET", b"/echo"),
        "POST": visitor.request(b"POST", b"/echo", b"x" * 3000),
        "425": visitor.request(b"GET", b"/status/425"),
    }
    visitor.run(lambda v, ended: ended >= set(asked.values()))
    return visitor, {name: visitor.answers[stream_id] for name, stream_id in asked.items()}


@pytest.mark.parametrize("enabled", [True, False])
def test_requests_in_the_first_flight(tmp_path: Path, enabled: bool) -> None:
    extra = "[quic]\nearly_data = true" if enabled else ""
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        first = Visitor(running.port)
        first.run(lambda v, ended: v.ticket is not None)
        first.close()
        visitor, answers = visit(running.port, first.ticket)
        assert visitor.quic.tls.session_resumed
        assert visitor.quic.tls.early_data_accepted == enabled
        visitor.close()
        got, posted = (dict(json.loads(answers[name][1])["fields"]) for name in ("GET", "POST"))
        assert got.get("early-data") == ("1" if enabled else None)
        assert got["x-forwarded-for"] == ("unknown" if enabled else "127.0.0.1")
        # What is not safe waited until the handshake had shown who is there.
        assert "early-data" not in posted
        assert posted["x-forwarded-for"] == "127.0.0.1"
        assert json.loads(answers["POST"][1])["body"]["bytes"] == 3000
        assert answers["425"][0] == 425

        again, answers = visit(running.port, first.ticket)
        assert again.quic.tls.session_resumed
        assert not again.quic.tls.early_data_accepted
        again.close()
        assert "early-data" not in dict(json.loads(answers["GET"][1])["fields"])
        assert answers["POST"][0] == 200


@pytest.mark.parametrize(
    "rules",
    [
        'allow = ["127.0.0.0/8"]',
        'deny = ["192.0.2.0/24"]',
        'requests = [{ rate = "1000/second", by = "address" }]',
    ],
)
def test_rules_by_address_wait_for_the_handshake(tmp_path: Path, rules: str) -> None:
    """An address that the first flight merely claims passes no list and uses up no rate; the
    request is not refused for that, it waits for the round trip that proves the address."""
    extra = f"[quic]\nearly_data = true\n[limits]\n{rules}"
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        first = Visitor(running.port)
        first.run(lambda v, ended: v.ticket is not None)
        first.close()
        visitor, answers = visit(running.port, first.ticket)
        assert visitor.quic.tls.early_data_accepted
        visitor.close()
        assert answers["GET"][0] == 200
        fields = dict(json.loads(answers["GET"][1])["fields"])
        assert fields["x-forwarded-for"] == "127.0.0.1"
        assert "early-data" not in fields
    assert {record["client"].split(":")[0] for record in running.access()} == {"127.0.0.1"}
