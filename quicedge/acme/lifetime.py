"""When a certificate is to be renewed: at two thirds of its life, or when its issuer suggests."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from quicedge.config.acmelimits import RENEW_AT, RENEW_JITTER


class Lifetime(NamedTuple):
    """When a certificate is valid, in seconds since the epoch."""

    not_before: float
    not_after: float

    @property
    def seconds(self) -> float:
        return max(self.not_after - self.not_before, 0.0)

    def renewal(self, chance: float) -> float:
        """When to renew it if the issuer suggests nothing; `chance` is random, below 1."""
        return self.not_before + self.seconds * (RENEW_AT - RENEW_JITTER * chance)


class Window(Struct, frozen=True):
    """When an issuer suggests to renew (RFC 9773 section 4.2), in seconds since the epoch."""

    start: float
    end: float

    def renewal(self, lifetime: Lifetime, chance: float) -> float:
        """A moment in it; `chance` is random, below 1.

        A window beyond the certificate's life, or one that ends before it starts, is taken as a
        mistake of the issuer and does not delay the renewal.
        """
        if self.end <= self.start or self.start >= lifetime.not_after:
            return lifetime.renewal(chance)
        end = min(self.end, lifetime.not_after)
        return self.start + (end - self.start) * chance
