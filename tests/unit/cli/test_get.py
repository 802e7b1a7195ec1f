"""`quicedge get` without a network: redirects, options, and what ends a connection in words."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from quicedge.cli import main
from quicedge.cli.addresses import Addresses, ResolveError
from quicedge.cli.client import termination_error
from quicedge.cli.exitcodes import ExitCode
from quicedge.cli.redirects import Request, location_of, next_request
from quicedge.cli.url import parse
from quicedge.quic.ending import Ending
from quicedge.quic.events import ConnectionTerminated

URL = "https://127.0.0.1:4433/"


# --- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "GET", "GET"), (301, "POST", "GET"), (301, "PUT", "PUT"), (302, "POST", "GET"),
        (303, "POST", "GET"), (303, "PUT", "GET"), (303, "HEAD", "HEAD"), (307, "POST", "POST"),
        (308, "POST", "POST"), (308, "HEAD", "HEAD"),
    ],
)  # fmt: skip
def test_the_method_after_a_redirect(status: int, method: str, then: str) -> None:
    fields = [(b"content-type", b"text/plain"), (b"x-kept", b"1")]
    request = Request(parse("https://a.example/x"), method, fields, b"content")
    found = next_request(request, status, b"/y")
    assert (found.method, found.target.path) == (then, "/y")
    kept = then == method
    assert found.body == (b"content" if kept else b"")
    assert ((b"content-type", b"text/plain") in found.fields) is kept
    assert (b"x-kept", b"1") in found.fields


def test_credentials_stay_with_their_host() -> None:
    fields = [(b"authorization", b"Bearer x"), (b"cookie", b"a=1"), (b"host", b"b.example"),
              (b"accept", b"*/*")]  # fmt: skip
    request = Request(parse("https://ann:secret@a.example/x"), fields=fields)
    near = next_request(request, 302, b"/y")
    assert near.sent_fields == [fields[0], fields[1], fields[3]]
    assert near.authority == "a.example", "-H Host: was for the first request"
    for location in (b"https://b.example/", b"https://a.example:8443/"):
        far = next_request(request, 302, location)
        assert far.sent_fields == [fields[3]]
    userinfo = Request(parse("https://ann:secret@a.example/x"))
    assert next_request(userinfo, 302, b"/y").sent_fields == userinfo.sent_fields
    assert next_request(userinfo, 302, b"https://b.example/").sent_fields == []


def test_the_host_field_is_the_authority_and_userinfo_is_authorization() -> None:
    request = Request(parse("https://ann:secret@a.example/x"), fields=[(b"host", b"b.example")])
    assert request.authority == "b.example"
    assert request.sent_fields == [(b"authorization", b"Basic YW5uOnNlY3JldA==")]
    own = [(b"authorization", b"Bearer x")]
    assert Request(parse("https://ann@a.example/x"), fields=own).sent_fields == own


@pytest.mark.parametrize(("status", "is_one"), [(301, True), (308, True), (300, False),
                                               (304, False), (200, False)])  # fmt: skip
def test_what_counts_as_a_redirect(status: int, is_one: bool) -> None:
    assert (location_of(status, [(b"location", b"/x")]) is not None) is is_one
    assert location_of(status, []) is None


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "host", "expected"),
    [
        ("a.example:443:192.0.2.1", "a.example", ["192.0.2.1"]),
        ("A.example:443:192.0.2.1,[2001:db8::1]", "a.example", ["192.0.2.1", "2001:db8::1"]),
        ("*:443:192.0.2.1", "anything.example", ["192.0.2.1"]),
        ("[::1]:443:192.0.2.1", "::1", ["192.0.2.1"]),
    ],
)
async def test_resolve_says_where_to_connect(entry: str, host: str, expected: list[str]) -> None:
    found = await Addresses([entry]).find(host, 443)
    assert [(address[0], address[1]) for address in found] == [(ip, 443) for ip in expected]


async def test_resolve_is_for_one_host_and_port() -> None:
    addresses = Addresses(["127.0.0.2:443:192.0.2.1"])
    assert (await addresses.find("127.0.0.2", 8443))[0][0] == "127.0.0.2"
    assert (await addresses.find("127.0.0.3", 443))[0][0] == "127.0.0.3"


@pytest.mark.parametrize("entry", ["a.example", "a.example:443", "a.example:0:192.0.2.1",
                                   "a.example:x:192.0.2.1", "a.example:443:b.example",
                                   ":443:192.0.2.1", "a.example:99999:192.0.2.1"])  # fmt: skip
def test_a_resolve_entry_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(ResolveError):
        Addresses([entry])


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--connect-timeout", "0", URL], 2, "must be above 0"),
        (["--connect-timeout", "-1", URL], 2, "must be above 0"),
        (["-m", "nan", URL], 2, "must be above 0"),
        (["-m", "inf", URL], 2, "must be above 0"),
        (["-m", "1e9", URL], 2, "at most 86400"),
        (["-m", "soon", URL], 2, "not a number of seconds"),
        (["--max-redirs", "-1", URL], 2, "not in the range"),
        (["--resolve", "a:b", URL], 2, "--resolve 'a:b' is not HOST:PORT:ADDRESS"),
        (["--sni", "a b", URL], 2, "'a b' is not a host name"),
        (["-I", "-d", "x", URL], 2, "mutually exclusive"),
        (["-I", "-X", "GET", URL], 2, "mutually exclusive"),
        (["-X", "G ET", URL], 2, "is not a valid method"),
        (["-H", "no colon", URL], 2, "is not NAME: VALUE"),
        (["-H", ":path: /x", URL], 2, "is not NAME: VALUE"),
        (["-H", "Host: ann@a.example", URL], 2, "does not name a host"),
        (["-H", "a: b\nc: d", URL], 2, "is not NAME: VALUE"),
        (["https://a b/"], 3, "encode it as %20"),
        (["https://127.0.0.1:0/"], 3, "port 0"),
        (["-d", "@/no/such", URL], 26, "-d @/no/such: No such file"),
        (["-o", "/no/such/file", URL], 23, "-o /no/such/file: No such file"),
        (["--cacert", "/no/such", URL], 77, "--cacert /no/such: No such file"),
        (["--cacert", "/dev/null", URL], 77, "--cacert /dev/null: contains no"),
        (["--cacert", "/bin/true", URL], 77, "--cacert /bin/true: contains no"),
    ],
)
def test_a_mistake_has_one_line_and_curls_exit_code(
    arguments: list[str], code: int, words: str
) -> None:
    result = CliRunner().invoke(main, ["get", *arguments])
    assert result.exit_code == code, result.output
    error = result.output[result.output.index("Error: ") :]
    assert words in error
    assert len(error.splitlines()) == 1


# --- ends of connections --------------------------------------------------------------------------


def closed(code: int, frame_type: int | None, reason: str = "") -> ConnectionTerminated:
    return ConnectionTerminated(error_code=code, frame_type=frame_type, reason_phrase=reason)


@pytest.mark.parametrize(
    ("event", "ending", "says", "code"),
    [
        (closed(0x2, 0), Ending.PEER_CLOSE, "closed: CONNECTION_REFUSED",
         ExitCode.COULDNT_CONNECT),
        (closed(0x107, None, "busy"), Ending.PEER_CLOSE, "closed: H3_EXCESSIVE_LOAD: busy",
         ExitCode.RECEIVE_ERROR),
        (closed(0x178, 6), Ending.PEER_CLOSE, "CRYPTO_ERROR (no_application_protocol)",
         ExitCode.TLS_CONNECT_ERROR),
        (closed(0x130, 6, "unknown issuer"), Ending.LOCAL_CLOSE,
         "CRYPTO_ERROR (unknown_ca): unknown issuer; --cacert FILE",
         ExitCode.CERTIFICATE_NOT_VERIFIED),
        (closed(0x12D, 6), Ending.LOCAL_CLOSE, "(certificate_expired)",
         ExitCode.CERTIFICATE_NOT_VERIFIED),
        (closed(0xA, 6), Ending.PEER_CLOSE, "PROTOCOL_VIOLATION", ExitCode.RECEIVE_ERROR),
        (closed(0x12345, None), Ending.PEER_CLOSE, "closed: 0x12345", ExitCode.RECEIVE_ERROR),
        (closed(1, 0, "Idle timeout"), Ending.IDLE_TIMEOUT, "the server stopped responding",
         ExitCode.TIMEOUT),
        (closed(1, 0, "Handshake timeout"), Ending.HANDSHAKE_TIMEOUT,
         "no response to the handshake", ExitCode.TIMEOUT),
        (closed(1, 0, "no common version"), Ending.ABORTED, "aborted: no common version",
         ExitCode.COULDNT_CONNECT),
    ],
)  # fmt: skip
def test_the_end_of_a_connection_is_named(
    event: Any, ending: Ending, says: str, code: ExitCode
) -> None:
    error = termination_error(event, ending)
    assert says in str(error)
    assert error.exit_code is code
