"""`quicedge serve --host ... --email ...`: a real certificate without a configuration file."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from quicedge.cli import main
from quicedge.cli.options import Options, make_config
from quicedge.config.changes import with_passwords, without_passwords
from quicedge.config.schema import Acme, Config, Tls

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
    acme = config.tls.acme
    assert acme is not None
    assert (acme.email, acme.staging) == ("ops@example.com", False)
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
    acme = ["--host", "www.example.com", "--email", "ops@example.com", "--agree-to-terms"]
    done = CliRunner().invoke(main, [*arguments, *acme])
    assert "order certificates by ACME for www.example.com" in done.output


def test_the_password_of_the_storage_is_not_shown() -> None:
    url = "redis://:geheim@10.0.0.9:6379/0"
    config = Config(tls=Tls(acme=Acme(storage=url)))
    shown = without_passwords(config)
    assert "geheim" not in str(shown)
    assert with_passwords(shown, config) == config
