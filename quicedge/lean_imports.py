"""Imports libraries without others that they would load and our processes never use.

structlog loads rich for tracebacks that our logs never show: 3 MB and a tenth of a second, and
pickle for an exception. msgspec prefers typing_extensions to the same names of `typing`: half a
megabyte. `inspect`, which asyncio and dataclasses need, reads source code with another half. What
else is deferred here describes types, reads mail addresses in certificates and keys of SSH (with
bcrypt), and decodes HTTP/2 for clients: together a megabyte and 30 ms.

The entry points of the edge's processes import this module before any that imports those; commands
that use rich themselves still can.
"""

from __future__ import annotations

import _pickle
from types import ModuleType

from quicedge.deferred import (
    Deferred,
    deferred_base,
    import_with,
    import_without,
    import_without_part,
)

_syntax = Deferred("ast")
_syntax.NodeVisitor = deferred_base("ast", "NodeVisitor")  # type: ignore[attr-defined]
import_with("inspect", {"ast": _syntax, "tokenize": Deferred("tokenize")})

_pickle_errors = ModuleType("pickle")
_pickle_errors.PicklingError = _pickle.PicklingError  # type: ignore[attr-defined]

import_with("structlog", {"rich": None, "pickle": _pickle_errors})
import_with(
    "msgspec",
    {
        "typing_extensions": None,
        "msgspec.inspect": Deferred("msgspec.inspect"),
        "msgspec._json_schema": Deferred("msgspec._json_schema"),
    },
)
import_without("cryptography.x509", "email.utils")
_KEYS = "cryptography.hazmat.primitives.serialization"
import_without_part(_KEYS, f"{_KEYS}.ssh")
import_without("hpack", "hpack.huffman_table")
