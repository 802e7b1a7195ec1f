"""Finds the application that a configuration names."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, cast

from quicedge.config.limits import WSGI_THREADS
from quicedge.config.python_objects import describe_failure, find_object
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
    module = reference.partition(":")[0]
    try:
        found = find_object(reference.removesuffix("()"), config.app_directory)
        if reference.endswith("()"):
            found = found()
    except BaseException as error:  # even SystemExit: it would end the worker without a word
        reason = f"{reference}: {describe_failure(error)}"
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            reason = f"no module {error.name!r} in {config.app_directory or 'the import path'}"
        raise UnusableError(key, reason) from error
    if not callable(found):
        raise UnusableError(key, f"{reference} is not callable")
    if kind == "wsgi":
        return _wsgi(key, found, config.max_requests or WSGI_THREADS)
    return _asgi(key, reference, found)


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


def _wsgi(key: str, found: Any, max_requests: int) -> Application:
    try:
        from a2wsgi import WSGIMiddleware
    except ImportError as error:
        raise UnusableError(key, "requires a2wsgi: pip install 'quicedge[wsgi]'") from error
    return cast(Application, WSGIMiddleware(found, workers=min(max_requests, WSGI_THREADS)))
