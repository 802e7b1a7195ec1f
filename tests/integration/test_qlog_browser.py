"""The report in a real browser: it draws, complains of nothing, and runs nobody else's script."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from quicedge.qlog import report
from quicedge.qlog.analyse import analyse
from tests.support.peers import require
from tests.support.qlogtraces import lossy, transfer

OWNED = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def dump(page: Path, directory: Path) -> tuple[str, str]:
    """The document after its script has run, and what the browser said."""
    done = subprocess.run(
        [require("chromium"), "--headless", "--no-sandbox", "--disable-gpu",
         "--disable-dev-shm-usage", f"--user-data-dir={directory / 'profile'}",
         "--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1300,2000",
         "--dump-dom", page.as_uri()],
        capture_output=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("utf-8"), done.stderr.decode(errors="replace")


def write(directory: Path, *paths: Path) -> Path:
    sides = []
    for path in paths:
        analysis = analyse(path)
        assert analysis.main is not None
        sides.append((analysis, analysis.main))
    page = directory / "report.html"
    report.write(page, sides)
    return page


@pytest.mark.parametrize("ends", [1, 2])
def test_it_draws(tmp_path: Path, ends: int) -> None:
    paths = lossy().write(tmp_path)
    document, said = dump(write(tmp_path, *paths[2 - ends :]), tmp_path)
    assert "CONSOLE" not in said, said
    # The server's side is shown first: it has sent.
    assert "700 kB sent" in document
    for title in ("What limited it (sending)", "Congestion", "Round-trip time", "Goodput",
                  "Waterfall", "Packet sizes sent"):  # fmt: skip
        assert title in document
    assert document.count('role="img"') >= 9
    assert "GET /file2 200" in document
    assert "Next loss" in document
    assert ("client (client.qlog)" in document) == (ends == 2)
    assert "NaN" not in re.sub(r"<script.*?</script>", "", document, flags=re.S)
    assert "undefined" not in re.sub(r"<script.*?</script>", "", document, flags=re.S)


def test_a_hostile_trace_runs_nothing(tmp_path: Path) -> None:
    done = transfer(sizes=(3000,), loss=0, path=OWNED.encode(), close_reason=OWNED)
    for trace in (done.client, done.server):
        body = trace["traces"][0]
        trace["title"] = body["title"] = body["vantage_point"]["name"] = OWNED
        body["common_fields"]["ODCID"] = OWNED
        body["events"].append({"time": 1_700_000_000_500, "name": OWNED, "data": {OWNED: OWNED}})
    directory = tmp_path / OWNED.replace("/", "_")
    directory.mkdir()
    document, said = dump(write(tmp_path, *done.write(directory)), tmp_path)
    assert "CONSOLE" not in said, said
    assert "<title>client.qlog and server.qlog" in document
    without_script = re.sub(r"<script.*?</script>", "", document, flags=re.S)
    assert "<img" not in without_script
    assert "&lt;script&gt;document.title" in without_script


def test_a_trace_with_next_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlog"
    path.write_text('{"qlog_version":"0.3","trace":{}}\n{"time":0,"name":"a:b","data":{}}\n')
    document, said = dump(write(tmp_path, path), tmp_path)
    assert "CONSOLE" not in said, said
    assert "No stream data" in document
