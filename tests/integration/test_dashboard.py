"""The dashboard in a real browser, above real connections; `quicedge top`; event streams.

With SCREENSHOTS=1 the pictures in docs/ are made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import process, require, wait_until

SECRET = "correct-horse-battery-staple"


def browse(running: RunningEdge, fragment: str, *options: str) -> tuple[str, str]:
    """The page after some seconds of its time, and what the browser said."""
    url = f"http://127.0.0.1:{running.admin_port}/{fragment}"
    done = subprocess.run(
        [require("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-dev-shm-usage", f"--user-data-dir={running.directory / 'profile'}",
         "--enable-logging=stderr", "--virtual-time-budget=12000", "--window-size=1280,1000",
         *options, "--dump-dom", url],
        capture_output=True, timeout=90, check=False,
    )  # fmt: skip
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, said
    return done.stdout.decode(), "\n".join(x for x in said.splitlines() if "CONSOLE" in x)


def live(running: RunningEdge) -> list[dict[str, Any]]:
    rows = running.admin("/api/v1/connections")["connections"]
    return [row for row in rows if row["requests_active"]]


def screenshot(running: RunningEdge, fragment: str, name: str, *options: str) -> None:
    if os.environ.get("SCREENSHOTS"):
        picture = REPOSITORY / "docs" / name
        browse(running, fragment, f"--screenshot={picture}", *options)
        assert picture.stat().st_size > 10_000


@pytest.mark.timeout(180)
def test_the_dashboard_shows_connections_as_they_are(tmp_path: Path) -> None:
    """A lossy transfer and a name that tries to be a script."""
    client, curl = require("gtlsclient"), require("curl")
    (tmp_path / "traces").mkdir()
    extra = '[qlog]\ndirectory = "traces"'
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        path = "/download?size=1000MB&x=<img/src=x/onerror=document.title='owned'>"
        lossy = [client, "-q", "--rx-loss=0.01", "--tx-loss=0.01", "--no-quic-dump",
                 "--no-http-dump", "127.0.0.1", str(running.port),
                 f"https://localhost:{running.port}{path}"]  # fmt: skip
        with process(lossy, tmp_path / "client.log"):
            wait_until(lambda: bool(live(running)), "a request")
            row = live(running)[0]
            for protocol in ("--http2", "--http1.1") * 2:
                subprocess.run(
                    [curl, "-4sS", protocol, "--cacert", str(running.certificate.ca), "-o",
                     os.devnull, f"https://localhost:{running.port}/download?size=20MB"],
                    timeout=60, check=True,
                )  # fmt: skip
            wait_until(
                lambda: any(one["arrived"] for one in running.admin("/api/v1/status")["alt_svc"]),
                "the report of the client",
            )
            document, said = browse(running, "")
            assert not said
            assert row["remote_address"] in document
            assert ">running<" in document
            assert document.count('role="img"') == 2
            for version in ("HTTP/3", "HTTP/2", "HTTP/1.1"):
                assert f'<th scope="row">{version}</th>' in document
            assert "Too few connections to compare" in document
            assert (
                "HTTP/3 is advertised (Alt-Svc); clients reached: 1, arrived: 1, missing: 0."
                in document
            )
            screenshot(running, "", "dashboard.png")
            document, said = browse(running, f"#/c/{row['id']}")
            assert not said
            assert '<button id="trace" type="button">Start qlog</button>' in document, "enabled"
            assert '<p id="no-trace" class="quiet" hidden="">' in document
            assert document.count('role="img"') == 4
            assert "packets lost" in document
            assert "congestion controller" in document
            assert "&lt;img/src=x" in document, "the path is shown"
            assert "<img" not in document
            assert "<title>quicedge</title>" in document
            assert "NaN" not in document
            assert "undefined" not in document
            screenshot(running, f"#/c/{row['id']}", "connection.png")


def test_without_a_directory_the_dashboard_says_why_no_trace_can_be_started(
    tmp_path: Path,
) -> None:
    client = require("gtlsclient")
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        url = f"https://localhost:{running.port}/slow?seconds=60"
        command = [client, "-q", "127.0.0.1", str(running.port), url]
        with process(command, tmp_path / "client.log"):
            wait_until(lambda: bool(live(running)), "a request")
            row = live(running)[0]
            document, said = browse(running, f"#/c/{row['id']}")
            assert not said
    assert re.search(r'<button id="trace" type="button" disabled="">Start qlog</button>', document)
    assert '<p id="no-trace" class="quiet">' in document, "shown"
    assert f'quicedge qlog tail <span id="tail-id">{row["id"]}</span>' in document


def get(running: RunningEdge, path: str, **headers: str) -> Any:
    url = f"http://127.0.0.1:{running.admin_port}{path}"
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10)


def test_a_token_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    config = f'token_file = "{token}"'  # continues the [admin] table
    with demo_origin() as origin, edge(tmp_path, origin, extra=config) as running:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(running, "/api/v1/status")
        with get(running, "/api/v1/status", authorization=f"Bearer {SECRET}") as answer:
            assert json.load(answer)["state"] == "running"
        document, _ = browse(running, "")
        assert "a token is needed" in document
        table = top(running, "--token-file", str(token))
        assert "0 connections" in table.stdout
        refused = top(running)
        assert refused.returncode == 1
        assert "token" in refused.stderr


def top(running: RunningEdge, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quicedge", "top", "--once", "--admin",
         f"127.0.0.1:{running.admin_port}", *options],
        capture_output=True, text=True, timeout=20, cwd=REPOSITORY, check=False,
        env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip


def test_top_lists_connections_and_a_stream_of_events_follows_one(tmp_path: Path) -> None:
    client = require("gtlsclient")
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        url = f"https://localhost:{running.port}/slow?seconds=60"
        command = [client, "-q", "127.0.0.1", str(running.port), url]
        with process(command, tmp_path / "client.log"):
            wait_until(lambda: bool(live(running)), "a request")
            row = live(running)[0]
            shown = top(running)
            (line,) = [x for x in shown.stdout.splitlines() if row["remote_address"] in x]
            assert row["id"] in line, "a pipe gets it whole, however wide a terminal would be"
            assert line.endswith("connected")
            with get(running, f"/api/v1/connections/{row['id']}/events?interval=0.1") as events:
                assert events.headers["content-type"].startswith("text/event-stream")
                for _ in range(3):
                    assert events.readline() == b"event: stats\n"
                    data = json.loads(events.readline().removeprefix(b"data: "))
                    assert data["id"] == row["id"]
                    assert events.readline() == b"\n"
            with pytest.raises(urllib.error.HTTPError, match="400"):
                get(running, f"/api/v1/connections/{row['id']}/events?interval=0")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(running, "/api/v1/connections/00/events")


def test_top_fits_a_terminal_of_eighty_columns(tmp_path: Path) -> None:
    client = require("gtlsclient")
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        url = f"https://localhost:{running.port}/slow?seconds=60"
        with process([client, "-q", "127.0.0.1", str(running.port), url], tmp_path / "client.log"):
            wait_until(lambda: bool(live(running)), "a request")
            row = live(running)[0]
            ours, theirs = pty.openpty()
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            shown = b""

            def see(what: bytes) -> None:
                nonlocal shown
                while what not in shown:
                    assert select.select([ours], [], [], 20)[0], shown
                    shown += os.read(ours, 65536)

            started = subprocess.Popen(
                [sys.executable, "-m", "quicedge", "top", "--interval", "0.2", "--admin",
                 f"127.0.0.1:{running.admin_port}"],
                stdin=theirs, stdout=theirs, stderr=theirs, cwd=REPOSITORY,
                env={**os.environ, "TERM": "xterm"},
            )  # fmt: skip
            os.close(theirs)
            try:
                see(row["id"][:8].encode())
                assert row["id"].encode() not in shown, "a screen has room for its beginning"
                os.write(ours, b"\x1b[B\r")
                see(b"congestion window")
                os.write(ours, b"Gq")
                with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
                    while os.read(ours, 65536):
                        pass
                assert started.wait(20) == 0
            finally:
                started.kill()
                started.wait()
                os.close(ours)


def test_the_log_level_changes_everywhere(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        running.get("/echo")
        assert "connection ended" not in running.log()
        body = urllib.request.Request(
            f"http://127.0.0.1:{running.admin_port}/api/v1/log-level",
            data=b'{"level": "debug"}', headers={"content-type": "application/json"},
        )  # fmt: skip
        assert json.load(urllib.request.urlopen(body, timeout=10)) == {"level": "debug"}
        running.get("/echo")
        wait_until(lambda: "connection ended" in running.log(), "a line of level debug")
        assert "log level changed by operator" in running.log()
