"""What a reload may read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quicedge.config.schema import Admin, Config
from quicedge.quic.fleet_identity import FleetIdentity, IdKey
from quicedge.supervisor.reload import (
    ReloadError,
    needs_new_workers,
    require_same_place,
    reread,
)
from quicedge.worker.control import Settings


def test_a_pipe_is_not_read_again(tmp_path: Path) -> None:
    """Reading it would block the supervisor and with it all of the administration."""
    path = tmp_path / "edge.toml"
    os.mkfifo(path)
    with pytest.raises(ReloadError, match="regular file"):
        reread(str(path), Config(upstreams={}, routes=[]))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReloadError, match="No such file"):
        reread(str(tmp_path / "edge.toml"), Config(upstreams={}, routes=[]))


@pytest.mark.parametrize(
    ("changed", "needed"),
    [
        ({"workers": 2}, True),
        ({"listen": ["127.0.0.1:4434"]}, True),
        ({"listen": ["127.0.0.1:4433", "127.0.0.1:4434"]}, True),
        ({"protocols": ["h3"]}, True),
        ({"protocols": ["h2", "http/1.1"]}, True),
        ({"protocols": ["h3", "http/1.1", "h2"]}, False),
        ({"redirect_http": ["127.0.0.1:8080"]}, True),
        ({"drain_timeout": 7.0}, False),
        ({"admin": Admin(enabled=False)}, False),
    ],
)
def test_changes_of_processes_and_sockets_need_new_workers(
    changed: dict[str, Any], needed: bool
) -> None:
    current = Config(listen=["127.0.0.1:4433"])
    new = msgspec.structs.replace(current, **changed)
    assert needs_new_workers(new, current) is needed


def of_fleet(*keys: IdKey) -> Settings:
    fleet = FleetIdentity(server_id=b"1", nonce_length=6, id_keys=list(keys), secret=None)
    return Settings(config=Config(), certificates=[], fleet=fleet)


def test_another_key_has_a_rotation_of_its_own() -> None:
    """Other hosts would read wrong server IDs in the connection IDs that there are."""
    plain, old, new = IdKey(3, None), IdKey(3, bytes(16)), IdKey(4, b"k" * 16)
    for current, wanted in ((of_fleet(old), [new, old]), (of_fleet(new, old), [new])):
        require_same_place(of_fleet(*wanted), current)
    for wanted in (IdKey(3, b"k" * 16), plain):
        with pytest.raises(ReloadError, match=r"connection_id_keys: config rotation 3 has another"):
            require_same_place(of_fleet(wanted), of_fleet(old))
