"""Clients of HTTP/2 that others wrote, against the edge's TCP port."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import require, wait_until

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    directory = tmp_path_factory.mktemp("edge")
    with demo_origin() as origin, edge(directory, origin) as edge_process:
        yield edge_process


def run(*command: str, timeout: float = 60) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def curl(running: RunningEdge, path: str, *options: str) -> bytes:
    return run(
        require("curl"), "-sS", "--http2", "--cacert", str(running.certificate.ca), *options,
        f"https://localhost:{running.port}{path}",
    )  # fmt: skip


def test_curl(running: RunningEdge, tmp_path: Path) -> None:
    told = curl(running, "/", "-o", "/dev/null", "-w", "%{http_version} %{http_code}")
    assert told == b"2 200"
    content = curl(running, f"/download?size={20 * MEGABYTE}")
    assert len(content) == 20 * MEGABYTE
    sent = tmp_path / "sent"
    sent.write_bytes(content)
    answer = json.loads(curl(running, "/upload", "-X", "POST", "-T", str(sent)))
    assert hashlib.sha256(content).hexdigest() in answer.values()
    head = curl(running, "/", "-I").decode().lower()
    assert head.startswith("http/2 200")

    def logged() -> list[object]:
        return [record["protocol"] for record in running.access() if record["path"] == "/upload"]

    wait_until(lambda: bool(logged()), "the access log")
    assert "2" in str(logged()[0])


def test_curl_gets_an_answer_that_comes_before_the_end_of_its_upload(
    running: RunningEdge, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(50 * MEGABYTE))
    for path in ("/a/..%2fb", "/status/403"):
        told = curl(
            running, path, "--path-as-is", "-X", "POST", "-T", str(large), "-o", "/dev/null",
            "-w", "%{http_code}",
        )  # fmt: skip
        assert told in (b"400", b"403")


def test_an_authority_that_the_certificate_does_not_cover(running: RunningEdge) -> None:
    told = curl(running, "/", "-H", "Host: other.example", "-o", "/dev/null", "-w", "%{http_code}")
    assert told == b"421"


def test_nghttp_with_many_streams_and_padding(running: RunningEdge) -> None:
    url = f"https://localhost:{running.port}/download?size=300000"
    output = run(
        require("nghttp"), "-n", "-s", "-m", "50", "-b", "40", "-w", "20", "-W", "22",
        "--no-verify-peer", url,
    )  # fmt: skip
    assert output.count(b" 200 ") == 50, output


def test_h2load_gets_every_answer(running: RunningEdge) -> None:
    output = run(
        require("h2load"), "-n", "2000", "-c", "5", "-m", "20",
        f"https://localhost:{running.port}/",
    )  # fmt: skip
    assert b"2000 succeeded, 0 failed, 0 errored" in output, output


def test_httpx(running: RunningEdge) -> None:
    httpx = pytest.importorskip("httpx")
    trusted = ssl.create_default_context(cafile=str(running.certificate.ca))
    with httpx.Client(http2=True, verify=trusted) as client:
        base = f"https://localhost:{running.port}"
        for _ in range(3):
            answer = client.get(base + "/")
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        body = bytes(range(256)) * 8000
        answer = client.post(base + "/upload", content=body)
        assert hashlib.sha256(body).hexdigest() in answer.json().values()


NODE = """
const http2 = require('http2'), fs = require('fs');
const session = http2.connect(process.argv[1], {ca: fs.readFileSync(process.argv[2])});
let left = 20, bytes = 0;
for (let n = 0; n < 20; n++) {
  const stream = session.request({':path': '/download?size=100000'});
  stream.on('data', chunk => { bytes += chunk.length; });
  stream.on('end', () => { if (!--left) { console.log(bytes); session.close(); } });
  stream.end();
}
"""


def test_node(running: RunningEdge) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    url = f"https://localhost:{running.port}"
    assert run(node, "-e", NODE, url, str(running.certificate.ca)).strip() == b"2000000"
