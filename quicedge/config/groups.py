"""Key exchange groups of TLS by their registered names, most preferred first."""

from __future__ import annotations

from typing import Literal, get_args

KeyExchangeGroup = Literal[
    "X25519MLKEM768", "SecP256r1MLKEM768", "x25519", "secp256r1", "secp384r1", "secp521r1", "x448"
]

ALL_GROUPS: tuple[KeyExchangeGroup, ...] = get_args(KeyExchangeGroup)

USUAL_GROUPS = ALL_GROUPS[:5]
"""The hybrids, and the curves of Mozilla's guidelines for TLS."""

GROUP_NUMBERS = {
    "X25519MLKEM768": 0x11EC,
    "SecP256r1MLKEM768": 0x11EB,
    "x25519": 0x001D,
    "secp256r1": 0x0017,
    "secp384r1": 0x0018,
    "secp521r1": 0x0019,
    "x448": 0x001E,
}
"""As in IANA's registry of TLS supported groups."""

HYBRIDS = frozenset({"X25519MLKEM768", "SecP256r1MLKEM768"})
"""Groups with ML-KEM, which a quantum computer does not break."""
