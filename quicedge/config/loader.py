"""From `quicedge.toml` to a `Config`, with errors that name the place."""

from __future__ import annotations

import difflib
import importlib.util
import ipaddress
import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from quicedge.config.accessfields import ACCESS_FIELDS
from quicedge.config.rates import parse_rate
from quicedge.config.schema import Admin, Config, Limits, Otel, Qlog, RequestRate, Upstream

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(B|KB|MB|GB|KiB|MiB|GiB)", re.IGNORECASE)
PATH = re.compile(r"/[!-~]*")
_BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip


class ConfigError(ValueError):
    """What is wrong with a configuration; `problems` has one line each, with its key path."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))


def load_config(path: str | Path) -> Config:
    """Read a configuration file; raises ConfigError, or OSError when it cannot be read."""
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [str(error)]) from error
    return parse_config(document, str(path), path.parent)


def parse_config(document: dict[str, Any], source: str, directory: Path) -> Config:
    """A configuration from parsed TOML; relative paths are relative to `directory`."""
    problems: list[str] = []
    converted = _convert(document, Config, "", problems)
    if problems:
        raise ConfigError(source, problems)
    try:
        config = msgspec.convert(converted, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(source, [_with_key(error)]) from error
    config = _absolute(config, directory)
    problems = list(_cross_checks(config))
    if problems:
        raise ConfigError(source, problems)
    return config


def config_from_options(
    upstream: str | None,
    *,
    root: str | None = None,
    listen: list[str] | None = None,
    workers: int | None = None,
    admin: str | None = None,
) -> Config:
    """The configuration of `quicedge serve --upstream URL` or `--root DIRECTORY`.

    Raises ConfigError, which names options in place of keys.
    """
    document: dict[str, Any] = {
        "upstreams": {"default": {"servers": [upstream]} if root is None else {"root": root}},
        "routes": [{"upstream": "default"}],
    }
    if listen:
        document["listen"] = listen
    if workers:
        document["workers"] = workers
    if admin:
        document["admin"] = {"listen": admin}
    try:
        return parse_config(document, "command line", Path.cwd())
    except ConfigError as error:
        raise ConfigError("command line", [_with_option(text) for text in error.problems]) from None


def parse_size(text: str) -> int:
    """Bytes in `64KB`, `1MiB` or a plain number; raises ConfigError."""
    if text.isdigit():
        return int(text)
    problems: list[str] = []
    size = _quantity(text, _SIZE, _BYTES, "a size such as 64KB or 1MiB", "size", problems)
    if problems:
        raise ConfigError("size", problems)
    return int(size)


_OPTIONS = {
    "upstreams.default.servers[0]": "--upstream",
    "upstreams.default.root": "--root",
    "admin.listen": "--admin",
    "listen": "--listen",
}


def _with_option(problem: str) -> str:
    """`listen[0]: ...` is `--listen: ...` to whoever wrote no file."""
    for key, option in _OPTIONS.items():
        problem = re.sub(rf"^{re.escape(key)}(\[\d+\])?:", f"{option}:", problem)
    return problem.replace("set admin.token_file", "use --config with admin.token_file")


# --- units and unknown keys ---------------------------------------------------------------------


def _convert(value: Any, hint: Any, path: str, problems: list[str]) -> Any:
    """Turn durations and sizes into numbers and report keys that do not exist."""
    unit = None
    while get_origin(hint) is Annotated:
        for meta in get_args(hint)[1:]:
            extra = getattr(meta, "extra", None) or {}
            unit = extra.get("unit", unit)
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        return _convert_union(value, hint, path, problems)
    if unit == "seconds" and isinstance(value, str):
        return _quantity(
            value, _DURATION, _SECONDS, "a duration such as 30s or 500ms", path, problems
        )
    if unit == "bytes" and isinstance(value, str):
        size = _quantity(value, _SIZE, _BYTES, "a size such as 64KB or 1MiB", path, problems)
        return int(size) if isinstance(size, float) else size
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(value, dict):
        return _convert_table(value, hint, path, problems)
    if get_origin(hint) is list and isinstance(value, list):
        item = get_args(hint)[0]
        return [_convert(v, item, f"{path}[{i}]", problems) for i, v in enumerate(value)]
    if get_origin(hint) is dict and isinstance(value, dict):
        item = get_args(hint)[1]
        return {k: _convert(v, item, _join(path, k), problems) for k, v in value.items()}
    return value


def _convert_union(value: Any, hint: Any, path: str, problems: list[str]) -> Any:
    for option in get_args(hint):
        if get_origin(option) is Annotated:
            return _convert(value, option, path, problems)
    return value


def _convert_table(
    value: dict[str, Any], struct: type[msgspec.Struct], path: str, problems: list[str]
) -> dict[str, Any]:
    hints = get_type_hints(struct, include_extras=True)
    out = {}
    for key, item in value.items():
        if key in hints:
            out[key] = _convert(item, hints[key], _join(path, key), problems)
            continue
        near = difflib.get_close_matches(key, hints, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(hints))}"
        problems.append(f"{_join(path, key)}: unknown key; {hint}")
    return out


def _quantity(
    value: str,
    pattern: re.Pattern[str],
    factors: dict[str, Any],
    expected: str,
    path: str,
    problems: list[str],
) -> Any:
    match = pattern.fullmatch(value.strip())
    if match is None:
        problems.append(f"{path}: {value!r} is not {expected}")
        return 1
    return float(match[1]) * factors[match[2].lower()]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _with_key(error: msgspec.ValidationError) -> str:
    """msgspec says `Expected ... - at `$.routes[0].path``; the path comes first here."""
    message, _, where = str(error).rpartition(" - at ")
    if where.strip("`") == "$.workers":
        message = 'expected "auto" or a number of processes'
    return f"{where.strip('`').removeprefix('$.')}: {message}" if message else str(error)


# --- what belongs together ----------------------------------------------------------------------


def _absolute(config: Config, directory: Path) -> Config:
    """Make file names independent of the working directory."""
    replace = msgspec.structs.replace

    def at(name: str | None) -> str | None:
        return None if name is None else str((directory / name).absolute())

    tls = replace(
        config.tls,
        keylog=at(config.tls.keylog),
        shared_keys=at(config.tls.shared_keys),
        certificates=[
            replace(item, cert=at(item.cert), key=at(item.key)) for item in config.tls.certificates
        ],
    )
    log = replace(config.log, file=at(config.log.file), access_file=at(config.log.access_file))
    upstreams = {
        name: replace(item, tls_ca=at(item.tls_ca), root=at(item.root))
        for name, item in config.upstreams.items()
    }
    admin = replace(config.admin, token_file=at(config.admin.token_file))
    qlog = replace(config.qlog, directory=at(config.qlog.directory))
    return replace(config, tls=tls, log=log, upstreams=upstreams, qlog=qlog, admin=admin)


def _cross_checks(config: Config) -> Iterator[str]:
    if not config.listen:
        yield "listen: needs one address at least"
    for index, address in enumerate(config.listen):
        if not is_address(address):
            yield f"listen[{index}]: {address!r} is not host:port or [v6]:port"
    for index, address in enumerate(config.quic.preferred_address):
        if address not in config.listen:
            yield f"quic.preferred_address[{index}]: {address!r} is not among listen"
    if not config.upstreams:
        yield "upstreams: needs one at least, [upstreams.NAME] with servers"
    if not config.routes and config.upstreams:
        yield "routes: needs one at least, [[routes]] with upstream"
    yield from _check_routes(config)
    for name, upstream in config.upstreams.items():
        yield from _check_upstream(f"upstreams.{name}", upstream)
    if sum(item.default for item in config.tls.certificates) > 1:
        yield "tls.certificates: more than one is the default"
    if config.tls.shared_keys and config.quic.early_data and not config.limits.redis:
        yield (
            "quic.early_data: with tls.shared_keys needs limits.redis, where all hosts learn "
            "which tickets were used"
        )
    if (
        config.quic.retry != "auto"
        and config.quic.retry_threshold != type(config.quic)().retry_threshold
    ):
        yield f"quic.retry_threshold: has no effect with retry = {config.quic.retry!r}"
    if config.http3.qpack_blocked_streams and not config.http3.qpack_max_table_capacity:
        yield "http3.qpack_blocked_streams: has no effect without qpack_max_table_capacity"
    if config.log.access_file and not config.log.access:
        yield "log.access_file: has no effect with access = false"
    yield from _check_qlog(config.qlog)
    yield from _check_otel(config.otel)
    yield from _check_limits(config.limits)
    for index, name in enumerate(config.log.access_fields):
        if name not in ACCESS_FIELDS:
            near = difflib.get_close_matches(name, ACCESS_FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"log.access_fields[{index}]: there is no {name!r}{hint}"
    yield from _check_admin(config.admin)


def _check_admin(admin: Admin) -> Iterator[str]:
    if not admin.enabled:
        return
    is_unix = admin.listen.startswith("unix:/")
    if not is_unix and not is_address(admin.listen):
        yield f"admin.listen: {admin.listen!r} is neither host:port nor unix:/path"
    elif admin.token_file is None and not _is_local(admin.listen):
        yield f"admin.listen: {admin.listen!r} is no loopback address: set admin.token_file"
    if is_unix and admin.hosts:
        yield "admin.hosts: has no effect on a unix socket"


def _check_limits(limits: Limits) -> Iterator[str]:
    for key in ("allow", "deny"):
        yield from _check_networks(f"limits.{key}", getattr(limits, key))
    yield from _check_rates("limits.requests", limits.requests)
    if limits.redis is not None:
        if not re.match(r"rediss?://[^/]", limits.redis):
            yield "limits.redis: is not redis://host:port or rediss://host:port"
        elif not all(importlib.util.find_spec(name) for name in ("limits", "redis")):
            yield "limits.redis: needs `pip install quicedge[redis]`"


def _check_rates(where: str, rates: list[RequestRate]) -> Iterator[str]:
    for index, item in enumerate(rates):
        try:
            parse_rate(item.rate)
        except ValueError as error:
            yield f"{where}[{index}].rate: {error}"
        if item.by not in ("address", "prefix") and not re.fullmatch(
            r"header:[A-Za-z0-9!#$%&'*+.^_`|~-]+", item.by
        ):
            yield f"{where}[{index}].by: {item.by!r} is not address, prefix or header:NAME"


def _check_networks(where: str, networks: list[str]) -> Iterator[str]:
    for index, text in enumerate(networks):
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            yield f"{where}[{index}]: {error}"


def _check_qlog(qlog: Qlog) -> Iterator[str]:
    yield from _check_networks("qlog.addresses", qlog.addresses)
    if qlog.directory is not None and not Path(qlog.directory).is_dir():
        yield f"qlog.directory: {qlog.directory} is no directory"
    if qlog.max_file_size > qlog.max_total_size:
        yield "qlog.max_file_size: is more than max_total_size"
    if qlog.directory is None and (qlog.addresses or qlog.server_names or qlog.rate):
        # QLOGDIR is for interop runners; a configured choice of clients needs a configured place.
        yield "qlog.directory: is missing, without it nothing is traced"


def _check_otel(otel: Otel) -> Iterator[str]:
    if not otel.enabled:
        defaults = Otel()
        for key in otel.__struct_fields__:
            if getattr(otel, key) != getattr(defaults, key):
                yield f"otel.{key}: has no effect without enabled = true"
        return
    if not all(_is_installed(name) for name in _OTEL_MODULES):
        yield "otel.enabled: needs `pip install 'quicedge[otel]'`"
    if otel.endpoint is not None and not re.match(r"https?://[^/]", otel.endpoint):
        yield f"otel.endpoint: {otel.endpoint!r} is not http://host:port/path or https://..."


_OTEL_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # not even what it is part of


def _check_routes(config: Config) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for index, route in enumerate(config.routes):
        where = f"routes[{index}]"
        if route.upstream not in config.upstreams:
            near = difflib.get_close_matches(route.upstream, config.upstreams, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"{where}.upstream: there is no upstream {route.upstream!r}{hint}"
        if not route.path.startswith("/"):
            yield f"{where}.path: {route.path!r} does not start with /"
        if "*" in route.host.removeprefix("*") or (
            route.host.startswith("*") and route.host != "*" and not route.host.startswith("*.")
        ):
            yield f"{where}.host: {route.host!r}: a wildcard is * or *.example.com"
        key = route.host.lower(), route.path
        if key in seen:
            yield f"{where}: host {route.host!r} and path {route.path!r} are routed already"
        seen.add(key)
        yield from _check_rates(f"{where}.requests", route.requests)


def _check_upstream(where: str, upstream: Upstream) -> Iterator[str]:
    if upstream.root is not None:
        plain = Upstream(root=upstream.root)
        for key in upstream.__struct_fields__:
            if getattr(upstream, key) != getattr(plain, key):
                yield f"{where}.{key}: has no effect with root"
        if not Path(upstream.root).is_dir():
            yield f"{where}.root: {upstream.root} is no directory"
        return
    if not upstream.servers:
        yield f"{where}.servers: needs one at least, or root"
    if upstream.health_path is None:
        if upstream.health_interval != Upstream().health_interval:
            yield f"{where}.health_interval: has no effect without health_path"
    elif not PATH.fullmatch(upstream.health_path):
        yield f"{where}.health_path: {upstream.health_path!r} is not a path such as /healthz"
    https = False
    for index, url in enumerate(upstream.servers):
        https |= url.startswith("https://")
        problem = server_problem(url)
        if problem:
            yield f"{where}.servers[{index}]: {url!r}: {problem}"
    defaults = Upstream()
    for key in ("tls_verify", "tls_ca", "tls_server_name"):
        if not https and getattr(upstream, key) != getattr(defaults, key):
            yield f"{where}.{key}: has no effect, no server is https://"
    if upstream.tls_ca and not upstream.tls_verify:
        yield f"{where}.tls_ca: has no effect with tls_verify = false"


def server_problem(url: str) -> str | None:
    """What is wrong with an origin's URL, or None."""
    if url.startswith("unix:"):
        return None if url.startswith("unix:/") else "unix: needs an absolute path"
    match = re.fullmatch(
        r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s/:?#@\[\]]+)(?::([0-9]{1,5}))?(/.*)?", url
    )
    if match is None:
        # `localhost:8000` and `8000` are what one writes first.
        short = re.fullmatch(r"(?:([\w.-]+):)?([0-9]{1,5})", url)
        hint = f", perhaps http://{short[1] or '127.0.0.1'}:{short[2]}" if short else ""
        return f"expected http://host:port, https://host or unix:/path{hint}"
    if match[2] and not 0 < int(match[2]) <= 65535:
        return "the port is out of range"
    if match[3] not in (None, "/"):
        return "an origin has no path; routes choose by path"
    return None


def is_address(text: str) -> bool:
    """Whether `text` is `host:port` or `[v6]:port`."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]]+):([0-9]{1,5})", text)
    return match is not None and int(match[2]) <= 65535


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return address.startswith("unix:/")
    host = address.rpartition(":")[0].strip("[]")
    return is_address(address) and (
        host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None
    )
