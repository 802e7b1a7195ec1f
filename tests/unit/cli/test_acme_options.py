"""`quicedge serve --host ... --email ...`: a real certificate without a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from quicedge.acme.directory_storage import DirectoryStorage
from quicedge.acme.records import Records
from quicedge.acme.schedule import HostRecord
from quicedge.cli import main
from quicedge.cli.findings import acme, state
from quicedge.cli.options import Options, make_config
from quicedge.config import devcerts
from quicedge.config.changes import with_passwords, without_passwords
from quicedge.config.schema import Acme, Config, Route, Tls

GIVEN: dict[str, Any] = {
    "upstream": "http://127.0.0.1:8000",
    "hosts": ("www.example.com", "api.example.com"),
    "email": "ops@example.com",
    "agree_to_terms": True,
}


def made(**changes: Any) -> Config:
    return make_config(Options(**{**GIVEN, **changes}))


def test_hosts_and_an_address_are_all_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/quicedge-test")
    config = made()
    made_of = config.tls.acme
    assert made_of is not None
    assert (made_of.email, made_of.staging) == ("ops@example.com", False)
    assert [route.host for route in config.routes] == ["www.example.com", "api.example.com"]
    assert config.listen == Config().listen, "the public ports"
    assert config.state_directory == "/var/lib/quicedge-test"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agree_to_terms": False}, "--agree-to-terms: is required"),
        ({"email": "ops"}, "--email: 'ops' is not an address"),
        ({"hosts": ("https://x.example",)}, "--host: "),
        ({"hosts": ("*.example.com",)}, "--host: '*.example.com' is a wildcard"),
        ({"hosts": ()}, "--host and --email require each other"),
        ({"email": None}, "--host and --email require each other"),
        ({"email": None, "hosts": ()}, "--agree-to-terms and --staging require --email"),
        ({"upstream": None, "path": "quicedge.toml"}, "cannot be combined with --config"),
    ],
)
def test_what_is_missing_is_named_as_an_option(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(click.ClickException) as refused:
        made(**changes)
    assert said in refused.value.message


def test_check_says_what_would_be_ordered() -> None:
    arguments = ["check", "--no-machine", "--upstream", "http://127.0.0.1:1"]
    options = ["--host", "www.example.com", "--email", "ops@example.com", "--agree-to-terms"]
    done = CliRunner().invoke(main, [*arguments, *options])
    assert "order certificates by ACME for www.example.com" in done.output


def test_the_password_of_the_storage_is_not_shown() -> None:
    url = "redis://:geheim@10.0.0.9:6379/0"
    config = Config(tls=Tls(acme=Acme(storage=url)))
    shown = without_passwords(config)
    assert "geheim" not in str(shown)
    assert with_passwords(shown, config) == config


# --- quicedge check -----------------------------------------------------------------------------


def found(config: Config) -> list[tuple[str, str, str]]:
    return [(one.level.value, one.subject, one.message) for one in acme.of_config(config)]


def configured(tmp_path: Path, **keys: Any) -> Config:
    return Config(
        tls=Tls(acme=Acme(agree_to_terms=True, **keys)),
        routes=[Route(upstream="app", host="www.example.com")],
        state_directory=str(tmp_path / "state"),
    )


def test_check_names_the_issuer_and_each_certificate_that_there_is(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert found(config) == [
        ("ok", "tls.acme", "orders from https://acme-v02.api.letsencrypt.org/directory")
    ]
    (tmp_path / "state").mkdir(mode=0o700)
    assert found(config)[1:] == [
        ("ok", "certificate of www.example.com", "is ordered when the edge runs")
    ]
    records = Records(DirectoryStorage(tmp_path / "state" / "acme"))
    files = devcerts.ensure(tmp_path / "certs", ("www.example.com",))
    records.put_certificate("www.example.com", files.cert.read_bytes(), files.key.read_bytes())
    records.put_host("www.example.com", HostRecord(error="dns: no such name"))
    failed, kept = found(config)[1:]
    assert failed == ("error", "certificate of www.example.com", "dns: no such name")
    assert kept[2].startswith("valid until 20")


def test_check_says_when_the_state_directory_cannot_be_created(tmp_path: Path) -> None:
    (one,) = state.of_config(configured(tmp_path / "missing"))
    assert (one.level.value, one.subject) == ("error", "state_directory")
    assert f"{tmp_path}/missing is not a directory" in one.message


def test_check_warns_of_ports_that_issuers_do_not_reach(tmp_path: Path) -> None:
    config = msgspec.structs.replace(configured(tmp_path), listen=["127.0.0.1:8443"])
    warned = [subject for level, subject, _ in found(config) if level == "warning"]
    assert warned == ["tls.acme http-01", "tls.acme tls-alpn-01"]
    config = msgspec.structs.replace(
        configured(tmp_path, dns_command=["x"]), listen=["127.0.0.1:8443"]
    )
    assert [level for level, _, _ in found(config)] == ["ok"]


def test_check_wants_a_place_for_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr("quicedge.supervisor.state.DEFAULT_DIRECTORY", tmp_path / "none")
    config = msgspec.structs.replace(configured(tmp_path), state_directory=None)
    assert found(config)[-1][2] == "requires state_directory, where certificates outlive a restart"
