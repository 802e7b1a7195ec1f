"""HTTPS records: what `quicedge check` says to publish, and what it finds in DNS."""

from __future__ import annotations

import json
import socket
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from quicedge.cli import main
from quicedge.cli.dns.message import DnsError, HttpsRecord, answers, encode_query, parse_response
from quicedge.cli.dns.resolver import look_up, system_resolvers
from quicedge.cli.findings import https_records
from quicedge.cli.findings.finding import Finding, Level
from quicedge.config.host_port import HostPort
from quicedge.config.limits import DNS_DEADLINE, HTTPS_RECORD_NAMES
from quicedge.config.loader import parse_config
from quicedge.config.schema import Config
from tests.support.certs import write_certificate
from tests.support.dnsserver import dns_server, encode_name, https_record, response
from tests.support.peers import free_edge_port

HOST = "www.example.com"
QUERY = encode_query(7, HOST)


def config(options: str = "", *hosts: str, listen: str = "0.0.0.0:443") -> Config:
    routes = ", ".join(f'{{ host = "{host}", upstream = "app" }}' for host in hosts or (HOST,))
    text = (
        f'listen = ["{listen}"]\nroutes = [{routes}]\n'
        f'upstreams.app.servers = ["http://127.0.0.1:9"]\n{options}'
    )
    return parse_config(tomllib.loads(text), "quicedge.toml", Path(), machine=False)


def published(found: Config) -> list[str]:
    """What the first finding says to publish where nobody answers."""
    (finding, *_) = https_records.of_config(found, [])
    assert finding.level is Level.OK
    return finding.remedy.removeprefix("publish ").split(" and ")


@pytest.mark.parametrize(
    ("listen", "options", "expected"),
    [
        ("0.0.0.0:443", "", [f'{HOST}. 3600 IN HTTPS 1 . alpn="h3,h2"']),
        (
            "0.0.0.0:443", 'protocols = ["h3", "h2"]',
            [f'{HOST}. 3600 IN HTTPS 1 . alpn="h3,h2" no-default-alpn'],
        ),
        (
            "0.0.0.0:443", 'protocols = ["http/1.1", "h3"]',
            [f'{HOST}. 3600 IN HTTPS 1 . alpn="h3"'],
        ),
        # Not where QUIC is: the port holds for all protocols of a record.
        (
            "0.0.0.0:443", "alt_svc.port = 8443",
            [
                f'{HOST}. 3600 IN HTTPS 1 . alpn="h3" no-default-alpn port=8443',
                f'{HOST}. 3600 IN HTTPS 2 . alpn="h2"',
            ],
        ),
        # Translated on the way.
        ("0.0.0.0:8443", "alt_svc.port = 443", [f'{HOST}. 3600 IN HTTPS 1 . alpn="h3,h2"']),
        # Clients of https://www.example.com:8443/ ask for this name (RFC 9460 section 2.3).
        (
            "0.0.0.0:8443", "",
            [f'_8443._https.{HOST}. 3600 IN HTTPS 1 {HOST}. alpn="h3,h2"'],
        ),
    ],
)  # fmt: skip
def test_what_to_publish(listen: str, options: str, expected: list[str]) -> None:
    assert published(config(options, listen=listen)) == expected


@pytest.mark.parametrize("options", ['protocols = ["h2"]', "alt_svc.enabled = false"])
def test_no_record_is_suggested_where_http3_is_not_advertised(options: str) -> None:
    assert list(https_records.of_config(config(options), [])) == []


def test_only_names_that_dns_can_have_are_looked_up() -> None:
    hosts = ("localhost", "127.0.0.1", "*", "app", "box.localhost", "*.example.com", HOST)
    found = [finding.subject for finding in https_records.of_config(config("", *hosts), [])]
    assert found == ["HTTPS record of *.example.com", f"HTTPS record of {HOST}"]
    found = [
        finding.subject
        for finding in https_records.of_config(config("", *hosts, listen="0.0.0.0:8443"), [])
    ]
    assert found == [f"HTTPS record of {HOST}"], "_8443._https.* is no wildcard"


def look(records: list[bytes] | None, options: str = "") -> Finding:
    with dns_server({} if records is None else {HOST: records}) as server:
        (finding,) = https_records.of_config(config(options), [server])
    return finding


@pytest.mark.parametrize(
    ("records", "level", "message"),
    [
        ([https_record("h3", "h2")], Level.OK, "published: clients may begin with HTTP/3"),
        (
            [https_record("h2", priority=2), https_record("h3", port=443)],
            Level.OK, "published: clients may begin with HTTP/3",
        ),
        ([https_record(priority=0, target="cdn.example.net")],
         Level.OK, "published: an alias of cdn.example.net"),
        ([], Level.OK,
         "not published: clients begin with TCP and learn of HTTP/3 from Alt-Svc"),
        (None, Level.OK,
         "not published: clients begin with TCP and learn of HTTP/3 from Alt-Svc"),
        ([https_record("h2")], Level.WARNING,
         "published without h3: clients that trust it begin with TCP"),
        ([https_record("h3", port=8443)], Level.WARNING,
         "published for port 8443, where HTTP/3 is not served"),
    ],
)  # fmt: skip
def test_what_is_published_is_compared(
    records: list[bytes] | None, level: Level, message: str
) -> None:
    if message.endswith("malformed HTTPS record"):
        records = [https_record("h3")[:-3] + b"\x09h3"]  # a length beyond the end
    finding = look(records)
    assert (finding.level, finding.message) == (level, message)
    assert bool(finding.remedy) is not finding.message.startswith("published: ")


def test_a_machine_without_network_is_no_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        begun = time.monotonic()
        hosts = [f"{n}.example.com" for n in range(HTTPS_RECORD_NAMES + 10)]
        found = list(
            https_records.of_config(config("", *hosts), [HostPort.of(silent.getsockname())])
        )
        assert time.monotonic() - begun < DNS_DEADLINE + 5, "all names share the time"
    assert {finding.level for finding in found} == {Level.OK}
    messages = [finding.message for finding in found]
    assert messages.count("not looked up: no resolver answers") == HTTPS_RECORD_NAMES
    assert messages.count("not looked up: too many hosts") == 10
    assert all("HTTPS 1 ." in finding.remedy for finding in found)


def test_lost_queries_are_sent_again_also_to_the_next_resolver() -> None:
    zone = {HOST: [https_record("h3")]}
    asked: list[str] = []
    with dns_server(zone, lost=1, asked=asked) as server:
        assert look_up([HOST], [server]) == {HOST: [HttpsRecord(1, "", ("h3",))]}
        assert asked == [HOST] * 2
    with dns_server({}, lost=99) as dead, dns_server(zone) as alive:
        assert look_up([HOST], [dead, alive]) == {HOST: [HttpsRecord(1, "", ("h3",))]}


def test_names_that_cannot_be_are_not_asked_for() -> None:
    found = look_up(["a" * 64 + ".example", "a..b"], [])
    assert all("not a name of DNS" in str(error) for error in found.values())


def test_the_resolvers_of_the_machine(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    assert system_resolvers(file) == []
    file.write_text(
        "# nameserver 9.9.9.9\nsearch example.com\nnameserver 192.0.2.1\n"
        "\tnameserver\t2001:db8::1\n"
        "nameserver 1.2.3.4.5\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
    )
    assert system_resolvers(file) == [
        HostPort("192.0.2.1", 53), HostPort("2001:db8::1", 53), HostPort("192.0.2.2", 53),
    ]  # fmt: skip


def test_the_records_behind_an_alias_are_found() -> None:
    data = encode_name("cdn.example.net")
    alias = b"\xc0\x0c\0\5\0\1\0\0\1\0\0" + bytes((len(data),)) + data
    at = 12 + len(QUERY[12:-11]) + 12  # where the alias's target begins
    answer = response(QUERY, alias, https_record("h3", owner=(0xC000 | at).to_bytes(2, "big")))
    assert parse_response(answer) == [HttpsRecord(1, "", ("h3",))]


@pytest.mark.parametrize("rcode", [1, 2, 5, 9])
def test_a_resolver_that_fails_says_nothing_about_the_name(rcode: int) -> None:
    with pytest.raises(DnsError, match="the resolver says"):
        parse_response(response(QUERY, rcode=rcode))


def test_a_response_cut_short_says_nothing_about_the_name() -> None:
    whole = bytearray(response(QUERY))
    whole[2] |= 0x02
    with pytest.raises(DnsError, match="too large"):
        parse_response(bytes(whole))


@pytest.mark.parametrize(
    "name", [b"\xc0\x21", b"\xc0\xff", b"\xff\xff", b"\x40a\0", (b"\x3f" + b"a" * 63) * 4 + b"\0"],
    ids=["itself", "forwards", "far", "reserved", "long"],
)  # fmt: skip
def test_names_that_do_not_end_are_refused(name: bytes) -> None:
    with pytest.raises(DnsError):
        parse_response(response(QUERY, https_record("h3", owner=name)))


def test_only_the_response_to_the_query_is_taken() -> None:
    assert answers(response(QUERY), QUERY)
    assert answers(response(encode_query(7, HOST.upper())), QUERY)
    for other in (encode_query(8, HOST), encode_query(7, "www.example.org"), encode_query(7, "a")):
        assert not answers(response(other), QUERY)
    assert not answers(b"", QUERY)


@given(st.binary(max_size=600))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    _parse_or_refuse(data)


@given(st.binary(max_size=300), st.integers(0, 5), st.integers(0, 400))
def test_any_bytes_in_a_response_are_parsed_or_refused(noise: bytes, count: int, at: int) -> None:
    whole = response(QUERY, *[https_record("h3", "h2", port=443)] * count)
    _parse_or_refuse(whole[:at] + noise + whole[at + len(noise) :])
    _parse_or_refuse(whole[:at])


def _parse_or_refuse(data: bytes) -> None:
    answers(data, QUERY)
    try:
        found = parse_response(data)
    except DnsError:
        return
    assert len(found) <= len(data) / 12


@given(
    st.integers(0, 65535),
    st.lists(st.sampled_from(["h3", "h2", "http/1.1", "h3-29"]), max_size=4),
    st.none() | st.integers(0, 65535),
)
def test_what_is_encoded_is_read(priority: int, alpn: list[str], port: int | None) -> None:
    record = https_record(*alpn, port=port, priority=priority, target="a.example")
    expected = HttpsRecord(priority, "a.example", tuple(alpn), port)
    assert parse_response(response(QUERY, record, record)) == [expected] * 2


def test_check_prints_the_record_to_publish_and_whether_it_exists(tmp_path: Path) -> None:
    """As an operator runs it; a route for any host has the names of the certificate."""
    write_certificate(tmp_path, HOST, "api.example.com", "127.0.0.1", "localhost")
    file = tmp_path / "quicedge.toml"
    port = free_edge_port()
    file.write_text(f"""
listen = ["127.0.0.1:{port}"]
alt_svc.port = 443
admin.enabled = false
upstreams.app.servers = ["http://127.0.0.1:9"]
routes = [{{ upstream = "app" }}]
tls.certificates = [{{ cert = "cert.pem", key = "cert.key" }}]
""")
    with dns_server({HOST: [https_record("h3", "h2")]}) as server:
        done = CliRunner().invoke(
            main, ["check", "--json", "--config", str(file), "--resolver", str(server)]
        )
        assert done.exit_code == 0, done.output
        plain = CliRunner().invoke(
            main, ["check", "--config", str(file), "--resolver", str(server)]
        )
    found = {item["subject"]: item for item in json.loads(done.output)}
    assert found[f"HTTPS record of {HOST}"]["message"].startswith("published")
    lacking = found["HTTPS record of api.example.com"]
    assert lacking["message"].startswith("not published")
    assert lacking["remedy"] == 'publish api.example.com. 3600 IN HTTPS 1 . alpn="h3,h2"'
    assert lacking["remedy"] in plain.output
    assert len([subject for subject in found if subject.startswith("HTTPS record")]) == 2


@pytest.mark.parametrize("resolver", ["dns.example", "1.2.3.4:99999"])
def test_a_resolver_is_an_address(resolver: str) -> None:
    done = CliRunner().invoke(main, ["check", "--resolver", resolver])
    assert done.exit_code == 2
