"""URLs: where a client connects, and what its request says."""

from __future__ import annotations

from base64 import b64decode

import pytest

from quicedge.cli.url import Target, UrlError, parse, redirected


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://a.example", "a.example", "/"),
        ("a.example/x", "a.example", "/x"),
        ("https://A.Example:443/X", "a.example", "/X"),
        ("https://a.example:8443/", "a.example:8443", "/"),
        ("https://a.example/p?", "a.example", "/p?"),
        ("https://a.example?", "a.example", "/?"),
        ("https://a.example?q=1", "a.example", "/?q=1"),
        ("https://a.example/p?a=/../b&c=%2e", "a.example", "/p?a=/../b&c=%2e"),
        ("https://a.example/p#fragment?no", "a.example", "/p"),
        ("https://a.example/x/../y/./z", "a.example", "/y/z"),
        ("https://a.example/../..", "a.example", "/"),
        ("https://a.example/a/b/..", "a.example", "/a/"),
        ("https://a.example/a//b/.", "a.example", "/a//b/"),
        ("https://a.example/%2e%2e/%20", "a.example", "/%2e%2e/%20"),
        ("https://a.example/\u00e9?\u00fc", "a.example", "/%C3%A9?%C3%BC"),
        ("https://a.example/|{}^", "a.example", "/|{}^"),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example", "/"),
        ("https://192.0.2.1:8443/", "192.0.2.1:8443", "/"),
        ("https://[2001:DB8::1]:8443/", "[2001:db8::1]:8443", "/"),
        ("https://ann:secret@a.example:8443/x", "a.example:8443", "/x"),
        ("https://ann@a.example/x@y", "a.example", "/x@y"),
    ],
)
def test_authority_and_path(url: str, authority: str, path: str) -> None:
    target = parse(url)
    assert (target.authority, target.path) == (authority, path)


def test_a_zone_says_where_to_connect_and_is_not_sent() -> None:
    target = parse("https://[fe80::1%25eth0]:8443/")
    assert target.host == "fe80::1%eth0"
    assert target.authority == "[fe80::1]:8443"


def test_dot_segments_can_be_sent_as_they_are() -> None:
    assert parse("https://a.example/x/../y/.", path_as_is=True).path == "/x/../y/."


@pytest.mark.parametrize(
    ("userinfo", "pair"),
    [("ann:secret", b"ann:secret"), ("ann", b"ann:"), ("a%40b:%3A", b"a@b::"), (":p", b":p")],
)
def test_userinfo_becomes_basic_credentials(userinfo: str, pair: bytes) -> None:
    credentials = parse(f"https://{userinfo}@a.example/").credentials
    assert credentials is not None
    scheme, _, value = credentials.partition(b" ")
    assert (scheme, b64decode(value)) == (b"Basic", pair)
    assert parse("https://a.example/").credentials is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://a.example/", "not an https URL"),
        ("https:///x", "not an https URL"),
        ("https://[::1/", "not an https URL"),
        ("https://a.example:99999/", "not an https URL"),
        ("https://a.example:x/", "not an https URL"),
        ("https://a.example:0/", "port 0"),
        ("https://a.example/a b", "encode it as %20"),
        ("https://a.example/a\nb", "encode it as %0A"),
        ("https://a.example/\x1b", "encode it as %1B"),
        ("https://a\\b.example/", "is not a valid host"),
        ("https://a.example\u2028/", "encode it as"),
        (f"https://{'a' * 64}\u00e9.example/", "not a host name"),
    ],
)
def test_what_is_no_url_is_explained(url: str, says: str) -> None:
    with pytest.raises(UrlError) as error:
        parse(url)
    assert says in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "url",
    [
        "http://ann:secret@a.example/",
        "https://ann:secret@a.example/ ",
        "https://ann:secret@a.example:x/",
        "https://ann:secret@/",
    ],
)
def test_errors_do_not_repeat_credentials(url: str) -> None:
    with pytest.raises(UrlError) as error:
        parse(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        (b"/other?x", "https://a.example:8443/other?x"),
        (b"sibling", "https://a.example:8443/dir/sibling"),
        (b"../up", "https://a.example:8443/up"),
        (b"?", "https://a.example:8443/dir/page?"),
        (b"", "https://a.example:8443/dir/page?query"),
        (b"/empty?", "https://a.example:8443/empty?"),
        (b"//b.example/x", "https://b.example/x"),
        (b"https://b.example:9443/x#there", "https://b.example:9443/x"),
        ("/\u00e9".encode(), "https://a.example:8443/%C3%A9"),
        (b"/a b", "https://a.example:8443/a%20b"),
        (b"/done%20already", "https://a.example:8443/done%20already"),
    ],
)
def test_where_a_redirect_leads(location: bytes, url: str) -> None:
    start = parse("https://a.example:8443/dir/page?query")
    assert redirected(start, location).url == url


@pytest.mark.parametrize(
    "location", [b"http://a.example/", b"ftp://a.example/", b"https://", b"mailto:a@b"]
)
def test_a_redirect_to_something_else_is_refused(location: bytes) -> None:
    with pytest.raises(UrlError):
        redirected(parse("https://a.example/"), location)


def test_the_same_origin_is_host_and_port() -> None:
    start = parse("https://a.example/")
    assert start.is_same_origin(parse("https://A.example:443/x?y"))
    assert not start.is_same_origin(parse("https://a.example:8443/"))
    assert not start.is_same_origin(parse("https://b.example/"))
    assert isinstance(start, Target)
