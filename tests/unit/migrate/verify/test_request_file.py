"""Files of requests to play."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.migrate.verify.message import Protocol
from quicedge.migrate.verify.request_file import RequestFileError, read_requests

TEXT = """
# The front page.
GET https://www.example.com/?a=1 HTTP/2
Accept: text/html
# a comment between fields
Cookie: session=abc

### A form.
POST http://www.example.com:8080/form
Content-Type: application/x-www-form-urlencoded

a=1&b=2

c=3
###
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "requests.txt"
    path.write_text(text)
    return path


def test_requests_have_method_url_version_fields_and_body(tmp_path):
    page, form = read_requests(written(tmp_path, TEXT))
    assert (page.method, page.url, page.protocol) == (
        "GET", "https://www.example.com/?a=1", Protocol.H2,
    )  # fmt: skip
    assert page.headers == [("accept", "text/html"), ("cookie", "session=abc")]
    assert page.body == b""
    assert (form.method, form.port, form.is_secure) == ("POST", 8080, False)
    assert form.body == b"a=1&b=2\n\nc=3"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("GET /path\n", "requests.txt:1: '/path' is not an http or https URL"),
        ("\n\nfetch it\n", "requests.txt:3: 'fetch it' is not METHOD URL"),
        ("GET https://a.example/ HTTP/3\n", "requests.txt:1: 'HTTP/3' is not HTTP/1.1 or HTTP/2"),
        ("GET https://a.example/\nno field\n", "requests.txt:2: 'no field' is not NAME: VALUE"),
        ("GET https://a.example:99999/\n", "requests.txt:1: .* is not an http or https URL"),
        ("# nothing\n###\n", "no requests"),
    ],
)
def test_what_is_no_request_is_told_with_its_line(tmp_path, text, problem):
    with pytest.raises(RequestFileError, match=problem):
        read_requests(written(tmp_path, text))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(RequestFileError, match="No such file"):
        read_requests(tmp_path / "requests.txt")


def test_a_line_that_is_not_utf_8_is_told(tmp_path):
    path = tmp_path / "requests.txt"
    path.write_bytes(b"GET https://a.example/\nx-name: caf\xe9\n")
    with pytest.raises(RequestFileError, match=r"requests.txt:2: is not UTF-8"):
        read_requests(path)


def test_lines_may_end_as_on_windows_and_content_keeps_other_separators(tmp_path):
    path = tmp_path / "requests.txt"
    path.write_bytes("POST https://a.example/\r\nx-a: b\r\n\r\na\u2028b\r\n".encode())
    (only,) = read_requests(path)
    assert only.headers == [("x-a", "b")]
    assert only.body == "a\u2028b".encode()
