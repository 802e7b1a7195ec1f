"""Requests that the edge answers itself."""

from __future__ import annotations

import pytest

from quicedge.http.message import Request
from quicedge.http.phrases import reason_phrase
from quicedge.proxy.error_response import error_response
from quicedge.proxy.local_reply import LocalReply, local_reply


@pytest.mark.parametrize(
    ("method", "values", "expected"),
    [
        (b"TRACE", [], LocalReply.NOT_SERVED),
        (b"TRACE", [b"5"], LocalReply.NOT_SERVED),
        (b"OPTIONS", [], None),
        (b"OPTIONS", [b"1"], None),
        (b"OPTIONS", [b"0"], LocalReply.OPTIONS),
        (b"OPTIONS", [b"000"], LocalReply.OPTIONS),
        (b"OPTIONS", [b"-1"], LocalReply.MALFORMED),
        (b"OPTIONS", [b""], LocalReply.MALFORMED),
        (b"OPTIONS", [b"1", b"0"], LocalReply.MALFORMED),
        (b"GET", [b"0"], None),
    ],
)
def test_which_requests_go_no_further(
    method: bytes, values: list[bytes], expected: LocalReply | None
) -> None:
    fields = [(b"max-forwards", value) for value in values]
    assert local_reply(Request(method, b"https", b"a", b"/", fields)) is expected


@pytest.mark.parametrize("method", [b"HEAD", None])
def test_an_answer_to_head_or_to_who_knows_what_has_no_content(method: bytes | None) -> None:
    _, body = error_response(404, method)
    assert body == b""


def test_an_answer_to_head_declares_what_get_would_get() -> None:
    head, _ = error_response(404, b"HEAD")
    _, body = error_response(404, b"GET")
    assert dict(head.fields)[b"content-length"] == b"%d" % len(body)
    unknown, _ = error_response(404, None)
    assert dict(unknown.fields)[b"content-length"] == b"0"


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(413, "Content Too Large"), (414, "URI Too Long"), (416, "Range Not Satisfiable"),
     (422, "Unprocessable Content"), (404, "Not Found"), (599, "Unknown")],
)  # fmt: skip
def test_reason_phrases_are_those_of_rfc_9110(status: int, phrase: str) -> None:
    assert reason_phrase(status) == phrase
    assert error_response(status, b"GET")[1] == f"{status} {phrase}\n".encode()
