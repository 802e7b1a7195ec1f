"""Certificates named by patterns and directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.config.certificate_files import certificate_files, pattern_problem
from quicedge.config.schema import Certificate, Tls


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def found(root: Path, tls: Tls) -> list[tuple[str, str]]:
    return [
        (str(Path(files.cert).relative_to(root)), str(Path(files.key).relative_to(root)))
        for files in certificate_files(tls)
    ]


def test_what_a_star_stands_for_is_the_same_in_cert_and_key(tmp_path: Path) -> None:
    put(tmp_path, "live/a.example/fullchain.pem", "live/b.example/fullchain.pem", "live/README")
    put(tmp_path, "live/[odd]/fullchain.pem")
    entry = Certificate(
        cert=f"{tmp_path}/live/*/fullchain.pem", key=f"{tmp_path}/live/*/privkey.pem"
    )
    assert found(tmp_path, Tls(certificates=[entry])) == [
        (f"live/{name}/fullchain.pem", f"live/{name}/privkey.pem")
        for name in ("[odd]", "a.example", "b.example")
    ]


def test_two_stars_stand_for_different_things(tmp_path: Path) -> None:
    put(tmp_path, "x/one.crt", "y/two.crt")
    entry = Certificate(cert=f"{tmp_path}/*/*.crt", key=f"{tmp_path}/*/private-*.key")
    assert found(tmp_path, Tls(certificates=[entry])) == [
        ("x/one.crt", "x/private-one.key"),
        ("y/two.crt", "y/private-two.key"),
    ]


def test_a_file_that_is_named_is_there_even_if_it_is_missing(tmp_path: Path) -> None:
    entry = Certificate(cert=f"{tmp_path}/a.pem", key=f"{tmp_path}/a.key", default=True)
    (files,) = certificate_files(Tls(certificates=[entry]))
    assert (files.cert, files.default, files.place) == (
        f"{tmp_path}/a.pem", True, "tls.certificates[0]",
    )  # fmt: skip


def test_a_directory_has_pairs_by_the_names_of_all_tools(tmp_path: Path) -> None:
    put(tmp_path, "a.pem", "a.key", "b.crt", "b.key", "lonely.pem", "other.key", "notes.txt")
    put(tmp_path, "certbot/fullchain.pem", "certbot/privkey.pem", "certbot/chain.pem")
    put(tmp_path, "..2026/tls.crt", "..2026/tls.key")
    (tmp_path / "kubernetes").symlink_to("..2026")
    assert found(tmp_path, Tls(certificate_directories=[str(tmp_path)])) == [
        ("a.pem", "a.key"),
        ("b.crt", "b.key"),
        ("certbot/fullchain.pem", "certbot/privkey.pem"),
        ("kubernetes/tls.crt", "kubernetes/tls.key"),
    ]


def test_a_certificate_that_is_named_twice_is_there_once(tmp_path: Path) -> None:
    put(tmp_path, "a.pem", "a.key")
    entry = Certificate(cert=f"{tmp_path}/a.pem", key=f"{tmp_path}/a.key", default=True)
    tls = Tls(certificates=[entry], certificate_directories=[str(tmp_path)])
    (files,) = certificate_files(tls)
    assert files.default


def test_a_directory_that_is_missing_has_none(tmp_path: Path) -> None:
    assert certificate_files(Tls(certificate_directories=[f"{tmp_path}/none"])) == []


@pytest.mark.parametrize(
    ("cert", "key", "default", "problem"),
    [
        ("/a/*/c.pem", "/a/k.pem", False, "same number"),
        ("/a/**/c.pem", "/a/**/k.pem", False, "not supported"),
        ("/a/*/c.pem", "/a/*/k.pem", True, "default"),
        ("/a/*/c.pem", "/a/*/k.pem", False, None),
        ("/a/c.pem", "/a/k.pem", True, None),
    ],
)
def test_patterns_that_cannot_mean_anything_are_refused(
    cert: str, key: str, default: bool, problem: str | None
) -> None:
    found = pattern_problem(Certificate(cert=cert, key=key, default=default))
    assert found is None if problem is None else problem in (found or "")
