"""Key exchange groups of TLS 1.3: elliptic curves (RFC 8446 section 4.2.8) and their hybrids with
ML-KEM (draft-ietf-tls-ecdhe-mlkem).

A hybrid holds as long as either of its parts does: whoever records traffic today and has a quantum
computer later reads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x448, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quicedge import native
from quicedge.config.groups import ALL_GROUPS, GROUP_NUMBERS, HYBRIDS

Agreement = Callable[[bytes], tuple[bytes, bytes]]
"""From a client's key share to ours and the shared secret; raises ValueError for no key share."""

_ENCAPSULATION_KEY = 1184
"""Bytes of an ML-KEM-768 encapsulation key (FIPS 203 section 8)."""
_UNCOMPRESSED = 4
"""The only form of a point that TLS 1.3 knows (RFC 8446 section 4.2.8.2)."""


class Group(NamedTuple):
    """A group that servers can agree on keys in."""

    name: str
    number: int
    agree: Agreement

    @property
    def is_post_quantum(self) -> bool:
        return self.name in HYBRIDS


@native.twin
def agree_x25519(theirs: bytes) -> tuple[bytes, bytes]:
    """Our key share and the shared secret; raises ValueError for no key share."""
    key = x25519.X25519PrivateKey.generate()
    # RFC 8446 section 7.4.2: an all-zero result MUST abort; `exchange` raises for one.
    secret = key.exchange(x25519.X25519PublicKey.from_public_bytes(theirs))
    return key.public_key().public_bytes_raw(), secret


def _x448(theirs: bytes) -> tuple[bytes, bytes]:
    key = x448.X448PrivateKey.generate()
    secret = key.exchange(x448.X448PublicKey.from_public_bytes(theirs))
    return key.public_key().public_bytes_raw(), secret


def _on_curve(curve: ec.EllipticCurve) -> Agreement:
    size = 1 + 2 * ((curve.key_size + 7) // 8)

    def agree(theirs: bytes) -> tuple[bytes, bytes]:
        # `from_encoded_point` would take compressed points too.
        if len(theirs) != size or theirs[0] != _UNCOMPRESSED:
            raise ValueError("not an uncompressed point")
        point = ec.EllipticCurvePublicKey.from_encoded_point(curve, theirs)
        key = ec.generate_private_key(curve)
        ours = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return ours, key.exchange(ec.ECDH(), point)

    return agree


def encapsulate(encapsulation_key: bytes) -> tuple[bytes, bytes]:
    """The ciphertext for an ML-KEM-768 key, and the secret in it.

    Raises ValueError for a key that does not pass the check of FIPS 203 section 7.2.
    """
    key = mlkem.MLKEM768PublicKey.from_public_bytes(encapsulation_key)
    secret, ciphertext = key.encapsulate()
    return ciphertext, secret


def _with_mlkem(on_curve: Agreement, share: int, *, mlkem_first: bool) -> Agreement:
    """A hybrid with a curve whose key shares have `share` bytes. Key shares and secrets are joined
    in the order that the group's name does not always tell."""

    def agree(theirs: bytes) -> tuple[bytes, bytes]:
        if len(theirs) != share + _ENCAPSULATION_KEY:
            raise ValueError("wrong length of a hybrid key share")
        split = _ENCAPSULATION_KEY if mlkem_first else share
        first, second = theirs[:split], theirs[split:]
        if mlkem_first:
            point, secret = on_curve(second)
            ciphertext, kem_secret = encapsulate(first)
            return ciphertext + point, kem_secret + secret
        point, secret = on_curve(first)
        ciphertext, kem_secret = encapsulate(second)
        return point + ciphertext, secret + kem_secret

    return agree


_P256 = _on_curve(ec.SECP256R1())

_AGREEMENTS: dict[str, Agreement] = {
    "X25519MLKEM768": _with_mlkem(agree_x25519, 32, mlkem_first=True),
    "SecP256r1MLKEM768": _with_mlkem(_P256, 65, mlkem_first=False),
    "x25519": agree_x25519,
    "secp256r1": _P256,
    "secp384r1": _on_curve(ec.SECP384R1()),
    "secp521r1": _on_curve(ec.SECP521R1()),
    "x448": _x448,
}
GROUPS: dict[str, Group] = {
    name: Group(name, GROUP_NUMBERS[name], _AGREEMENTS[name]) for name in ALL_GROUPS
}
"""By registered name, most preferred first: X25519 costs a quarter of the other curves."""


def _mlkem_missing() -> str | None:
    try:
        mlkem.MLKEM768PrivateKey.generate()
    except UnsupportedAlgorithm as error:
        return str(error)
    return None


MLKEM_MISSING = _mlkem_missing()
"""Why the installed `cryptography` has no ML-KEM; None: it has it."""


def usable(groups: Iterable[Group]) -> tuple[Group, ...]:
    """Those that the installed `cryptography` can do."""
    return tuple(group for group in groups if MLKEM_MISSING is None or not group.is_post_quantum)


def usable_by_name(names: Iterable[str]) -> tuple[Group, ...]:
    """The usable ones among groups by name, in the same order."""
    return usable(GROUPS[name] for name in names)


DEFAULT_GROUPS = usable(GROUPS.values())
