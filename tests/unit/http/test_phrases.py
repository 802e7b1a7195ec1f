"""Reason phrases."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from quicedge.http.phrases import reason_phrase

RENAMED = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "URI Too Long",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "Range Not Satisfiable",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}
"""By RFC 9110, since some versions of Python or not yet."""


@pytest.mark.parametrize("status", HTTPStatus, ids=lambda status: str(int(status)))
def test_phrases_are_the_registered_ones(status: HTTPStatus) -> None:
    assert reason_phrase(status) == RENAMED.get(status, status.phrase)


def test_other_codes_are_unknown() -> None:
    assert reason_phrase(299) == reason_phrase(999) == "Unknown"
