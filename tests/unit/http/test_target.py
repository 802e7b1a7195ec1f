"""Path normalization and ambiguous paths."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.http.target import is_ambiguous, normal_path


@pytest.mark.parametrize(
    ("target", "normal"),
    [
        (b"/", b"/"),
        (b"/a/b?x=/../y", b"/a/b"),
        (b"/%72aw/%7Euser", b"/raw/~user"),
        (b"/%2f%c3%bc", b"/%2F%C3%BC"),
        (b"/raw/../small", b"/small"),
        (b"/raw/%2e%2E/small", b"/small"),
        (b"/a/./b/.", b"/a/b/"),
        (b"/a/b/..", b"/a/"),
        (b"/..", b"/"),
        (b"/../../etc", b"/etc"),
        (b"/a//b", b"/a//b"),
        (b"/a/.../b/..c/.d", b"/a/.../b/..c/.d"),
        (b"/%252e%252e/a", b"/%252e%252e/a"),
        (b"/100%", b"/100%"),
        (b"/%zz", b"/%zz"),
    ],
)
def test_normal_form(target: bytes, normal: bytes) -> None:
    assert normal_path(target) == normal


@pytest.mark.parametrize(
    "target",
    [
        b"/raw/..%2fadmin", b"/raw/..%2Fadmin", b"/raw%2f../admin", b"/raw/%2e%2e%2fadmin",
        b"/raw/..%5cadmin", b"/raw/..\\admin", b"/raw\\..\\admin", b"/raw/..;/admin",
        b"/raw/..;x=1/admin", b"/raw/..%3b/admin", b"/raw//../admin", b"/raw/.;/../x",
    ],
)  # fmt: skip
def test_paths_that_servers_disagree_about_are_ambiguous(target: bytes) -> None:
    assert is_ambiguous(target)


@pytest.mark.parametrize(
    "target",
    [
        b"/", b"/a/../b", b"/a/%2e%2e/b", b"/../b", b"/a/./b/", b"/a;v=1/b", b"/a;v=1/../b",
        b"/a%2fb", b"/a//b", b"/.well-known/x", b"/a..b/c.", b"/file.tar.gz", b"/...",
        b"/a?x=..%2f..%2f", b"/a/b?next=/../..;/",
    ],
)  # fmt: skip
def test_honest_paths_are_not(target: bytes) -> None:
    assert not is_ambiguous(target)


@given(st.lists(st.sampled_from([b"a", b"b", b".", b"..", b"", b"%2e", b"%61", b";x", b"%2f"])))
def test_the_normal_form_is_its_own_and_has_no_dot_segment(parts: list[bytes]) -> None:
    normal = normal_path(b"/" + b"/".join(parts))
    assert normal_path(normal) == normal
    assert not {b".", b".."} & set(normal.split(b"/"))


# How servers read a path, each in its way.
READERS = {
    "decodes, merges slashes, resolves": unquote_to_bytes,
    "cuts parameters, decodes, resolves": lambda path: unquote_to_bytes(
        re.sub(rb";[^/]*", b"", path)
    ),
    "decodes, cuts parameters, resolves": lambda path: re.sub(
        rb";[^/]*", b"", unquote_to_bytes(path)
    ),
    "takes backslashes for slashes": lambda path: unquote_to_bytes(path).replace(b"\\", b"/"),
}


@pytest.mark.parametrize("reader", READERS)
@given(
    st.lists(
        st.sampled_from(
            [b"a", b"..", b".", b"", b"%2e%2e", b".%2E", b"..;x", b"..%3bx", b";x", b"a;x",
             b"a%2f..", b"..%2fb", b"..\\b", b"a\\..", b"..%5c..", b"%2f", b"%2f..", b"..."]
        ),
        max_size=6,
    )
)  # fmt: skip
def test_no_server_is_led_out_of_the_route_that_was_chosen(reader: str, parts: list[bytes]) -> None:
    path = b"/raw/" + b"/".join(parts)
    if is_ambiguous(path) or not normal_path(path).startswith(b"/raw/"):
        return
    seen = posixpath.normpath(re.sub(rb"/{2,}", b"/", READERS[reader](path)))
    assert seen == b"/raw" or seen.startswith(b"/raw/"), path
