"""Reading nginx's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.migrate.errors import SourceError
from quicedge.migrate.nginx.source import read

pytest.importorskip("crossplane")


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_directives_of_included_files_have_their_own_place(tmp_path: Path) -> None:
    main = write(
        tmp_path, "nginx.conf", "events {}\nhttp {\n  include sites/*.conf;\n  gzip on;\n}\n"
    )
    one = write(tmp_path, "sites/a.conf", "\nserver { listen 80; }\n")
    two = write(tmp_path, "sites/b.conf", "server {\n  listen 81;\n}\n")
    source = read(main)
    assert [(d.text, d.file, d.line) for d in source.all] == [
        ("events { }", str(main), 1),
        ("http { }", str(main), 2),
        ("include sites/*.conf;", str(main), 3),
        ("server { }", str(one), 2),
        ("listen 80;", str(one), 2),
        ("server { }", str(two), 1),
        ("listen 81;", str(two), 2),
        ("gzip on;", str(main), 4),
    ]
    http = source.top[1]
    assert [d.name for d in http.body] == ["include", "server", "server", "gzip"]


def test_a_site_alone_is_read_as_if_it_stood_in_http(tmp_path: Path) -> None:
    source = read(write(tmp_path, "site", "server { listen 80; }\nupstream a { server b; }\n"))
    assert [d.name for d in source.top] == ["server", "upstream"]


def test_conditions_and_quotes_are_shown_as_they_are_written(tmp_path: Path) -> None:
    text = "server { if ($host = a) { return 301 'x y'; } return 200 'say \"a\"'; }"
    assert [d.text for d in read(write(tmp_path, "site", text)).all][1:] == [
        "if ($host = a) { }",
        'return 301 "x y";',
        "return 200 'say \"a\"';",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server {\n  listen 80;\n", 'unexpected end of file, expecting "}"'),
        (
            "http {\n  server { proxy_pass http://a; }\n}",
            'nginx.conf:2: "proxy_pass" directive is ',
        ),
        ("http {\n\n  client_max_body_size;\n}", "nginx.conf:3: invalid number of arguments"),
        ("# nothing\n", "is not a configuration of nginx: it has neither http { } nor server { }"),
        ('[tls]\nkey = "value"\n', "nginx.conf"),
        ("http {\n include other.conf;\n}", "other.conf: No such file or directory"),
        ("http {\n include nginx.conf;\n}", "include nginx.conf; includes itself"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "nginx.conf", text)
    with pytest.raises(SourceError) as caught:
        read(path)
    assert message in str(caught.value)


def test_a_file_that_comes_with_nginx_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path, "nginx.conf", "events {}\nhttp {\n  include mime.types;\n}\n")
    assert [d.is_missing for d in read(path).all if d.name == "include"] == [True]


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nginx\.conf: No such file or directory"):
        read(tmp_path / "nginx.conf")
