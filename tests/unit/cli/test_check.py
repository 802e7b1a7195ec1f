"""`quicedge check` on real files and sockets."""

from __future__ import annotations

import datetime
import json
import os
import select
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from quicedge.cli import main
from quicedge.quic.certificate_compression import COMPRESSIONS
from tests.support.certs import write_certificate
from tests.support.clientpki import authority, revocation_list
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
[admin]
enabled = false
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
    assert f"in use by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})" in output


def test_a_host_that_no_certificate_covers_is_an_error(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    code, output = check(write_config(tmp_path, host="www.example.com"))
    assert code == 1
    assert "not covered by any certificate" in output


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


def test_authorities_and_revocation_lists_of_clients_are_looked_at(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    root = authority("root")
    config = write_config(tmp_path)
    entry = '[[tls.client_auth]]\nclient_ca = "ca.pem"\ncrl = ["list.pem"]\n'
    config.write_text(config.read_text() + entry)
    code, output = check(config)
    assert code == 1
    assert "tls.client_auth[0].client_ca: " in output
    (tmp_path / "ca.pem").write_bytes(root.pem)
    (tmp_path / "list.pem").write_bytes(revocation_list(root))
    code, output = check(config)
    assert code == 0
    assert "certificates of clients of *: require; CN=root,O=Example" in output
    (tmp_path / "list.pem").write_bytes(revocation_list(root, age=2))
    code, output = check(config)
    assert code == 1
    assert "the revocation list of CN=root,O=Example is out of date since" in output


def test_a_route_that_waits_for_certificates_nobody_asks_for_is_a_warning(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    waiting = 'upstream = "app"\nhost = "localhost"\npath = "/a"\n'
    waiting += 'tls = { client_names = ["a.example"] }\n'
    config.write_text(f"{config.read_text()}\n[[routes]]\n{waiting}")
    code, output = check(config)
    assert code == 0
    assert "never matches: no client is asked for a certificate" in output
    assert "add [[tls.client_auth]]" in output


def test_a_pattern_without_a_certificate_is_an_error(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace('"cert.', '"live/*.'))
    code, output = check(config)
    assert code == 1
    assert "none is in the files and directories configured" in output


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
        assert "used tickets may be evicted" in check(config)[1]
        server.stop()
        code, output = check(config)
        assert code == 0, "a fleet starts without its register"
        assert "limits.redis: does not answer" in output


def test_what_hosts_share_is_looked_at(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    keys, secret, store = tmp_path / "ids.keys", tmp_path / "fleet.secret", tmp_path / "tickets"
    store.mkdir(mode=0o700)
    for file, content in ((keys, f"3 {'ab' * 16}\n1 {'cd' * 16}\n"), (secret, "ef" * 32)):
        file.touch(mode=0o600)
        file.write_text(content)
    config.write_text(
        config.read_text().replace("[tls]", '[tls]\nshared_keys = "tickets"')
        + """
[fleet]
server_id = "0x1122334455667701"
connection_id_keys = "ids.keys"
secret_file = "fleet.secret"
peers = ["127.0.0.1:443", "localhost:443"]
"""
    )
    code, output = check(config)
    assert code == 0, output
    assert "fleet.server_id: 0x1122334455667701" in output
    assert "fleet.connection_id_keys: config rotation 3 encrypts; 1 more decrypt" in output
    assert "tickets: 2 keys, which rotate" in output
    assert "fleet.peers[0]: 127.0.0.1:443 is an address" in output
    keys.chmod(0o640)
    store.chmod(0o777)
    code, output = check(config)
    assert code == 1
    assert "ids.keys: mode 640" in output


# --- files, directories, the admin API ----------------------------------------------------------


def findings(config: Path) -> dict[str, tuple[str, str]]:
    """What `check --json` says of each subject: level and message."""
    result = CliRunner().invoke(main, ["check", "--json", "--config", str(config)])
    return {item["subject"]: (item["level"], item["message"]) for item in json.loads(result.output)}


def test_a_state_directory_that_the_edge_would_refuse_is_an_error(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    config.write_text('state_directory = "state"\n' + config.read_text())
    state = tmp_path / "state"
    assert findings(config)["state_directory"] == ("ok", f"{state} will be created")
    assert not state.exists()
    state.mkdir(mode=0o700)
    assert findings(config)["state_directory"] == ("ok", f"{state}: no secret yet")
    secret = state / "secret"
    secret.touch(mode=0o600)
    secret.write_bytes(bytes(32))
    assert findings(config)["state_directory"][0] == "ok"
    secret.write_bytes(b"short")
    level, message = findings(config)["state_directory"]
    assert (level, message.partition(";")[0]) == ("error", f"{secret}: 5 bytes, must be 32")
    state.chmod(0o777)
    level, message = findings(config)["state_directory"]
    assert (level, message.partition(";")[0]) == (
        "error", f"{state}: mode 777 lets others write there",
    )  # fmt: skip
    secret.unlink()
    state.rmdir()
    state.touch()
    assert findings(config)["state_directory"] == ("error", f"{state} is not a directory")


def test_what_the_edge_writes_and_reads_is_looked_at(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    (tmp_path / "ca").write_text("words")
    (tmp_path / "a file").touch()
    config.write_text(
        config.read_text()
        .replace("[tls]", '[tls]\nkeylog = "a file/keys"')
        .replace('["http://127.0.0.1:9"]', '["https://127.0.0.1:9"]\ntls_ca = "ca"')
        .replace("enabled = false", f'listen = "unix:{tmp_path}/no/sock"\ntoken_file = "token"')
        + f"""
[upstreams.files]
root = "absent"
[log]
file = "{tmp_path}"
access_file = "no/access.log"
[qlog]
directory = "none"
"""
    )
    found = findings(config)
    expected = {
        f"log.file {tmp_path}": ("error", "is a directory"),
        f"log.access_file {tmp_path}/no/access.log":
            ("error", f"directory {tmp_path}/no does not exist"),
        f"tls.keylog {tmp_path}/a file/keys":
            ("error", f"Not a directory (as user {os.geteuid()})"),
        f"qlog.directory {tmp_path}/none": ("error", "is not a directory"),
        f"upstream files {tmp_path}/absent":
            ("error", f"No such file or directory (as user {os.geteuid()})"),
        f"upstream app tls_ca {tmp_path}/ca": ("error", "contains no PEM certificate"),
        f"admin unix:{tmp_path}/no/sock": ("error", f"directory {tmp_path}/no does not exist"),
        "upstream files": ("warning", "not used by any route or filter"),
    }  # fmt: skip
    assert {subject: found.get(subject) for subject in expected} == expected
    level, message = found["admin.token_file"]
    assert level == "error"
    assert message.startswith(f"{tmp_path}/token: ")


def test_a_log_that_is_a_pipe_is_not_opened(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    config.write_text(config.read_text() + '\n[log]\naccess_file = "pipe"\n')
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with select.epoll() as poll:
        poll.register(reader, select.EPOLLHUP)
        found = findings(config)[f"log.access_file {tmp_path}/pipe"]
        assert found == ("ok", "is a pipe: its reader must start before the edge")
        assert poll.poll(0) == [], "the reader was told that the pipe has ended"
    os.close(reader)


def test_a_taken_admin_port_is_an_error(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(config.read_text().replace("enabled = false", f'listen = "{listen}"'))
        assert findings(config)[f"admin {listen}"] == ("error", "Address already in use")
    assert findings(config)[f"admin {listen}"] == ("ok", "free")


def test_the_address_of_redirects_is_shown_and_looked_at(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(f'redirect_http = ["{address}"]\n' + config.read_text())
        level, message = findings(config)[f"redirect_http {address}"]
        assert level == "error"
        assert (
            f"in use by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
            in message
        )
    assert findings(config)[f"redirect_http {address}"] == ("ok", "free")
    assert f"redirect plain HTTP on {address} to https" in check(config)[1]


def test_a_default_port_for_redirects_that_is_taken_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_certificate(tmp_path, "localhost")
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("127.0.0.1", 0)) as https,
    ):
        monkeypatch.setattr("quicedge.config.listeners.HTTP_PORT", taken.getsockname()[1])
        monkeypatch.setattr("quicedge.config.listeners.HTTPS_PORT", port := https.getsockname()[1])
        https.close()
        found = findings(write_config(tmp_path, listen=f"127.0.0.1:{port}"))
        level, message = found[f"redirect_http 127.0.0.1:{taken.getsockname()[1]}"]
    assert level == "warning"
    assert message.endswith("; plain HTTP is not redirected")


def test_the_proxies_whose_headers_name_clients_are_shown(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    config.write_text(
        config.read_text().replace(
            '["127.0.0.1:0"]', '[{ address = "127.0.0.1:0", proxy_protocol = ["192.0.2.0/24"] }]'
        )
    )
    _, output = check(config)
    assert "take the clients of 127.0.0.1:0 on TCP from the PROXY headers of 192.0.2.0/24" in output


# --- the file alone -----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["validate"], ["check", "--no-machine"]])
def test_a_file_is_validated_alone(tmp_path: Path, arguments: list[str]) -> None:
    config = tmp_path / "quicedge.toml"
    config.write_text(
        """
user = "of-another-machine"
[tls]
certificates = [{ cert = "/no/cert.pem", key = "/no/cert.key" }]
[upstreams.files]
root = "/no/such/root"
[[routes]]
upstream = "files"
[qlog]
directory = "/no/such/directory"
"""
    )
    good = CliRunner().invoke(main, [*arguments, "--config", str(config)])
    assert good.exit_code == 0, good.output
    assert "send */ to files (/no/such/root)" in good.output
    assert "On this machine" not in good.output
    config.write_text(config.read_text() + "rate = 3\n")
    bad = CliRunner().invoke(main, [*arguments, "--config", str(config)])
    assert bad.exit_code == 2
    assert f"{config}:11: qlog.rate: 3 is too large" in bad.output


def test_it_tells_how_keys_are_exchanged_on_both_transports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_certificate(tmp_path, "localhost")
    code, output = check(write_config(tmp_path))
    assert code == 0, output
    assert "key exchange on QUIC: X25519MLKEM768, SecP256r1MLKEM768, x25519, " in output
    assert "key exchange on TCP: " in output
    monkeypatch.setattr("quicedge.quic.key_exchange.MLKEM_MISSING", "too old")
    monkeypatch.setattr("quicedge.cli.findings.key_exchange.MLKEM_MISSING", "too old")
    code, output = check(write_config(tmp_path))
    assert code == 0, output
    assert "no hybrids with ML-KEM: too old" in output
    assert "install cryptography's wheel" in output


def test_groups_that_cannot_be_used_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace("[tls]", '[tls]\ngroups = ["X25519MLKEM768"]'))
    monkeypatch.setattr("quicedge.quic.key_exchange.MLKEM_MISSING", "too old")
    monkeypatch.setattr("quicedge.cli.findings.key_exchange.MLKEM_MISSING", "too old")
    monkeypatch.setattr("ssl.OPENSSL_VERSION_INFO", (3, 0, 0, 0, 0))
    code, output = check(config)
    assert code == 1
    assert "key exchange on QUIC: no configured group can be used: too old" in output
    assert "key exchange on TCP: tls.groups cannot be set" in output


def test_a_chain_that_is_too_long_for_the_first_flight_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_certificate(tmp_path, "localhost", *(f"service-{n}.example.com" for n in range(200)))
    config = write_config(tmp_path)
    code, output = check(config)
    assert code == 0, output
    assert "fits the first flight of QUIC for clients that take it compressed" in output
    only_zlib = [one for one in COMPRESSIONS if one.name == "zlib"]
    for module in ("cli.findings.chain_size", "quic.certificate_compression"):
        monkeypatch.setattr(f"quicedge.{module}.COMPRESSIONS", only_zlib)
    assert "pip install 'quicedge[compression]'" in check(config)[1]
    names = [f"{os.urandom(20).hex()}.example.com" for _ in range(200)]
    write_certificate(tmp_path, "localhost", *names)
    assert "handshakes take a round trip more" in check(config)[1]


def test_filters_that_cannot_be_built_are_named(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    config = write_config(tmp_path)
    config.write_text(
        config.read_text()
        + """
[[routes.filters]]
basic_auth = { htpasswd = "users" }
[[routes.filters]]
error_pages = { pages = { 404 = "gone.html" } }
[[routes.filters]]
forward_auth = { upstream = "app" }
"""
    )
    code, output = check(config)
    assert code == 1
    assert "routes[0].filters[0].basic_auth.htpasswd: " in output
    assert "routes[0].filters[1].error_pages.pages.404: " in output
    (tmp_path / "users").write_text(f"ann:$2b$04${'x' * 53}\n")
    (tmp_path / "gone.html").write_text("gone")
    code, output = check(config)
    assert code == 0, output
    assert "filters: all 3 can be built" in output
