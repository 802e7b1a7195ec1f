"""Finds the application that a configuration names."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, cast

from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.config.unusable import UnusableError

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def load(name: str, config: UpstreamConfig) -> Application:
    """The application of an upstream, imported from `app_directory`; raises UnusableError.

    `module:attribute` names an object, `module:attribute()` a function without parameters that
    returns it. WSGI applications run in threads of a2wsgi.
    """
    kind = "asgi" if config.asgi is not None else "wsgi"
    reference = config.asgi or config.wsgi
    assert reference is not None
    key = f"upstreams.{name}.{kind}"
    if config.app_directory is not None and config.app_directory not in sys.path:
        sys.path.insert(0, config.app_directory)
    module_name, _, path = reference.partition(":")
    is_factory = path.endswith("()")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UnusableError(key, _failure(reference, error)) from error
        where = config.app_directory or "the import path"
        raise UnusableError(key, f"no module {error.name!r} in {where}") from error
    except BaseException as error:  # even SystemExit: it would end the worker without a word
        raise UnusableError(key, _failure(reference, error)) from error
    try:
        for attribute in path.removesuffix("()").split("."):
            found = getattr(found, attribute)
    except AttributeError as error:
        raise UnusableError(key, f"{reference}: {error}") from error
    if is_factory:
        try:
            found = found()
        except BaseException as error:
            raise UnusableError(key, _failure(reference, error)) from error
    if not callable(found):
        raise UnusableError(key, f"{reference} is not callable")
    return _wsgi(key, found) if kind == "wsgi" else _asgi(key, reference, found)


def _asgi(key: str, reference: str, found: Any) -> Application:
    parameters = _positional(found)
    if parameters is not None and parameters != 3:
        hint = "; for a WSGI application use the key wsgi" if parameters == 2 else ""
        if parameters == 0:
            hint = f"; for a factory write {reference}()"
        raise UnusableError(
            key, f"{reference} takes {parameters} parameters, an ASGI 3 application three{hint}"
        )
    return cast(Application, found)


def _positional(found: Any) -> int | None:
    """The number of positional parameters of a callable; None if it is not fixed or not known."""
    if inspect.isclass(found):
        return None
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = {parameter.kind for parameter in parameters}
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    return sum(
        parameter.kind
        in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is inspect.Parameter.empty
        for parameter in parameters
    )


def _wsgi(key: str, found: Any) -> Application:
    try:
        from a2wsgi import WSGIMiddleware
    except ImportError as error:
        raise UnusableError(key, "requires a2wsgi: pip install 'quicedge[wsgi]'") from error
    return cast(Application, WSGIMiddleware(found))


def _failure(reference: str, error: BaseException) -> str:
    """What went wrong, and in which line of the operator's code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if not frame.filename.startswith("<frozen ")][1:]
    where = f" ({ours[-1].filename}, line {ours[-1].lineno})" if ours else ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    return f"{reference}: {type(error).__name__}: {error}{where}"
