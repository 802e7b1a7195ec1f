"""The `[fleet]` section: refusals, the server ID of a host, keys and the secret in files."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path

import pytest

from quicedge.config.loader import ConfigError, parse_config
from quicedge.config.schema import Fleet
from quicedge.config.server_ids import ServerIdError, resolve_server_id
from quicedge.quic.fleet_identity import FleetIdentityError, read_identity
from tests.support.fleet import private_file

GOOD = '[upstreams.app]\nservers = ["http://127.0.0.1:8000"]\n[[routes]]\nupstream = "app"\n'
KEY = "8f95f09245765f80256934e50c66207f"


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("config_rotation = 1", "fleet.config_rotation: has no effect without server_id"),
        ('peers = ["a:443"]', "fleet.peers: has no effect without server_id"),
        ('server_id = "0x123"',
         "fleet.server_id: '0x123' is not an even number of hexadecimal digits, ordinal or "
         "address"),
        ('server_id = "ordinal:x"',
         "fleet.server_id: 'ordinal:x' is not an even number of hexadecimal digits, ordinal or "
         "address"),
        (f'server_id = "{"ab" * 11}"', f"fleet.server_id: '{'ab' * 11}' has 11 bytes; 1 to 10 are "
                                       "possible"),
        ('server_id = "address:0"', "fleet.server_id: 'address:0' has 0 bytes; 1 to 10 are "
                                    "possible"),
        ('server_id = "01"\nnonce_length = 7',
         "fleet.nonce_length: 7 is not a whole number from 8 to 17"),
        ('server_id = "0102030405060708"\nnonce_length = 11',
         "fleet.nonce_length: 11 is too large: with a server ID of 8 bytes the maximum is 10"),
        ('server_id = "01"\nconfig_rotation = 7',
         "fleet.config_rotation: 7 is too large: the maximum is 6"),
        ('server_id = "01"\nconnection_id_keys = "k"\nconfig_rotation = 1',
         "fleet.config_rotation: has no effect with connection_id_keys"),
        ('server_id = "01"\npeers = ["edge:443"]',
         "fleet.peers: requires secret_file, which authenticates hosts"),
        ('server_id = "01"\nsecret_file = "s"\npeers = ["edge"]',
         "fleet.peers[0]: 'edge' is not host:port or [v6]:port"),
    ],
)  # fmt: skip
def test_what_the_section_may_not_say(section: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(tomllib.loads(f"[fleet]\n{section}\n{GOOD}"), "test", Path("/etc/quicedge"))
    assert [str(problem) for problem in caught.value.problems] == [expected]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("redis://10.0.0.9", "tls.shared_keys: in Redis requires fleet.secret_file, which encrypts "
                             "them"),
        ("redis://10.0.0.9/x", "tls.shared_keys: 'redis://10.0.0.9/x' is not "
                               "redis://host:port/NUMBER"),
        ("http://10.0.0.9", "tls.shared_keys: is not redis://host:port or rediss://host:port"),
    ],
)  # fmt: skip
def test_where_ticket_keys_may_not_be(keys: str, expected: str) -> None:
    text = f'[tls]\nshared_keys = "{keys}"\n{GOOD}'
    with pytest.raises(ConfigError) as caught:
        parse_config(tomllib.loads(text), "test", Path("/etc/quicedge"))
    assert expected in [str(problem) for problem in caught.value.problems]


def test_a_fleet_without_quic_is_refused() -> None:
    text = f'protocols = ["h2"]\n[fleet]\nserver_id = "01"\n{GOOD}'
    with pytest.raises(ConfigError, match=r"fleet\.server_id: has no effect: no address speaks h3"):
        parse_config(tomllib.loads(text), "test", Path("/etc/quicedge"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0a01", "0a01"),
        ("0x0000000000000007", "0000000000000007"),
        ("ordinal", "000c"),
        ("ordinal:8", "000000000000000c"),
        ("address", "0a000209"),
        ("address:8", "000000000a000209"),
        ("address:2", "0209"),
    ],
)
def test_the_server_id_of_a_host(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("POD_IP", "10.0.2.9")
    monkeypatch.setattr(socket, "gethostname", lambda: "edge-12.default.svc")
    assert resolve_server_id(text).hex() == expected


def test_the_server_id_of_an_ipv6_address_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_IP", "2001:db8::1:2:3:4")
    assert resolve_server_id("address").hex() == "0001000200030004"


@pytest.mark.parametrize(
    ("text", "pod_ip", "expected"),
    [
        ("ordinal", "10.0.0.1", "does not end with a number"),
        ("address", "edge", "POD_IP: 'edge' is not an IP address"),
        ("address", "127.0.1.1", "resolves to 127.0.1.1; set POD_IP in the environment"),
    ],
)
def test_a_host_without_a_server_id(
    monkeypatch: pytest.MonkeyPatch, text: str, pod_ip: str, expected: str
) -> None:
    monkeypatch.setenv("POD_IP", pod_ip)
    monkeypatch.setattr(socket, "gethostname", lambda: "edge")
    with pytest.raises(ServerIdError, match=expected):
        resolve_server_id(text)


def test_an_ordinal_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "edge-256")
    with pytest.raises(ServerIdError, match="256 does not fit into 1 bytes"):
        resolve_server_id("ordinal:1")


def test_the_first_key_of_the_file_encodes_and_all_of_them_decode(tmp_path: Path) -> None:
    old, new = KEY, "ab" * 16
    path = private_file(tmp_path / "keys", f"# rotation key\n4 {new}  # since Friday\n\n1 {old}\n")
    identity = read_identity(Fleet(server_id="0a01", connection_id_keys=str(path)))
    assert identity is not None
    layout, ids = identity.layout(b"host"), identity.server_ids()
    cid = layout.make(9, bytes(8))
    assert cid[0] >> 5 == 4
    assert ids.of(cid, 0, len(cid)) == b"\x0a\x01"
    before = read_identity(
        Fleet(server_id="0a02", connection_id_keys=str(private_file(tmp_path / "k", f"1 {old}")))
    )
    assert before is not None
    assert ids.of(before.layout(b"").make(9, bytes(8)), 0, len(cid)) == b"\x0a\x02"
    assert old not in repr(identity)
    assert new not in repr(identity)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "has no keys"),
        (f"7 {KEY}", "line 1: is not a config rotation from 0 to 6 and 32 hexadecimal digits"),
        (f"{KEY}", "line 1: is not a config rotation"),
        (f"0 {KEY[:-2]}", "line 1: is not a config rotation"),
        (f"0 {KEY}\n0 {'ab' * 16}", "line 2: config rotation 0 is listed twice"),
    ],
)
def test_an_unusable_file_of_keys(tmp_path: Path, content: str, expected: str) -> None:
    path = private_file(tmp_path / "keys", content)
    with pytest.raises(FleetIdentityError, match=r"fleet\.connection_id_keys: .*keys: ") as caught:
        read_identity(Fleet(server_id="01", connection_id_keys=str(path)))
    assert expected in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("content", ["", "ab" * 31, "ab" * 32 + "\n" + "cd" * 32, "xy" * 32])
def test_an_unusable_secret(tmp_path: Path, content: str) -> None:
    path = private_file(tmp_path / "secret", content)
    with pytest.raises(FleetIdentityError, match="is not one line of 64 hexadecimal digits"):
        read_identity(Fleet(server_id="01", secret_file=str(path)))


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = private_file(tmp_path / "secret", "ab" * 32)
    path.chmod(0o644)
    with pytest.raises(FleetIdentityError, match=r"fleet\.secret_file: .*mode 644"):
        read_identity(Fleet(server_id="01", secret_file=str(path)))
