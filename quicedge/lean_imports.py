"""Imports libraries without others that they would load and our processes never use.

structlog loads rich for tracebacks that our logs never show: 3 MB and a tenth of a second, and
pickle for an exception. msgspec prefers typing_extensions to the same names of `typing`: half a
megabyte. `inspect`, which asyncio and dataclasses need, reads source code with another half. What
else is deferred here describes types and systems, translates names that are not ASCII, reads mail
addresses in certificates and keys of SSH (with bcrypt), and decodes HTTP/2 for clients: together
1.3 MB and 30 ms.

The entry points of the edge's processes import this module before any that imports those; commands
that use rich themselves still can.
"""

from __future__ import annotations

import _pickle
import os
import sys
from types import ModuleType

from quicedge.deferred import (
    Deferred,
    deferred_base,
    import_with,
    import_without,
    import_without_part,
)

CODE_FLAGS = {
    1: "OPTIMIZED",
    2: "NEWLOCALS",
    4: "VARARGS",
    8: "VARKEYWORDS",
    16: "NESTED",
    32: "GENERATOR",
    64: "NOFREE",
    128: "COROUTINE",
    256: "ITERABLE_COROUTINE",
    512: "ASYNC_GENERATOR",
}
"""`dis.COMPILER_FLAG_NAMES`, all that `inspect` takes from there when it is imported."""

_syntax = Deferred("ast")
_syntax.NodeVisitor = deferred_base("ast", "NodeVisitor")  # type: ignore[attr-defined]
_reads_code: dict[str, ModuleType] = {"ast": _syntax, "tokenize": Deferred("tokenize")}
if sys.version_info < (3, 14):
    _bytecode = _reads_code["dis"] = Deferred("dis")
    _bytecode.COMPILER_FLAG_NAMES = CODE_FLAGS  # type: ignore[attr-defined]
import_with("inspect", _reads_code)

_platform = Deferred("platform")
_platform.system = lambda: os.uname().sysname  # type: ignore[attr-defined]
import_with("uuid", {"platform": _platform})
import_without("subprocess", "locale")
import_without("encodings.idna", "stringprep")

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
