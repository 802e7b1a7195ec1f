"""The HTML report, and the plot."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from quicedge.qlog import plot, report
from quicedge.qlog.analyse import Analysis, analyse
from quicedge.qlog.connection import Connection
from tests.support.qlogtraces import Transfer, lossy, transfer

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{data}}{{script}}"


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def sides(directory: Path, done: Transfer) -> list[tuple[Analysis, Connection]]:
    found = []
    for path in done.write(directory):
        analysis = analyse(path)
        assert analysis.main is not None
        found.append((analysis, analysis.main))
    return found


def embedded(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert match is not None
    data: dict[str, Any] = json.loads(match[1])
    return data


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    page = report.page(sides(tmp_path, lossy()))
    parser = _Elements()
    parser.feed(page)
    for tag, attributes in parser.tags:
        assert not {"src", "href", "srcset", "action", "style"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "innerHTML" not in page
    assert "{{" not in page


def test_the_policy_names_the_script_and_the_style(tmp_path: Path) -> None:
    page = report.page(sides(tmp_path, lossy()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for name in ("style", "script"):
        body = re.findall(rf"<{name}>(.*?)</{name}>", page, re.S)
        assert len(body) == 1
        digest = base64.b64encode(hashlib.sha256(body[0].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy[1]


def test_what_a_client_sent_stays_text(tmp_path: Path) -> None:
    done = transfer(sizes=(3000,), loss=0, path=EVIL.encode(), close_reason=EVIL)
    (tmp_path / EVIL.replace("/", "_")).mkdir()
    found = sides(tmp_path / EVIL.replace("/", "_"), done)
    page = report.page(found)
    clean = report.page(sides(tmp_path, transfer(sizes=(3000,), loss=0)))
    # No element more than on a page without it, and the values whole in the data.
    count = [len(re.findall("<", text)) for text in (page, clean)]
    assert count[0] == count[1]
    data = embedded(page)
    assert data["sides"][0]["summary"]["close"]["reason"] == EVIL
    assert any(EVIL in row["what"] for row in data["sides"][1]["streams"])


def test_a_file_name_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "<b>&\"'.qlog"
    path.write_text(json.dumps(lossy().client))
    analysis = analyse(path)
    assert analysis.main is not None
    page = report.page([(analysis, analysis.main)])
    assert "<title>&lt;b&gt;&amp;&quot;&#x27;.qlog" in page
    assert "<b>&" not in page


def test_the_data_is_what_happened(tmp_path: Path) -> None:
    data = embedded(report.page(sides(tmp_path, lossy())))
    client, server = data["sides"]
    assert data["aligned"] is True
    assert sum(kinds.get("lost", 0) for _, kinds in server["losses"]["buckets"]) == (
        lossy().datagrams_lost
    )
    assert server["packets"]["sent"]["complete"]
    sent = {(row[1], row[2]): row[0] for row in server["packets"]["sent"]["details"]}
    received = {(row[1], row[2]): row[0] for row in client["packets"]["received"]["details"]}
    assert len(sent) - len(received) == lossy().datagrams_lost
    # On one clock every packet arrives 20 ms after it left, or later where it queued.
    assert all(time - sent[key] > 19.5 for key, time in received.items())
    window = server["series"]["window"]
    assert window == sorted(window)
    assert {row["id"] for row in server["streams"]} >= {0, 4, 8}


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (_, connection) = sides(tmp_path, lossy())[1]
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        plot.draw(tmp_path / name, connection)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"\.png"):
        plot.draw(tmp_path / "a.gif", connection)


def test_picture_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (_, connection) = sides(tmp_path, lossy())[1]
    with pytest.raises(plot.MissingLibrary, match=r"quicedge\[plot\]"):
        plot.draw(tmp_path / "a.png", connection)
