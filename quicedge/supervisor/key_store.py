"""Where the hosts of a fleet keep ticket and token keys that rotate by themselves.

Each period has one key: whichever host needs it first generates it, and all others read it. A
directory that all hosts have mounted, or Redis, decides who was first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quicedge.config.limits import FLEET_TIMEOUT, SHARED_KEY_PERIOD, SHARED_KEYS_KEPT
from quicedge.quic.privatefile import PrivateFileError, read_private

KEY_LENGTH = 32
_NONCE_LENGTH = 12


class KeyStoreError(Exception):
    """The keys cannot be had; the message says why."""


class KeyStore(Protocol):
    """Keys by period; the calls block."""

    def find(self, period: int) -> bytes | None:
        """The key of a period, if there is one; raises KeyStoreError."""

    def create(self, period: int) -> bytes:
        """The key of a period, generated if there is none yet; raises KeyStoreError."""


class DirectoryStore:
    """One file per key, of 64 hexadecimal digits, readable by its owner alone."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def _path(self, period: int) -> Path:
        return self._directory / f"{period:010d}.key"

    def find(self, period: int) -> bytes | None:
        path = self._path(period)
        if not path.exists():
            return None
        try:
            key = bytes.fromhex(read_private(path).decode("ascii"))
        except PrivateFileError as error:
            raise KeyStoreError(str(error)) from error
        except ValueError:
            key = b""
        if len(key) != KEY_LENGTH:
            raise KeyStoreError(f"{path}: is not {2 * KEY_LENGTH} hexadecimal digits")
        return key

    def create(self, period: int) -> bytes:
        key = self.find(period)
        if key is not None:
            return key
        path = self._path(period)
        draft = path.with_name(f".{secrets.token_hex(8)}")
        try:
            self._check()
            with os.fdopen(
                os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w"
            ) as file:
                file.write(secrets.token_hex(KEY_LENGTH))
                file.flush()
                os.fsync(file.fileno())
            # A link appears whole, and only the first host makes it.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
            self._forget(period)
        except OSError as error:
            raise KeyStoreError(f"{error.filename or path}: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
        key = self.find(period)
        if key is None:
            raise KeyStoreError(f"{path}: disappeared")
        return key

    def _check(self) -> None:
        mode = self._directory.stat().st_mode
        if mode & 0o022 and not mode & stat.S_ISVTX:
            raise KeyStoreError(
                f"{self._directory}: mode {mode & 0o777:03o} lets others write there"
            )

    def _forget(self, newest: int) -> None:
        """Remove the keys that no ticket needs any more."""
        oldest = self._path(newest - SHARED_KEYS_KEPT - 1).name
        for path in self._directory.glob("*.key"):
            if path.name < oldest and path.stem.isdecimal():
                path.unlink(missing_ok=True)


class RedisClient(Protocol):
    """Of the redis library."""

    def get(self, name: str) -> bytes | None: ...

    def set(self, name: str, value: bytes, *, nx: bool, ex: int) -> object: ...


class RedisStore:
    """Keys in Redis, sealed under the secret of the fleet: whoever reads Redis learns nothing."""

    def __init__(self, client: RedisClient, secret: bytes) -> None:
        self._client = client
        self._aead = AESGCM(hashlib.sha256(b"quicedge stored keys" + secret).digest())

    @staticmethod
    def _name(period: int) -> str:
        return f"quicedge:ticket-key:{period}"

    def _ask(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except Exception as error:  # the library's own classes, or OSError
            raise KeyStoreError(f"{type(error).__name__}: {error}"[:200]) from error

    def find(self, period: int) -> bytes | None:
        name = self._name(period)
        sealed = self._ask(self._client.get, name)
        if sealed is None:
            return None
        try:
            return self._aead.decrypt(sealed[:_NONCE_LENGTH], sealed[_NONCE_LENGTH:], name.encode())
        except (InvalidTag, ValueError):
            raise KeyStoreError(f"{name}: is sealed under another secret") from None

    def create(self, period: int) -> bytes:
        key = self.find(period)
        if key is not None:
            return key
        name, nonce = self._name(period), os.urandom(_NONCE_LENGTH)
        sealed = nonce + self._aead.encrypt(nonce, os.urandom(KEY_LENGTH), name.encode())
        lifetime = int(SHARED_KEY_PERIOD * (SHARED_KEYS_KEPT + 2))
        self._ask(self._client.set, name, sealed, nx=True, ex=lifetime)
        key = self.find(period)
        if key is None:
            raise KeyStoreError(f"{name}: was not kept")
        return key


def is_redis(location: str) -> bool:
    return location.startswith(("redis://", "rediss://"))


def is_store(location: str) -> bool:
    """Whether keys rotate by themselves there; otherwise it is a file that the operator changes."""
    return is_redis(location) or os.path.isdir(location)


def shown(location: str) -> str:
    """The location without a password."""
    if not is_redis(location):
        return location
    parts = urlsplit(location)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"


def open_store(location: str, secret: bytes | None) -> KeyStore:
    """The store at a location; `secret` of the fleet, which Redis requires."""
    if not is_redis(location):
        return DirectoryStore(location)
    from redis import Redis

    assert secret is not None, "the configuration is validated"
    client = Redis.from_url(
        location, socket_timeout=FLEET_TIMEOUT, socket_connect_timeout=FLEET_TIMEOUT
    )
    return RedisStore(cast(RedisClient, client), secret)


def read_keys(store: KeyStore, wall: float) -> list[bytes]:
    """The key that seals at a time, then all others that open; raises KeyStoreError.

    The next one is among them: the clocks of other hosts may be ahead.
    """
    now = int(wall // SHARED_KEY_PERIOD)
    keys = [store.create(now), store.create(now + 1)]
    for period in range(now - 1, now - 1 - SHARED_KEYS_KEPT, -1):
        if (key := store.find(period)) is not None:
            keys.append(key)
    return keys
