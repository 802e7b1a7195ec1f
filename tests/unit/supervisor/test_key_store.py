"""Ticket keys that rotate by themselves: in a directory that hosts share, and in Redis."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from quicedge.config.limits import SHARED_KEY_PERIOD, SHARED_KEYS_KEPT
from quicedge.config.schema import Config, Fleet, Tls
from quicedge.quic.fleet_identity import FleetIdentity, IdKey
from quicedge.supervisor.key_rotation import KeyRotation
from quicedge.supervisor.key_store import (
    DirectoryStore,
    KeyStore,
    KeyStoreError,
    RedisStore,
    is_store,
    read_keys,
    shown,
)
from quicedge.worker.control import Settings

SECRET = b"s" * 32
NOW = 1000 * SHARED_KEY_PERIOD + 5


class Redis:
    """As much of Redis as is asked for."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lifetimes: dict[str, int] = {}
        self.is_down = False

    def get(self, name: str) -> bytes | None:
        if self.is_down:
            raise ConnectionError("no route")
        return self.values.get(name)

    def set(self, name: str, value: bytes, *, nx: bool, ex: int) -> object:
        assert nx
        self.lifetimes[name] = ex
        return self.values.setdefault(name, value)


@pytest.fixture(params=["directory", "redis"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> list[KeyStore]:
    """The stores of two hosts that share one place."""
    if request.param == "directory":
        tmp_path.chmod(0o700)
        return [DirectoryStore(str(tmp_path)) for _ in range(2)]
    redis = Redis()
    return [RedisStore(redis, SECRET) for _ in range(2)]


def test_hosts_have_the_same_keys_and_the_next_one_ahead_of_time(hosts: list[KeyStore]) -> None:
    here, there = hosts
    keys = read_keys(here, NOW)
    assert len(set(keys)) == 2, "the one of this period, and the next"
    assert read_keys(there, NOW) == keys
    later = read_keys(there, NOW + SHARED_KEY_PERIOD)
    assert later[0] == keys[1]
    assert later[2] == keys[0]
    # A host whose clock is behind opens what one that is ahead has sealed.
    assert later[0] in read_keys(here, NOW)


def test_former_keys_open_as_long_as_tickets_live(hosts: list[KeyStore]) -> None:
    here, _ = hosts
    first = read_keys(here, NOW)[0]
    for periods in range(1, SHARED_KEYS_KEPT + 2):
        keys = read_keys(here, NOW + periods * SHARED_KEY_PERIOD)
        assert (first in keys) is (periods <= SHARED_KEYS_KEPT)
        assert len(set(keys)) == len(keys) <= SHARED_KEYS_KEPT + 2


def test_hosts_that_come_at_once_agree_on_one_key(hosts: list[KeyStore]) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda number: hosts[number % 2].create(7), range(32)))
    assert len(found) == 1


def test_a_directory_keeps_nothing_else_and_nothing_old(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = DirectoryStore(str(tmp_path))
    (tmp_path / "notes.key").touch()
    for periods in range(20):
        read_keys(store, NOW + periods * SHARED_KEY_PERIOD)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert "notes.key" in names
    assert len(names) <= SHARED_KEYS_KEPT + 4
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("0*.key"))


@pytest.mark.parametrize("content", ["", "ab" * 31, "xy" * 32])
def test_a_damaged_key_is_an_error_and_not_a_key(tmp_path: Path, content: str) -> None:
    tmp_path.chmod(0o700)
    store = DirectoryStore(str(tmp_path))
    path = tmp_path / f"{7:010d}.key"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(KeyStoreError, match="is not 64 hexadecimal digits"):
        store.create(7)


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(KeyStoreError, match="mode 777 lets others write there"):
        DirectoryStore(str(tmp_path)).create(7)
    with pytest.raises(KeyStoreError, match="No such file"):
        DirectoryStore(str(tmp_path / "absent")).create(7)


def test_redis_keeps_keys_sealed_and_for_a_time() -> None:
    redis = Redis()
    key = RedisStore(redis, SECRET).create(7)
    ((name, value),) = redis.values.items()
    assert key not in value
    assert redis.lifetimes[name] > SHARED_KEY_PERIOD * SHARED_KEYS_KEPT
    with pytest.raises(KeyStoreError, match="sealed under another secret"):
        RedisStore(redis, b"t" * 32).create(7)
    # A key cannot be passed off as that of another period.
    redis.values["quicedge:ticket-key:8"] = value
    with pytest.raises(KeyStoreError, match="sealed under another secret"):
        RedisStore(redis, SECRET).find(8)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    assert shown("redis://user:secret@10.0.0.9:6379/2") == "redis://10.0.0.9:6379/2"
    assert shown("rediss://10.0.0.9") == "rediss://10.0.0.9:6379"
    assert is_store("rediss://10.0.0.9")
    assert is_store(str(tmp_path))
    assert not is_store(str(tmp_path / "file"))


class Rotation:
    """A `KeyRotation` on a clock of its own, over a Redis of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("quicedge.supervisor.key_rotation.SHARED_KEY_CHECK", 0.01)
        self.now = NOW
        self.redis = Redis()
        self.changes = 0
        self.rotation = KeyRotation(
            self._changed, wall=lambda: self.now,
            open_store=lambda location, secret: RedisStore(self.redis, secret or b""),
        )  # fmt: skip

    async def _changed(self) -> None:
        self.changes += 1

    def settings(self, location: str | None) -> Settings:
        identity = FleetIdentity(
            server_id=b"\1", nonce_length=8, id_keys=[IdKey(0, None)], secret=SECRET
        )
        config = Config(tls=Tls(shared_keys=location), fleet=Fleet(server_id="01"))
        return Settings(config=config, fleet=identity)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)


async def test_keys_change_with_the_period_and_survive_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Rotation(monkeypatch)
    rotation = here.rotation
    rotation.configure(here.settings("redis://10.0.0.9"))
    await here.until(lambda: here.changes == 1)
    assert rotation.keys is not None
    first = rotation.keys.keys[0]
    here.redis.is_down = True
    here.now += SHARED_KEY_PERIOD
    await asyncio.sleep(0.05)
    assert rotation.keys.keys[0] == first, "the last known ones are used on"
    here.redis.is_down = False
    await here.until(lambda: here.changes == 2)
    assert rotation.keys.keys[0] != first
    assert first in rotation.keys.keys
    rotation.close()


async def test_nothing_runs_without_a_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = Rotation(monkeypatch)
    for location in (None, str(tmp_path / "file")):
        here.rotation.configure(here.settings(location))
        assert here.rotation._task is None
    here.rotation.configure(here.settings("redis://10.0.0.9"))
    await here.until(lambda: here.changes == 1)
    here.rotation.configure(here.settings(None))
    assert here.rotation._task is None
    assert here.rotation.keys is None
