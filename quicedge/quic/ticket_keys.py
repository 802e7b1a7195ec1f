"""The key file for tickets and tokens that the hosts of a fleet share."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quicedge.config.limits import FLEET_KEYS
from quicedge.quic.privatefile import PrivateFileError, read_private

_KEY_LENGTH = 32


class SharedKeyError(ValueError):
    """An unusable key file; the message names the file and the line."""


class SharedKeys(msgspec.Struct, frozen=True):
    """Keys of 32 bytes; the first one seals, all of them open."""

    file: str
    keys: list[bytes]

    def __repr__(self) -> str:
        return f"<{len(self.keys)} keys of {self.file}>"  # no key may reach a log


def read_shared_keys(path: str | Path) -> SharedKeys:
    """A file with 64 hexadecimal digits per line, `#` begins a comment; raises SharedKeyError."""
    try:
        text = read_private(path).decode("ascii")
    except PrivateFileError as error:
        raise SharedKeyError(str(error)) from error
    except UnicodeDecodeError as error:
        raise SharedKeyError(f"{path}: is not text") from error
    keys: list[bytes] = []
    for number, line in enumerate(text.splitlines(), 1):
        digits = line.partition("#")[0].strip()
        if not digits:
            continue
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            key = b""
        # The line may be a mistyped key: do not show it.
        if len(key) != _KEY_LENGTH or len(digits) != 2 * _KEY_LENGTH:
            raise SharedKeyError(f"{path}: line {number}: is not 64 hexadecimal digits")
        if key in keys:
            raise SharedKeyError(f"{path}: line {number}: duplicate key")
        keys.append(key)
    if not 0 < len(keys) <= FLEET_KEYS:
        raise SharedKeyError(f"{path}: has {len(keys)} keys, 1 to {FLEET_KEYS} are needed")
    return SharedKeys(str(path), keys)
