"""What makes this host one of a fleet: its server ID, the encodings of connection IDs, the secret.

The supervisor reads it from files; workers receive it with their settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from quicedge.config.limits import FLEET_MAX_SERVER_ID, FLEET_NONCE
from quicedge.config.schema import Fleet
from quicedge.config.server_ids import ServerIdError, resolve_server_id
from quicedge.quic.privatefile import PrivateFileError, read_private
from quicedge.udp.connection_id_layout import QuicLbLayout
from quicedge.udp.quic_lb import KEY_LENGTH, UNROUTABLE, QuicLb, ServerIds

_SECRET_LENGTH = 32


class FleetIdentityError(ValueError):
    """An unusable section or file; `key` is the configuration's, the message says why."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"fleet.{key}: {message}")


def instance_of(secret: bytes) -> bytes:
    """Names an edge by its secret, so that it knows itself among the addresses of a name."""
    return hashlib.sha256(b"quicedge instance" + secret).digest()[:8]


OTHER_PLACE = "fleet: server_id, nonce_length or the secret differ from those of the running edge"


class IdKey(msgspec.Struct, frozen=True, array_like=True):
    """An encoding of connection IDs: config rotation and key; in the clear without one."""

    rotation: int
    key: bytes | None

    def __repr__(self) -> str:
        return f"<config rotation {self.rotation}>"


class FleetIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the `[fleet]` section and its files."""

    server_id: bytes
    nonce_length: int
    id_keys: list[IdKey]
    """The first one encodes, all of them decode."""
    secret: bytes | None
    """Of all hosts; None: hosts do not forward to each other."""

    def __repr__(self) -> str:
        return f"<server ID {self.server_id.hex()}>"  # neither key nor secret may reach a log

    def configurations(self) -> list[QuicLb]:
        length = len(self.server_id)
        return [QuicLb(item.rotation, length, self.nonce_length, item.key) for item in self.id_keys]

    def layout(self, secret: bytes) -> QuicLbLayout:
        """The layout of connection IDs; `secret`, of this host, hides slots."""
        mask = hashlib.sha256(b"quicedge slot mask" + secret).digest()
        return QuicLbLayout(self.configurations()[0], self.server_id, mask)

    def reset_secret(self, own: bytes) -> bytes:
        """What stateless reset tokens are derived from: any host resets for one that is down."""
        return own if self.secret is None else self.secret

    def server_ids(self) -> ServerIds:
        length = 1 + len(self.server_id) + self.nonce_length + 1
        return ServerIds(length, self.configurations())


def place_of(identity: FleetIdentity | None) -> bytes:
    """Equal for edges that can go on with each other's connections; says nothing of the secret."""
    if identity is None:
        return b""
    parts = [identity.server_id, identity.nonce_length, identity.secret]
    return hashlib.sha256(b"quicedge place" + msgspec.msgpack.encode(parts)).digest()


def marks_of(identity: FleetIdentity | None) -> dict[int, bytes]:
    """What tells keys of connection IDs from others, by config rotation; says nothing of them."""
    keys = identity.id_keys if identity is not None else []
    return {
        item.rotation: hashlib.sha256(b"quicedge connection ID key" + (item.key or b"")).digest()
        for item in keys
    }


def another_key(identity: FleetIdentity | None, marks: Mapping[int, bytes]) -> str | None:
    """Why these keys cannot follow those with the marks: hosts would take IDs made with a former
    key for those of other hosts. None: they can."""
    for rotation, mark in marks_of(identity).items():
        if marks.get(rotation, mark) != mark:
            return (
                f"fleet.connection_id_keys: config rotation {rotation} has another key already; "
                "give the new key a rotation that is free"
            )
    return None


def read_identity(fleet: Fleet) -> FleetIdentity | None:
    """The identity that a section describes, None for none; raises FleetIdentityError."""
    if fleet.server_id is None:
        return None
    try:
        server_id = resolve_server_id(fleet.server_id)
    except ServerIdError as error:
        raise FleetIdentityError("server_id", str(error)) from error
    if len(server_id) + fleet.nonce_length > FLEET_MAX_SERVER_ID + FLEET_NONCE:
        raise FleetIdentityError(
            "nonce_length", f"is too large with a server ID of {len(server_id)} bytes"
        )
    keys = [IdKey(fleet.config_rotation, None)]
    if fleet.connection_id_keys is not None:
        keys = list(_read_keys(fleet.connection_id_keys))
    secret = None if fleet.secret_file is None else _read_secret(fleet.secret_file)
    return FleetIdentity(
        server_id=server_id,
        nonce_length=fleet.nonce_length,
        id_keys=keys,
        secret=secret,
    )


def _lines(key: str, path: str | Path) -> Iterator[tuple[int, str]]:
    """Lines with content, without comments; `#` begins one."""
    try:
        text = read_private(path).decode("ascii")
    except PrivateFileError as error:
        raise FleetIdentityError(key, str(error)) from error
    except UnicodeDecodeError:
        raise FleetIdentityError(key, f"{path}: is not text") from None
    for number, line in enumerate(text.splitlines(), 1):
        if content := line.partition("#")[0].strip():
            yield number, content


def _read_keys(path: str) -> Iterator[IdKey]:
    """`ROTATION KEY` per line, the key in 32 hexadecimal digits."""
    where = "connection_id_keys"
    seen: set[int] = set()
    for number, content in _lines(where, path):
        rotation, _, digits = content.partition(" ")
        key = _bytes(digits.strip(), KEY_LENGTH)
        # The line may be a mistyped key: do not show it.
        if not rotation.isdecimal() or not int(rotation) < UNROUTABLE or key is None:
            raise FleetIdentityError(
                where,
                f"{path}: line {number}: is not a config rotation from 0 to {UNROUTABLE - 1} "
                f"and {2 * KEY_LENGTH} hexadecimal digits",
            )
        if int(rotation) in seen:
            raise FleetIdentityError(
                where, f"{path}: line {number}: config rotation {rotation} is listed twice"
            )
        seen.add(int(rotation))
        yield IdKey(int(rotation), key)
    if not seen:
        raise FleetIdentityError(where, f"{path}: has no keys")


def _read_secret(path: str) -> bytes:
    lines = list(_lines("secret_file", path))
    secret = _bytes(lines[0][1], _SECRET_LENGTH) if len(lines) == 1 else None
    if secret is None:
        raise FleetIdentityError(
            "secret_file", f"{path}: is not one line of {2 * _SECRET_LENGTH} hexadecimal digits"
        )
    return secret


def _bytes(digits: str, length: int) -> bytes | None:
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        return None
    return value if len(value) == length and len(digits) == 2 * length else None
