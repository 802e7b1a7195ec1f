"""`quicedge check` on real files and sockets."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from quicedge.cli import main
from tests.support.certs import write_certificate
from tests.support.redisserver import redis_server


def write_config(tmp_path: Path, *, host: str = "localhost", listen: str = "127.0.0.1:0") -> Path:
    config = tmp_path / "quicedge.toml"
    config.write_text(
        f"""
listen = ["{listen}"]
[tls]
certificates = [{{ cert = "cert.pem", key = "cert.key" }}]
[upstreams.app]
servers = ["http://127.0.0.1:9"]
[[routes]]
host = "{host}"
upstream = "app"
"""
    )
    return config


def check(config: Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["check", "--config", str(config)])
    return result.exit_code, result.output


def test_a_good_configuration_passes_and_says_what_it_does(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    code, output = check(write_config(tmp_path))
    assert code == 0, output
    assert "send localhost/ to app (http://127.0.0.1:9)" in output
    assert "does not answer" in output  # a warning: nothing listens on port 9


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        config = write_config(tmp_path, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        code, output = check(config)
    assert code == 1
    assert "in use" in output


def test_a_host_that_no_certificate_covers_is_an_error(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    code, output = check(write_config(tmp_path, host="www.example.com"))
    assert code == 1
    assert "no certificate covers it" in output


def test_a_wildcard_host_is_covered_by_a_wildcard_certificate(tmp_path: Path) -> None:
    write_certificate(tmp_path, "*.example.com")
    assert check(write_config(tmp_path, host="*.example.com"))[0] == 0


def test_a_key_of_another_certificate_is_an_error(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    _, other = write_certificate(tmp_path, "localhost", stem="other")
    (tmp_path / "cert.key").write_bytes(other.read_bytes())
    code, output = check(write_config(tmp_path))
    assert code == 1
    assert "not that of the certificate" in output


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_that_others_can_read_is_an_error(tmp_path: Path, mode: int) -> None:
    write_certificate(tmp_path, "localhost")
    (tmp_path / "cert.key").chmod(mode)
    code, output = check(write_config(tmp_path))
    assert code == 1
    assert "chmod 600" in output


def test_an_expired_certificate_is_an_error(tmp_path: Path) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    write_certificate(tmp_path, "localhost", expires=past)
    code, output = check(write_config(tmp_path))
    assert code == 1
    assert "expired on" in output


def test_a_certificate_about_to_expire_is_a_warning(tmp_path: Path) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    write_certificate(tmp_path, "localhost", expires=soon)
    code, output = check(write_config(tmp_path))
    assert code == 0
    assert "expires in 2 days" in output


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text(config.read_text() + 'pathh = "/x"\n')
    code, output = check(config)
    assert code == 2
    assert "routes[0].pathh: unknown key; did you mean 'path'?" in output


def test_a_fleet_is_looked_at(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    keys = tmp_path / "fleet.keys"
    keys.write_text("ab" * 32)
    keys.chmod(0o644)
    with redis_server(tmp_path) as server:
        text = config.read_text().replace("[tls]", '[tls]\nshared_keys = "fleet.keys"')
        text += f'[quic]\nearly_data = true\n[limits]\nredis = "{server.url}"\n'
        config.write_text(text)
        code, output = check(config)
        assert code == 1
        assert "fleet.keys: mode 644" in output
        keys.chmod(0o600)
        code, output = check(config)
        assert code == 0
        assert "1 keys of" in output
        assert "limits.redis: answers" in output
        server.client().config_set("maxmemory-policy", "allkeys-lru")
        assert "may forget used tickets" in check(config)[1]
        server.stop()
        code, output = check(config)
        assert code == 0, "a fleet starts without its register"
        assert "limits.redis: does not answer" in output
