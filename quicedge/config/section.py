"""What all tables of the configuration have in common, and the units of their values."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from quicedge.config import limits

Seconds = Annotated[float, Meta(gt=0, le=limits.MAX_DURATION, extra={"unit": "seconds"})]
Bytes = Annotated[int, Meta(ge=0, le=limits.MAX_VARINT, extra={"unit": "bytes"})]
Lines = Annotated[str, Meta(extra={"unit": "lines"})]
"""Text that may have several lines."""
Count = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]


class Section(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file; unknown keys are rejected."""
