"""Load balancing on whole edges: weights, a server that fails, a cookie, a spare server."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.support.edge import RunningEdge, edge


class Origin:
    """Answers with its name, and the status that the test wants."""

    def __init__(self, name: str) -> None:
        self.status = 200
        self.is_down = False
        self.requests = 0
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                origin.requests += 1
                if origin.is_down:  # on a connection that was open before
                    self.close_connection = True
                    return
                self.send_response(origin.status)
                self.send_header("content-length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def origins(number: int) -> Iterator[list[Origin]]:
    with ExitStack() as stack:
        found = [Origin(str(index)) for index in range(number)]
        for origin in found:
            stack.callback(origin.server.server_close)
            thread = threading.Thread(target=origin.server.serve_forever, daemon=True)
            thread.start()
            stack.callback(origin.server.shutdown)
        yield found


@contextmanager
def client(running: RunningEdge) -> Iterator[httpx.Client]:
    tls = ssl.create_default_context(cafile=str(running.certificate.ca))
    base = f"https://localhost:{running.port}"
    with httpx.Client(base_url=base, verify=tls, http2=True, timeout=30) as found:
        yield found


def servers(*entries: object) -> str:
    shown = [
        json.dumps(entry)
        if isinstance(entry, str)
        else "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in entry.items()) + " }"  # type: ignore[attr-defined]
        for entry in entries
    ]
    return f"servers = [{', '.join(shown)}]\n"


def test_requests_are_spread_by_weight_and_a_failing_server_is_ejected(tmp_path: Path) -> None:
    with origins(3) as found:
        upstream = servers(found[0].url, found[1].url, {"url": found[2].url, "weight": 2})
        upstream += 'outliers = { failures = 3, eject_for = "1h" }\n'
        with edge(tmp_path, "", upstream_extra=upstream) as running, client(running) as http:
            answers = Counter(http.get("/").text for _ in range(40))
            assert answers == {"0": 10, "1": 10, "2": 20}
            found[2].status = 503
            statuses = Counter(http.get("/").status_code for _ in range(40))
            assert statuses == {200: 37, 503: 3}
            assert "origin ejected" in running.log()


def test_a_spare_server_takes_over_while_the_others_are_down(tmp_path: Path) -> None:
    with origins(2) as found:
        upstream = servers(found[0].url, {"url": found[1].url, "tier": 1})
        with edge(tmp_path, "", upstream_extra=upstream) as running, client(running) as http:
            assert {http.get("/").text for _ in range(5)} == {"0"}
            found[0].is_down = True
            found[0].server.shutdown()
            found[0].server.server_close()
            assert {http.get("/").text for _ in range(5)} == {"1"}


def test_a_cookie_keeps_a_browser_with_its_server(tmp_path: Path) -> None:
    with origins(3) as found:
        upstream = servers(*(origin.url for origin in found)) + 'sticky_cookie = "backend"\n'
        with edge(tmp_path, "", upstream_extra=upstream) as running:
            seen = set()
            for _ in range(3):
                with client(running) as http:  # a browser each, which keeps its cookies
                    answers = {http.get("/").text for _ in range(6)}
                    assert len(answers) == 1
                    seen |= answers
            assert len(seen) == 3
