"""Imports aioquic's TLS without what only clients need: the libraries that verify a server.

service_identity, pyOpenSSL and certifi cost a process 3 MB and forty milliseconds. They are
imported when they are used, which is when a client verifies its first server.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_modules: dict[str, Any] = sys.modules


class _Deferred(ModuleType):
    """Stands for a module that is imported when one of its attributes is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def _import() -> None:
    verification = _Deferred("service_identity")
    openssl = _Deferred("OpenSSL")
    openssl.crypto = _Deferred("OpenSSL.crypto")  # type: ignore[attr-defined]
    deferred = (verification, openssl, _Deferred("certifi"))
    placed = [module for module in deferred if module.__name__ not in _modules]
    _modules.update({module.__name__: module for module in placed})
    try:
        import aioquic.tls  # noqa: F401
    finally:
        for module in placed:
            del _modules[module.__name__]


if "aioquic.tls" not in _modules:
    _import()
