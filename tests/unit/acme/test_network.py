"""Requests to an issuer: what is tried again, and what failures mean."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

jose = pytest.importorskip("josepy")
requests = pytest.importorskip("requests")
messages = pytest.importorskip("acme.messages")

from quicedge.acme import network  # noqa: E402
from quicedge.acme.failure import Cause  # noqa: E402
from quicedge.acme.network import Network, OrderError, retry_after  # noqa: E402
from quicedge.config.acmelimits import (  # noqa: E402
    NONCE_ATTEMPTS,
    RATE_LIMIT_PAUSE,
    REQUEST_ATTEMPTS,
    RETRY_AFTER_MAX,
)


def response(status: int, problem: str | None = None, **headers: str) -> Any:
    made = requests.Response()
    made.status_code = status
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    if problem is not None:
        kind = f"urn:ietf:params:acme:error:{problem}"
        made._content = json.dumps({"type": kind, "detail": "because"}).encode()
        made.headers["content-type"] = "application/problem+json"
    else:
        made._content = b"{}"
    return made


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    delays: list[float] = []
    monkeypatch.setattr(network.time, "sleep", delays.append)
    return delays


def get(answer: Callable[[int], Any]) -> tuple[int, Any]:
    """Ask a server that gives these answers; how often it was asked, and the result or failure."""
    key = jose.JWKEC(key=jose.ComparableECKey(ec.generate_private_key(ec.SECP256R1())))
    network_ = Network(key, ca=None, user_agent="test")
    asked = 0

    def request(*_: Any, **__: Any) -> Any:
        nonlocal asked
        asked += 1
        found = answer(asked)
        if isinstance(found, Exception):
            raise found
        network_._note(found)
        return found

    network_.session.request = request
    try:
        found = network_.get("https://ca/")
    except OrderError as error:
        found = error.failure
    return asked, found


def failure(answer: Callable[[int], Any]) -> Any:
    _, found = get(answer)
    return found


@pytest.mark.parametrize(
    ("status", "problem", "cause"),
    [
        (429, "rateLimited", Cause.RATE_LIMITED),
        (400, "rateLimited", Cause.RATE_LIMITED),
        (503, "serverInternal", Cause.UNAVAILABLE),
        (500, None, Cause.UNAVAILABLE),
        (403, "unauthorized", Cause.REJECTED),
        (400, "rejectedIdentifier", Cause.REJECTED),
        (400, "caa", Cause.REJECTED),
        (400, "accountDoesNotExist", Cause.REFUSED),
        (403, "userActionRequired", Cause.REFUSED),
        (401, "externalAccountRequired", Cause.REFUSED),
    ],
)
def test_what_a_failure_means(
    slept: list[float], status: int, problem: str | None, cause: Cause
) -> None:
    assert failure(lambda _: response(status, problem)).cause is cause


def test_an_outage_is_waited_out_within_bounds(slept: list[float]) -> None:
    asked, found = get(lambda _: response(503, "serverInternal"))
    assert (asked, found.cause) == (REQUEST_ATTEMPTS, Cause.UNAVAILABLE)
    assert slept == [1.0, 2.0, 4.0]


def test_a_short_retry_after_is_respected_and_a_long_one_ends_the_order(
    slept: list[float],
) -> None:
    busy, good = response(503, "serverInternal", retry_after="7"), response(200)
    assert get(lambda asked: busy if asked == 1 else good) == (2, good)
    assert slept == [7.0]
    asked, found = get(lambda _: response(503, "serverInternal", retry_after="600"))
    assert (asked, found.retry_after) == (1, 600.0)


def test_refused_nonces_are_tried_again_without_a_delay(slept: list[float]) -> None:
    asked, found = get(lambda _: response(400, "badNonce"))
    assert asked == NONCE_ATTEMPTS + 1
    assert found.cause is Cause.REJECTED
    assert slept == []


def test_a_connection_that_is_refused_says_so(slept: list[float]) -> None:
    error = requests.exceptions.ConnectionError(OSError(111, "Connection refused"))
    found = failure(lambda _: error)
    assert found.cause is Cause.UNAVAILABLE
    assert "Connection refused" in found.message


def test_a_rate_limit_without_a_time_is_given_one(slept: list[float]) -> None:
    assert failure(lambda _: response(429, "rateLimited")).retry_after == RATE_LIMIT_PAUSE


def test_words_of_the_issuer_stay_in_their_line() -> None:
    made = response(400, "caa")
    made._content = json.dumps({"type": "about:blank", "detail": "a\n\x1b[31mforged"}).encode()
    assert "\n" not in failure(lambda _: made).message
    assert "\x1b" not in failure(lambda _: made).message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("-5", 0), ("soon", None), (None, None), ("date", 300)],
)
def test_both_forms_of_retry_after(value: str | None, seconds: float | None) -> None:
    if value == "date":
        value = email.utils.formatdate(time.time() + 300, usegmt=True)
    found = retry_after(response(503, **({} if value is None else {"retry_after": value})))
    assert found == (None if seconds is None else pytest.approx(seconds, abs=3))


def test_a_retry_after_beyond_all_numbers_is_the_longest_one() -> None:
    assert retry_after(response(429, "rateLimited", retry_after="9" * 400)) == RETRY_AFTER_MAX
