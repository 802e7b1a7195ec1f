"""HTTP/1.1 clients that nobody here wrote, through the edge, to the embedded origin."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests

from tests.support.edge import RunningEdge, edge
from tests.support.h1raw import context
from tests.support.origin import demo_origin
from tests.support.peers import answers, free_port, process, require, wait_until

SIZE = 3_000_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with (
        demo_origin() as origin,
        edge(tmp_path_factory.mktemp("edge"), origin, upstream_extra='protocol = "http/1.1"') as up,
    ):
        yield up


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upload") / "upload.bin"
    path.write_bytes(random.Random(5).randbytes(SIZE))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*command: str, timeout: float = 120, **options: str) -> str:
    done = subprocess.run(
        command, capture_output=True, timeout=timeout, check=False, text=True,
        env={**os.environ, **options},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def url(running: RunningEdge, path: str) -> str:
    return f"https://localhost:{running.port}{path}"


# --- curl and wget --------------------------------------------------------------------------------


def curl(running: RunningEdge, *options: str) -> str:
    return run(
        require("curl"), "-sS", "--fail", "--http1.1", "--cacert", str(running.certificate.ca),
        "--resolve", f"localhost:{running.port}:127.0.0.1", *options,
    )  # fmt: skip


def test_curl_downloads_over_one_connection(running: RunningEdge, tmp_path: Path) -> None:
    said = curl(
        running, "-w", "%{http_version} %{num_connects} %{size_download}\\n",
        "-o", str(tmp_path / "1"), url(running, f"/download?size={SIZE}"),
        "-o", str(tmp_path / "2"), url(running, "/download?size=10"),
    )  # fmt: skip
    assert said.split("\n")[:2] == [f"1.1 1 {SIZE}", "1.1 0 10"]


@pytest.mark.parametrize(
    "options",
    [("-T", "{}"), ("-T", "-"), ("--data-binary", "@{}"), ("--http1.0", "--data-binary", "@{}")],
    ids=["announced", "chunked", "expecting 100", "HTTP/1.0"],
)
def test_curl_uploads(running: RunningEdge, upload: Path, options: tuple[str, ...]) -> None:
    arguments = [option.format(upload) for option in options]
    with upload.open("rb") as content:
        done = subprocess.run(
            [
                require("curl"), "-sS", "--fail", "--http1.1", "-X", "POST",
                "--cacert", str(running.certificate.ca),
                "--resolve", f"localhost:{running.port}:127.0.0.1",
                *arguments, url(running, "/upload"),
            ],
            stdin=content, capture_output=True, timeout=60, check=False, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sha256"] == sha256(upload)


def test_curl_sees_the_head_alone(running: RunningEdge) -> None:
    said = curl(running, "-I", url(running, f"/download?size={SIZE}"))
    assert f"content-length: {SIZE}" in said


def test_wget_downloads(running: RunningEdge, tmp_path: Path) -> None:
    target = tmp_path / "got"
    run(
        require("wget"), "-q", f"--ca-certificate={running.certificate.ca}",
        "-O", str(target), url(running, f"/download?size={SIZE}"),
    )  # fmt: skip
    assert target.stat().st_size == SIZE


# --- Python ---------------------------------------------------------------------------------------


def test_http_client_goes_on_with_its_connection(running: RunningEdge, upload: Path) -> None:
    connection = http.client.HTTPSConnection(
        "localhost", running.port, context=context(running), timeout=30
    )
    for number in range(20):
        connection.request("GET", f"/download?size={number * 1000}")
        answer = connection.getresponse()
        assert len(answer.read()) == number * 1000
    with upload.open("rb") as content:
        chunks = iter(lambda: content.read(10_000), b"")
        connection.request("POST", "/upload", body=chunks, encode_chunked=True, headers={
            "Transfer-Encoding": "chunked",
        })  # fmt: skip
        answer = connection.getresponse()
    assert json.loads(answer.read())["sha256"] == sha256(upload)
    connection.close()


def test_requests_keeps_a_session(running: RunningEdge, upload: Path) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(running.certificate.ca)
        assert len(session.get(url(running, f"/download?size={SIZE}")).content) == SIZE
        with upload.open("rb") as content:
            said = session.post(url(running, "/upload"), data=content).json()
        assert said["sha256"] == sha256(upload)
        assert session.head(url(running, "/download?size=5")).headers["content-length"] == "5"


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_httpx_keeps_a_connection(running: RunningEdge, upload: Path, version: str) -> None:
    http2 = version == "HTTP/2"
    with httpx.Client(
        verify=context(running), http1=not http2, http2=http2, trust_env=False, timeout=30
    ) as client:
        for number in range(10):
            answer = client.get(url(running, f"/download?size={number * 50_000}"))
            assert (answer.http_version, len(answer.content)) == (version, number * 50_000)
        with upload.open("rb") as content:
            said = client.post(url(running, "/upload"), content=content).json()
        assert said["sha256"] == sha256(upload)


# --- load generators ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-k",)], ids=["closing", "keep-alive"])
def test_ab_finds_no_fault(running: RunningEdge, options: tuple[str, ...]) -> None:
    said = run(
        require("ab"), "-q", "-n", "200", "-c", "10", *options,
        url(running, "/download?size=5000"),
    )  # fmt: skip
    assert re.search(r"Complete requests: +200\n", said), said
    assert re.search(r"Failed requests: +0\n", said), said
    assert "Non-2xx" not in said
    assert re.search(r"HTML transferred: +1000000 bytes", said), said


def test_wrk_finds_no_fault(running: RunningEdge) -> None:
    said = run(
        require("wrk"), "-t1", "-c10", "-d2s", "--latency", url(running, "/download?size=5000")
    )
    done = re.search(r"(\d+) requests in", said)
    assert done is not None, said
    assert int(done[1]) > 100
    assert "Socket errors" not in said
    assert "Non-2xx" not in said


# --- Go and node ----------------------------------------------------------------------------------

GO = """
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	pem, _ := os.ReadFile(os.Args[1])
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}},
		TLSNextProto:    map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	client := &http.Client{Transport: transport}
	for i := 0; i < 20; i++ {
		response, err := client.Get(os.Args[2] + fmt.Sprintf("/download?size=%d", i*1000))
		if err != nil {
			panic(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || len(body) != i*1000 || response.Proto != "HTTP/1.1" {
			panic(fmt.Sprint(err, len(body), response.Proto))
		}
	}
	request, _ := http.NewRequest("POST", os.Args[2]+"/upload",
		struct{ io.Reader }{bytes.NewReader(make([]byte, 1000000))})
	request.Header.Set("Expect", "100-continue")
	response, err := client.Do(request)
	if err != nil {
		panic(err)
	}
	body, _ := io.ReadAll(response.Body)
	if !strings.Contains(string(body), "1000000") {
		panic(string(body))
	}
	fmt.Println("done")
}
"""


def test_go_net_http(running: RunningEdge, tmp_path: Path) -> None:
    go = require("go")
    program = tmp_path / "main.go"
    program.write_text(GO)
    said = run(
        go, "run", str(program), str(running.certificate.ca), url(running, ""),
        GOFLAGS="-mod=mod", GO111MODULE="off",
    )  # fmt: skip
    assert said == "done\n"


NODE = """
const https = require("https"), fs = require("fs");
const ca = fs.readFileSync(process.argv[2]);
const agent = new https.Agent({ keepAlive: true, maxSockets: 2, ca });
const base = process.argv[3];
let left = 20;
function get(number) {
  https.get(base + "/download?size=" + number * 1000, { agent }, (answer) => {
    let size = 0;
    answer.on("data", (data) => { size += data.length; });
    answer.on("end", () => {
      if (size !== number * 1000) throw new Error("size " + size);
      if (--left === 0) upload();
    });
  });
}
function upload() {
  const request = https.request(base + "/upload", { agent, method: "POST" }, (answer) => {
    let text = "";
    answer.on("data", (data) => { text += data; });
    answer.on("end", () => {
      if (!text.includes("1000000")) throw new Error(text);
      console.log("done");
      agent.destroy();
    });
  });
  for (let i = 0; i < 100; i++) request.write(Buffer.alloc(10000));
  request.end();
}
for (let i = 0; i < 20; i++) get(i);
"""


def test_node_https(running: RunningEdge, tmp_path: Path) -> None:
    program = tmp_path / "main.js"
    program.write_text(NODE)
    said = run(require("node"), str(program), str(running.certificate.ca), url(running, ""))
    assert said == "done\n"


# --- nginx in front -------------------------------------------------------------------------------


def test_nginx_as_a_proxy_in_front(running: RunningEdge, tmp_path: Path, upload: Path) -> None:
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"""
daemon off; master_process off; pid {tmp_path}/pid; error_log stderr;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
  fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
  client_max_body_size 0;
  upstream quicedge {{ server 127.0.0.1:{running.port}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass https://quicedge;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host localhost;
      proxy_ssl_server_name on; proxy_ssl_name localhost;
      proxy_ssl_trusted_certificate {running.certificate.ca}; proxy_ssl_verify on;
      proxy_request_buffering off;
    }}
  }}
}}
"""
    )
    with process(
        [require("nginx"), "-p", str(tmp_path), "-c", str(config)], tmp_path / "nginx.log"
    ):
        wait_until(lambda: answers(port), "nginx")
        base = f"http://127.0.0.1:{port}"
        with requests.Session() as session:
            for number in range(10):
                answer = session.get(f"{base}/download?size={number * 50_000}")
                assert len(answer.content) == number * 50_000
            for content in (upload.read_bytes(), iter([upload.read_bytes()])):
                said = session.post(f"{base}/upload", data=content).json()
                assert said["sha256"] == sha256(upload)
