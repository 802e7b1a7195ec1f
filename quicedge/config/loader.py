"""Load `quicedge.toml` into a `Config`; errors name the file, line and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quicedge.config.convert import convert
from quicedge.config.limits import CONFIG_MAX_SIZE
from quicedge.config.machine import missing
from quicedge.config.positions import key_lines
from quicedge.config.problems import ConfigError, Problem
from quicedge.config.schema import Config
from quicedge.config.validation import validate

__all__ = ["ConfigError", "config_from_options", "load_config", "parse_config", "parse_document"]


def load_config(path: str | Path, *, machine: bool = True) -> Config:
    """Read a configuration file; raises ConfigError, or OSError when it cannot be read.

    `machine=False` skips checks of this machine (directories, libraries).
    """
    path = Path(path)
    with path.open("rb") as file:
        data = file.read(CONFIG_MAX_SIZE + 1)
    if len(data) > CONFIG_MAX_SIZE:
        raise ConfigError(
            str(path), [Problem("", f"is too large: more than {CONFIG_MAX_SIZE} bytes")]
        )
    document, lines = _parse_toml(data, str(path))
    return parse_config(document, str(path), path.parent, lines=lines, machine=machine)


def parse_document(data: bytes, source: str, directory: Path, *, is_json: bool) -> Config:
    """The configuration in a TOML or JSON document; raises ConfigError."""
    if not is_json:
        document, lines = _parse_toml(data, source)
        return parse_config(document, source, directory, lines=lines)
    try:
        found = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigError(source, [Problem("", f"is not a JSON object: {error}")]) from error
    return parse_config(_without_nulls(found), source, directory)


def _without_nulls(value: Any) -> Any:
    """A key that is null is one that is not set: TOML has no null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _parse_toml(data: bytes, source: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The document and the line of each key; raises ConfigError."""
    try:
        # TOML allows CRLF; `tomllib` and the line numbers expect LF.
        text = data.decode().replace("\r\n", "\n")
        return tomllib.loads(text), key_lines(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem("", f"is not UTF-8 text (byte {error.start})")
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+), (column \d+)\)", place)
        line = int(found[1]) if found else text.count("\n") + 1
        problem = Problem("", f"{message} ({found[2] if found else place.rstrip(')')})")
    except RecursionError:
        line, problem = 1, Problem("", "is nested too deeply")
    raise ConfigError(source, [problem], {"": line})


def parse_config(
    document: dict[str, Any],
    source: str,
    directory: Path,
    *,
    lines: Mapping[str, int] | None = None,
    machine: bool = True,
) -> Config:
    """Build a configuration from parsed TOML; relative paths are relative to `directory`."""
    problems: list[Problem] = []
    try:
        converted = convert(document, Config, "", problems)
        if problems:
            raise ConfigError(source, problems, lines)
        config = _absolute(msgspec.convert(converted, Config), directory)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(source, [Problem("", str(error))]) from error
    problems = list(validate(config, document))
    if machine:
        problems += missing(config)
    if problems:
        raise ConfigError(source, problems, lines)
    return config


def config_from_options(
    upstream: str | None,
    *,
    root: str | None = None,
    listing: bool = False,
    spa: bool = False,
    application: tuple[str, str] | None = None,
    app_directory: str | None = None,
    listen: list[str] | None = None,
    workers: int | None = None,
    admin: str | None = None,
    hosts: Sequence[str] = (),
    acme: dict[str, Any] | None = None,
    state_directory: str | None = None,
) -> Config:
    """The configuration for `quicedge serve --upstream URL`, `--root DIRECTORY` or `--app NAME`.

    `application`: its kind (`asgi`, `wsgi`) and name.

    Raises ConfigError, which names options instead of keys. `acme`: keys of `[tls.acme]`. Files are
    compressed, or sent in compressed form where there is one.
    """
    default: dict[str, Any]
    if application is not None:
        default = {application[0]: application[1]}
        if app_directory is not None:
            default["app_directory"] = app_directory
    elif root is not None:
        default = {"root": root, "precompressed": ["zstd", "br", "gzip"], "listing": listing}
        if spa:
            default["fallback"] = "/index.html"
    else:
        default = {"servers": [upstream]}
    document: dict[str, Any] = {
        "upstreams": {"default": default},
        "routes": [{"upstream": "default", "host": host} for host in hosts or ["*"]],
    }
    if root is not None:
        document["filters"] = [{"compress": {}}]
    if acme is not None:
        document["tls"] = {"acme": acme}
    if state_directory is not None:
        document["state_directory"] = state_directory
    if listen:
        document["listen"] = listen
    if workers:
        document["workers"] = workers
    if admin:
        document["admin"] = {"listen": admin}
    try:
        return parse_config(document, "command line", Path.cwd())
    except ConfigError as error:
        raise ConfigError("command line", list(map(_with_option, error.problems))) from None


_OPTIONS = {
    "upstreams.default.servers[0]": "--upstream",
    "upstreams.default.root": "--root",
    "upstreams.default.asgi": "--app",
    "upstreams.default.wsgi": "--wsgi",
    "admin.listen": "--admin",
    "listen": "--listen",
    "workers": "--workers",
    "tls.acme.email": "--email",
    "tls.acme.agree_to_terms": "--agree-to-terms",
}


def _with_option(problem: Problem) -> Problem:
    """Name the option instead of the key: `--listen` for `listen[0]`."""
    key = _OPTIONS.get(problem.key) or _OPTIONS.get(re.sub(r"\[\d+\]$", "", problem.key))
    if re.fullmatch(r"routes\[\d+\]\.host", problem.key):
        key = "--host"
    message = problem.message.replace("set admin.token_file", "use --config with admin.token_file")
    return Problem(key or problem.key, message)


def _absolute(config: Config, directory: Path) -> Config:
    """Resolve relative file names against `directory`."""
    replace = msgspec.structs.replace

    def at(name: str | None) -> str | None:
        return None if name is None else str((directory / name).absolute())

    acme = config.tls.acme
    if acme is not None:
        acme = replace(
            acme,
            ca=at(acme.ca),
            eab_hmac_key_file=at(acme.eab_hmac_key_file),
            storage=acme.storage if _is_url(acme.storage) else at(acme.storage),
            issuers=[
                replace(item, ca=at(item.ca), eab_hmac_key_file=at(item.eab_hmac_key_file))
                for item in acme.issuers
            ],
        )
    tls = replace(
        config.tls,
        acme=acme,
        keylog=at(config.tls.keylog),
        shared_keys=at(config.tls.shared_keys)
        if "://" not in (config.tls.shared_keys or "")
        else config.tls.shared_keys,
        client_auth=[
            replace(item, client_ca=at(item.client_ca), crl=[at(name) for name in item.crl])
            for item in config.tls.client_auth
        ],
        certificate_directories=[at(item) for item in config.tls.certificate_directories],
        certificates=[
            replace(item, cert=at(item.cert), key=at(item.key)) for item in config.tls.certificates
        ],
    )
    log = replace(config.log, file=at(config.log.file), access_file=at(config.log.access_file))
    fleet = replace(
        config.fleet,
        connection_id_keys=at(config.fleet.connection_id_keys),
        secret_file=at(config.fleet.secret_file),
    )
    upstreams = {
        name: replace(
            item,
            tls_ca=at(item.tls_ca),
            root=at(item.root),
            app_directory=at(item.app_directory or ".") if item.is_application else None,
        )
        for name, item in config.upstreams.items()
    }
    filters = [entry.with_paths(at) for entry in config.filters]
    routes = [
        replace(route, filters=[entry.with_paths(at) for entry in route.filters])
        for route in config.routes
    ]
    admin = replace(config.admin, token_file=at(config.admin.token_file))
    qlog = replace(config.qlog, directory=at(config.qlog.directory))
    return replace(
        config,
        tls=tls,
        log=log,
        fleet=fleet,
        upstreams=upstreams,
        routes=routes,
        filters=filters,
        qlog=qlog,
        admin=admin,
        state_directory=at(config.state_directory),
        control_socket=at(config.control_socket),
        pid_file=at(config.pid_file),
    )


def _is_url(text: str | None) -> bool:
    return text is not None and "://" in text
