"""Requests to an issuer, on certbot's `acme`: patient with nonces and outages, and exact about why
they fail. Imported only in the process that speaks to an issuer."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import josepy as jose
import requests
from acme import client, errors, messages

from quicedge.acme.failure import Cause, Failure
from quicedge.config.acmelimits import (
    NONCE_ATTEMPTS,
    RATE_LIMIT_PAUSE,
    REQUEST_ATTEMPTS,
    REQUEST_PATIENCE,
    REQUEST_TIMEOUT,
    RETRY_AFTER_MAX,
)

T = TypeVar("T")

_ACCOUNT_PROBLEMS = frozenset(
    {
        "accountDoesNotExist", "badPublicKey", "badSignatureAlgorithm", "externalAccountRequired",
        "invalidContact", "unsupportedContact", "userActionRequired",
    }
)  # fmt: skip


class OrderError(Exception):
    """A task failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Payload(jose.JSONDeSerializable):
    """A request's JSON object."""

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members

    def to_partial_json(self) -> dict[str, Any]:
        return self._members

    @classmethod
    def from_json(cls, jobj: Any) -> Payload:
        return cls(jobj)


class Network(client.ClientNetwork):
    """`acme`'s network that tries again what may succeed.

    Raises OrderError, and `acme`'s ConflictError for a response of 409.
    """

    def __init__(self, key: jose.JWK, *, ca: str | None, user_agent: str) -> None:
        super().__init__(
            key,
            alg=jose.ES256,
            verify_ssl=ca or True,  # type: ignore[arg-type]
            user_agent=user_agent,
            timeout=int(REQUEST_TIMEOUT),
        )
        self._last: requests.Response | None = None
        self._attempts = REQUEST_ATTEMPTS
        self.session.hooks["response"].append(self._note)

    @contextlib.contextmanager
    def impatience(self) -> Iterator[None]:
        """Requests in this block are not repeated."""
        self._attempts = 1
        try:
            yield
        finally:
            self._attempts = REQUEST_ATTEMPTS

    def _note(self, response: requests.Response, *_: Any, **__: Any) -> None:
        self._last = response

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        return self._patiently(lambda: super(Network, self).post(*args, **kwargs))

    def get(self, *args: Any, **kwargs: Any) -> requests.Response:
        return self._patiently(lambda: super(Network, self).get(*args, **kwargs))

    def _patiently(self, request: Callable[[], T]) -> T:
        nonces = attempts = 0
        while True:
            self._last = None
            try:
                return request()
            except errors.ConflictError:
                raise
            except messages.Error as error:
                failure = self.failure_of(error)
                if error.code == "badNonce" and nonces < NONCE_ATTEMPTS:
                    nonces += 1
                    continue
            except (requests.RequestException, ValueError, errors.Error) as error:
                failure = self._unanswered(error)
            attempts += 1
            delay = failure.retry_after
            if delay is None:
                delay = 2.0 ** (attempts - 1)
            is_worth_it = failure.cause is Cause.UNAVAILABLE and attempts < self._attempts
            if not is_worth_it or delay > REQUEST_PATIENCE:
                raise OrderError(failure)
            time.sleep(delay)

    def failure_of(self, problem: messages.Error) -> Failure:
        """What an error document means."""
        status = self._last.status_code if self._last is not None else 400
        wait = retry_after(self._last)
        code = _code(problem)
        if code == "rateLimited" or status == 429:
            cause = Cause.RATE_LIMITED
            wait = RATE_LIMIT_PAUSE if wait is None else wait
        elif status >= 500:
            cause = Cause.UNAVAILABLE
        elif code in _ACCOUNT_PROBLEMS:
            cause = Cause.REFUSED
        else:
            cause = Cause.REJECTED
        return Failure(cause=cause, message=_described(problem), retry_after=wait)

    def _unanswered(self, error: Exception) -> Failure:
        if isinstance(_innermost(error), ssl.SSLCertVerificationError):
            reason = "its TLS certificate cannot be verified; see the key `ca`"
        elif self._last is not None:
            reason = f"answered {self._last.status_code} {self._last.reason or ''}".strip()
            if self._last.status_code < 400:  # by its status it is an answer
                reason += ", which cannot be understood"
        else:
            reason = _cause_of(error)
        return Failure(
            cause=Cause.UNAVAILABLE,
            message=f"the issuer is unavailable: {reason}",
            retry_after=retry_after(self._last),
        )


def retry_after(response: requests.Response | None) -> float | None:
    """Seconds that a response asks to wait (RFC 9110 section 10.2.3)."""
    value = None if response is None else response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(float(int(value)), 0.0)
    except OverflowError:
        return RETRY_AFTER_MAX
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(moment.timestamp() - time.time(), 0.0)


def _described(problem: messages.Error) -> str:
    """An error document in one line, without control characters: the issuer wrote it."""
    details = [problem.detail, *(sub.detail for sub in problem.subproblems or ())]
    text = "; ".join(str(detail) for detail in details if detail)
    name = _code(problem)
    return one_line(f"{name}: {text}" if text else name)


def _code(problem: messages.Error) -> str:
    """`rateLimited` of `urn:ietf:params:acme:error:rateLimited`; `acme` does not know all."""
    return str(problem.typ).rpartition(":")[2]


def one_line(text: str) -> str:
    """Text of an issuer for a log."""
    return "".join(c if c.isprintable() else " " for c in text)[:500]


def _cause_of(error: BaseException) -> str:
    innermost = _innermost(error)
    return one_line(
        getattr(innermost, "strerror", None) or str(innermost) or type(innermost).__name__
    )


def _innermost(error: BaseException) -> BaseException:
    """The reason of an error of `requests`, which wraps several."""
    for argument in (*error.args, getattr(error, "reason", None)):
        if isinstance(argument, BaseException):
            return _innermost(argument)
    return error
