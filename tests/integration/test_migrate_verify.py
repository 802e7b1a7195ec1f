"""`quicedge migrate --verify`: nginx and quicedge side by side."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from quicedge.cli.migrate import command, translate
from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.report import Note
from quicedge.migrate.verify.nginx_original import NginxOriginal
from quicedge.migrate.verify.run import verify
from tests.support.peers import require, wait_until

ROOT = Path(__file__).resolve().parents[2]

NGINX = """
events {}
http {
    upstream app {
        server 10.0.0.1:8000;
        server 10.0.0.2:8000;
    }
    server {
        listen 443 ssl;
        server_name www.example.com;
        ssl_certificate missing.pem;
        ssl_certificate_key missing.key;
        client_max_body_size 0;

        location / {
            proxy_pass http://app;
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
        }
        location = /moved {
            return 302 /elsewhere;
        }
        location /app/ {
            proxy_pass http://10.0.0.3/;
        }
    }
}
"""

REQUESTS = """
GET https://www.example.com/a?b=c
Cookie: session=abc

### A form.
POST https://www.example.com/app/form
Content-Type: application/x-www-form-urlencoded

a=1&b=2

###
GET https://www.example.com/moved
###
GET https://www.example.com/lost
x-verify-answer: 404
"""


@pytest.fixture(autouse=True)
def nginx() -> str:
    return require("nginx")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "nginx.conf"
    path.write_text(NGINX)
    return path


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.txt"
    path.write_text(REQUESTS)
    return path


def test_given_requests_become_the_same_at_both(site, requests):
    result = CliRunner().invoke(command, [str(site), str(requests), "--verify"])
    assert result.exit_code == 0, result.output
    assert "4 requests played to both: 4 without a difference" in result.stdout
    assert "[[routes]]" not in result.stdout


def test_a_difference_that_was_not_announced_is_shown_and_fails(site, requests, monkeypatch):
    translation = translate(site)
    for route in translation.document.routes:
        if route.keys.get("path_exact") == "/moved":
            route.keys["filters"] = [{"redirect": {"to": "/nowhere", "status": 307}}]
        if route.keys.get("path", "/") == "/" and "upstream" in route.keys:
            filters = list(route.keys.get("filters", ()))
            route.keys["filters"] = [*filters, {"headers": {"request": {"set": {"x-new": "1"}}}}]
    monkeypatch.setattr("quicedge.cli.migrate.translate", lambda *_: translation)
    result = CliRunner().invoke(command, [str(site), str(requests), "--verify"])
    assert result.exit_code == 1
    assert (
        "client: status: 302 to https://www.example.com/elsewhere -> "
        "307 to https://www.example.com/nowhere\n      GET https://www.example.com/moved\n"
    ) in result.stdout
    assert (
        "origin: header x-new: none -> 1\n      GET https://www.example.com/a?b=c" in result.stdout
    )
    assert "0 announced differences, 2 unannounced" in result.stdout


def test_an_announced_difference_is_shown_with_what_announced_it(site, requests):
    translation = translate(site)
    translation.document.filters.append({"headers": {"response": {"set": {"x-new": "1"}}}})
    note = Note("all responses are new", (Effect(Side.CLIENT, Aspect.HEADER, "x-new"),))
    verdict = verify(site, replace(translation, notes=[note]), NginxOriginal, requests)
    assert verdict.is_proven
    assert verdict.same == 0
    assert (
        "client: header x-new: none -> 1\n      announced: all responses are new\n"
    ) in verdict.render()


CADDYFILE = "a.example.com\nreverse_proxy localhost:8000\n"


def documented() -> list[list[str]]:
    """The commands of README.md and docs/migrate.md, without the program."""
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "migrate.md").read_text()
    return [shlex.split(words) for words in re.findall(r"^\$ quicedge migrate (.*)$", text, re.M)]


@pytest.mark.parametrize("arguments", documented(), ids=" ".join)
def test_a_documented_command_works(arguments, site, requests, tmp_path, monkeypatch):
    (tmp_path / "Caddyfile").write_text(CADDYFILE)
    monkeypatch.chdir(tmp_path)
    here = [word.replace("/etc/nginx/", "") for word in arguments]
    result = CliRunner().invoke(command, here)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "quicedge.toml").exists() is ("-o" in arguments)


def test_files_are_written_before_the_proof(site, requests, tmp_path):
    output, report = tmp_path / "quicedge.toml", tmp_path / "report.txt"
    result = CliRunner().invoke(
        command,
        [str(site), str(requests), "--verify", "-o", str(output), "--report", str(report)],
    )
    assert result.exit_code == 0, result.output
    assert "[[routes]]" in output.read_text()
    assert "nginx.conf:" in report.read_text()


def test_a_configuration_that_nginx_refuses_is_told_in_its_words(site, requests):
    translation = translate(site)
    site.write_text(NGINX.replace("return 302", "return nothing"))
    result = CliRunner().invoke(command, [str(site), str(requests), "--verify"])
    assert result.exit_code == 2
    assert "nginx does not start" in result.output
    assert 'invalid return code "nothing"' in result.output
    assert translation.document.routes


def test_a_missing_nginx_is_told(site, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    result = CliRunner().invoke(command, [str(site), "--verify"])
    assert result.exit_code == 2
    assert "nginx is not in PATH" in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_a_signal(site, tmp_path, number):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "quicedge", "migrate", str(site), "--verify"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        # The edges have begun to start, or play already.
        wait_until(lambda: any(temporary.glob("*/nginx.pid")), "nginx writes its number")
        pid = int(next(temporary.glob("*/nginx.pid")).read_text() or 0)
        process.send_signal(number)
        assert process.wait(30) != 0
    assert list(temporary.iterdir()) == []
    if pid:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
