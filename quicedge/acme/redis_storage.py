"""A storage in Redis, for fleets without a shared directory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from quicedge.acme.storage import StorageError
from quicedge.config.acmelimits import LOCK_LEASE
from quicedge.config.limits import FLEET_TIMEOUT

T = TypeVar("T")

_PREFIX = "quicedge/acme/"
_VERSIONS = "quicedge/acme:versions"
_LOCK = "quicedge/acme:lock"

_KEEP = """
if redis.call("get", KEYS[1]) == ARGV[1] then
  return redis.call("pexpire", KEYS[1], ARGV[2])
end
return 0
"""
_FREE = """
if redis.call("get", KEYS[1]) == ARGV[1] then
  return redis.call("del", KEYS[1])
end
return 0
"""


class RedisStorage:
    """Values under `quicedge/acme/`. The lock is a lease: a host that vanishes loses it."""

    def __init__(self, url: str) -> None:
        import redis

        self._errors = redis.RedisError
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=FLEET_TIMEOUT, socket_connect_timeout=FLEET_TIMEOUT
        )
        parts = urlsplit(url)
        self._name = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}"  # no password
        self._holder = secrets.token_hex(16)
        self._is_locked = False

    def read(self, name: str) -> bytes | None:
        found: bytes | None = self._try(lambda: self._redis.get(_PREFIX + name))
        return found

    def write(self, name: str, value: bytes) -> None:
        def change() -> None:
            with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(_PREFIX + name, value)
                pipeline.hset(_VERSIONS, name, secrets.token_hex(8))
                pipeline.execute()

        self._try(change)

    def remove(self, name: str) -> None:
        def change() -> None:
            with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.delete(_PREFIX + name)
                pipeline.hdel(_VERSIONS, name)
                pipeline.execute()

        self._try(change)

    def versions(self, folder: str) -> dict[str, Hashable]:
        found: dict[bytes, bytes] = self._try(lambda: self._redis.hgetall(_VERSIONS))
        prefix = f"{folder}/"
        return {
            name.decode().removeprefix(prefix): version
            for name, version in found.items()
            if name.decode().startswith(prefix)
        }

    def lock(self) -> bool:
        lease = int(LOCK_LEASE * 1000)
        if self._is_locked and self._try(
            lambda: self._redis.eval(_KEEP, 1, _LOCK, self._holder, lease)
        ):
            return True
        self._is_locked = bool(
            self._try(lambda: self._redis.set(_LOCK, self._holder, nx=True, px=lease))
        )
        return self._is_locked

    def unlock(self) -> None:
        if self._is_locked:
            self._is_locked = False
            self._try(lambda: self._redis.eval(_FREE, 1, _LOCK, self._holder))

    def close(self) -> None:
        try:
            self.unlock()
        except StorageError:
            pass  # the lease ends by itself
        self._redis.close()

    def _try(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except self._errors as error:
            raise StorageError(f"{self._name}: {error}") from error
