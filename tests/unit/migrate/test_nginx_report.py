"""The report: one line for every directive, whatever it is, and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quicedge.migrate.errors import SourceError
from quicedge.migrate.nginx.left_out import UNUSED, reason
from quicedge.migrate.nginx.source import read
from quicedge.migrate.nginx.translation import translate
from quicedge.migrate.report import Line, Status, as_dict, render
from tests.support.migrated import Migrated, site

analyzer = pytest.importorskip("crossplane.analyzer")

HTTP, SERVER, LOCATION = (
    getattr(analyzer, name)
    for name in ("NGX_HTTP_MAIN_CONF", "NGX_HTTP_SRV_CONF", "NGX_HTTP_LOC_CONF")
)
ARGUMENTS = (
    "on", "off", "10", "5s", "10m", "$uri", "$http_x_a", "$host", "/a", "/a/$1", "'^/a/(.*)$'",
    "~", "=", "http://127.0.0.1:8000", "https://b.test/x", "http://$args", "301", "404", "all",
    "10.0.0.0/8", "zone=z:1m", "rate=1r/s", "any", "name", "last", "permanent", "X-A", "'a{b}'",
    '""', "'a b'", "é", "*.a.test", "default", "@n",
)  # fmt: skip


def forms(context: int) -> list[tuple[str, int, bool]]:
    """Names of directives that are allowed somewhere, with a number of arguments that they take,
    and whether they have a block."""
    found = []
    for name, masks in analyzer.DIRECTIVES.items():
        for mask in masks:
            if not mask & context or name in ("server", "location", "include", "if", "listen"):
                continue
            counts = [n for n in range(8) if mask >> n & 1] or [1]
            if mask & analyzer.NGX_CONF_FLAG:
                counts = [1]
            found += [(name, n, bool(mask & analyzer.NGX_CONF_BLOCK)) for n in counts]
    return found


@st.composite
def directives(draw: Any, context: int) -> str:
    known = forms(context)
    if draw(st.booleans()):
        # Half of them are some that are translated.
        known = [form for form in known if reason(form[0]) is UNUSED] or known
    name, count, has_block = draw(st.sampled_from(known))
    if draw(st.integers(0, 15)) == 0:
        name, count, has_block = "unknown_directive", 1, False
    mask = analyzer.DIRECTIVES.get(name, [0])[0]
    if mask & analyzer.NGX_CONF_FLAG:
        return f"{name} {draw(st.sampled_from(('on', 'off')))};"
    words = [name, *draw(st.lists(st.sampled_from(ARGUMENTS), min_size=count, max_size=count))]
    return " ".join(words) + (" { }" if has_block else ";")


@st.composite
def configurations(draw: Any) -> str:
    http = "\n".join(draw(st.lists(directives(HTTP), max_size=4)))
    inside = "\n".join(draw(st.lists(directives(LOCATION), max_size=6)))
    around = "\n".join(draw(st.lists(directives(SERVER), max_size=5)))
    location = draw(
        st.sampled_from(("/", "/a", "= /a", "^~ /a/", "~ ^/a/(.*)$", "~* \\.(a|b)$", "@n"))
    )
    condition = draw(st.sampled_from(("$host = a", "$http_a", "-f $uri", "$request_method ~ GET")))
    return (
        f"http {{\n{http}\nserver {{\n{around}\nlisten 443 ssl;\nlocation {location} {{\n{inside}\n"
        f"if ({condition}) {{\nreturn 403;\n}}\n}}\nlocation /other {{\nreturn 204;\n}}\n}}\n}}\n"
    )


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(text=configurations())
def test_every_directive_has_exactly_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("nginx") / "nginx.conf"
    path.write_text(text)
    try:
        every = read(path).all
        translation = translate(path)
    except SourceError:
        return  # nginx would refuse it as well
    expected = [(d.file, d.line, d.text) for d in every]
    assert [(line.file, line.line, line.text) for line in translation.report] == expected
    for line in translation.report:
        assert line.words or line.status is Status.TRANSLATED, line
        assert not (line.effects and line.status is Status.TRANSLATED), line


def test_every_directive_of_nginx_has_a_reason_to_be_left_out() -> None:
    assert [name for name in analyzer.DIRECTIVES if not reason(name).words] == []


def test_directives_of_included_files_are_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "snippet.conf").write_text("add_header X-A a always;\n")
    text = site(
        "include snippet.conf; location /a/ { include snippet.conf; root /srv; } root /srv;"
    )
    found = Migrated(tmp_path, text)
    places = Counter(line.file.rpartition("/")[2] for line in found.translation.report)
    assert places["snippet.conf"] == 2
    assert found.status("include") is Status.TRANSLATED


def test_the_report_in_words(tmp_path: Path) -> None:
    http = "types {\n text/html html;\n text/css css;\n}\nsendfile on;"
    found = Migrated(tmp_path, site("add_header X-A a;\nroot /srv;", http=http))
    text = render(found.translation)
    assert f"  {found.path}:4-5: 2 entries of types  -> as quicedge has it\n" in text
    assert f"! {found.path}:7: sendfile on;  -> left out: a matter of nginx's own" in text
    assert (
        f"~ {found.path}:13: add_header X-A a;  -> translated with a difference: with errors"
        in text
    )
    assert "Differences for all requests:\n  - " in text
    assert "To do before the edge can start:\n  - " in text
    lines = as_dict(found.translation)["lines"]
    assert lines[-1]["status"] == "translated"


def test_all_networks_of_a_geo_with_one_value_are_translated(tmp_path: Path) -> None:
    http = "geo $inner { default 0; 10.0.0.0/8 1; 127.0.0.0/8 1; }"
    text = site("location / { if ($inner = 0) { return 403; } return 204; }", http=http)
    report = Migrated(tmp_path, text).translation.report
    entries = [line for line in report if line.text.endswith("/8 1;")]
    assert [line.status for line in entries] == [Status.TRANSLATED] * 2


def test_a_line_whose_place_is_not_known_names_the_file_alone() -> None:
    assert Line("Caddyfile", 0, "header", Status.LEFT_OUT).place == "Caddyfile"
    assert Line("Caddyfile", 3, "header", Status.LEFT_OUT).place == "Caddyfile:3"


def test_the_configuration_says_where_its_parts_are_from(tmp_path: Path) -> None:
    found = Migrated(tmp_path, site("location /a/ {\nproxy_pass http://b;\n}"))
    assert "# nginx.conf:9: location /a/\n[[routes]]\n" in found.translation.toml
    assert "# nginx.conf:10\n[upstreams.b]\n" in found.translation.toml
