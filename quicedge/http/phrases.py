"""Reason phrases (RFC 9110 section 15); those of `http.HTTPStatus` depend on Python's version."""

from __future__ import annotations

from http import HTTPStatus

_RENAMED = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


def reason_phrase(status: int) -> str:
    """The reason phrase of a status code; "Unknown" if it is not registered."""
    if status in _RENAMED:
        return _RENAMED[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
