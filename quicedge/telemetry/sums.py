"""Adding up what several processes have counted."""

from __future__ import annotations

from math import floor
from typing import Any

from msgspec import Struct

_STEPS = 1 << 20


def exact(seconds: float) -> float:
    """A sum of floats in steps of a microsecond, in which sums are the same in whatever order they
    are added up: one that is lower by a rounding error would be taken for a restart."""
    return floor(seconds * _STEPS) / _STEPS


_NAMES = frozenset({"slot", "pid", "bank"})
"""Numbers that name something."""


def add_up(one: Any, other: Any) -> Any:
    """Counters added up, and whatever holds counters; of the rest, the first one."""
    if isinstance(one, Struct):
        fields = {
            name: getattr(one, name)
            if name in _NAMES
            else add_up(getattr(one, name), getattr(other, name))
            for name in one.__struct_fields__
        }
        return type(one)(**fields)
    if isinstance(one, dict):
        found = dict(one)
        for key, value in other.items():
            found[key] = add_up(found[key], value) if key in found else value
        return found
    if isinstance(one, list):
        return [add_up(*pair) for pair in zip(one, other, strict=True)]
    if one is None or isinstance(one, str | bool):
        return one
    if isinstance(one, float):
        return exact(one) + exact(other)
    return one + other
