"""Filters written in Python on whole edges, over every HTTP version, and across reloads."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.h3client import h3_client
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

CODE = """
import asyncio

from quicedge.filters import BodyTransform, Context, Filter, Request, Response

VERSION = "one"


class Upper(BodyTransform):
    def write(self, data):
        return data.upper()


class Everything(Filter):
    def __init__(self, greeting="hello"):
        self.greeting = greeting

    async def on_request(self, request: Request, context: Context):
        await asyncio.sleep(0)
        if request.path == "/answer":
            facts = [context.client.http_version, context.client.transport, VERSION]
            return Response(200, {"x-greeting": self.greeting}, " ".join(facts))
        if request.path == "/crash":
            raise LookupError("nothing there")
        if request.path == "/slow":
            import time
            time.sleep(0.15)
        request.target = "/download?size=100"

    def on_response(self, response, context):
        response.headers["x-seen"] = "yes"
        if context.request.path == "/upper":
            context.transform_response(Upper())
"""


def write(directory: Path, code: str = CODE) -> None:
    (directory / "edge_filters.py").write_text(code)


FILTERS = """
[[filters]]
[filters.python]
filter = "edge_filters:Everything"
options = { greeting = "hi" }
"""


def reload(running: RunningEdge) -> subprocess.CompletedProcess[str]:
    config = str(running.directory / "quicedge.toml")
    return subprocess.run(
        [sys.executable, "-m", "quicedge", "reload", "--config", config],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False,
    )  # fmt: skip


async def test_a_filter_works_over_every_http_version(tmp_path: Path) -> None:
    write(tmp_path)
    with demo_origin() as origin, edge(tmp_path, origin, FILTERS, tracebacks=True) as running:
        tls = ssl.create_default_context(cafile=str(running.certificate.ca))
        base = f"https://localhost:{running.port}"
        plain = httpx.AsyncClient(base_url=base, verify=tls, http2=False)
        multiplexed = httpx.AsyncClient(base_url=base, verify=tls, http1=False, http2=True)
        for client, facts in ((plain, "1.1 tcp one"), (multiplexed, "2 tcp one")):
            async with client:
                answer = await client.get("/answer")
                assert (answer.status_code, answer.text) == (200, facts)
                assert answer.headers["x-greeting"] == "hi"
                upper = await client.get("/upper")
                assert upper.headers["x-seen"] == "yes"
                assert len(upper.content) == 100
                assert upper.content == (await client.get("/other")).content.upper()
                assert (await client.get("/crash")).status_code == 500
        async with h3_client(running.port) as h3:
            answer3 = await h3.ask(b"GET", b"/answer")
            assert (answer3.status, bytes(answer3.body)) == (200, b"3 quic one")
            upper3 = await h3.ask(b"GET", b"/upper")
            assert upper3.values(b"x-seen") == [b"yes"]
            assert bytes(upper3.body) == upper.content
            assert (await h3.ask(b"GET", b"/crash")).status == 500
            await h3.ask(b"GET", b"/slow")
        metrics = running.metrics()
        label = '{filter="edge_filters:Everything"}'
        lines = [line for line in metrics.splitlines() if not line.startswith("#")]
        counts = dict(line.rsplit(" ", 1) for line in lines)
        assert float(counts[f"quicedge_filter_failures_total{label}"]) == 3
        assert float(counts[f"quicedge_filter_calls_total{label}"]) > 20
        assert float(counts[f"quicedge_filter_blocking_seconds_total{label}"]) < 1
        assert "filters[0] (python)" in running.log()
        assert "LookupError: nothing there" in running.log()


def test_a_reload_takes_up_changed_code_or_leaves_everything(tmp_path: Path) -> None:
    write(tmp_path)
    with demo_origin() as origin, edge(tmp_path, origin, FILTERS) as running:
        assert running.get("/answer").stdout == b"3 quic one"
        write(tmp_path, CODE.replace('"one"', '"two, which is longer"'))
        done = reload(running)
        assert done.returncode == 0, done.stdout + done.stderr
        assert running.get("/answer").stdout == b"3 quic two, which is longer"
        write(tmp_path, "1 / 0\n")
        refused = reload(running)
        assert refused.returncode == 1
        said = refused.stdout + refused.stderr
        assert "filters[0].python.filter: edge_filters:Everything: ZeroDivisionError" in said
        assert running.get("/answer").stdout == b"3 quic two, which is longer"


def test_a_filter_that_blocks_its_worker_is_logged(tmp_path: Path) -> None:
    write(tmp_path)
    with demo_origin() as origin, edge(tmp_path, origin, FILTERS) as running:
        assert running.get("/slow").returncode == 0
        wait_until(lambda: "filter blocks its worker" in running.log(), "the warning")


async def test_a_client_that_leaves_cancels_the_coroutine(tmp_path: Path) -> None:
    write(
        tmp_path,
        "import asyncio\n"
        "from quicedge.filters import Filter\n"
        "class Everything(Filter):\n"
        "    def __init__(self, greeting): ...\n"
        "    async def on_request(self, request, context):\n"
        "        context.log.warning('waiting')\n"
        "        try:\n"
        "            await asyncio.Event().wait()\n"
        "        finally:\n"
        "            context.log.warning('cancelled with its client')\n",
    )
    with demo_origin() as origin, edge(tmp_path, origin, FILTERS) as running:
        async with h3_client(running.port) as h3:
            stream_id = h3.open(b"GET", b"/")
            await h3.until(lambda: '"waiting"' in running.log())
            h3.cancel(stream_id)
            await h3.until(lambda: "cancelled with its client" in running.log())
