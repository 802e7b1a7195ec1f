"""What a configuration requires of this machine: directories and optional libraries."""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from quicedge.config.certificate_files import certificate_files
from quicedge.config.problems import Problem
from quicedge.config.schema import Acme, AcmeIssuer, Config

_OTEL_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_ACME_MODULES = ("acme.client", "josepy")
_DNS_MODULES = ("dns.asyncresolver",)
_REDIS_MODULES = ("limits", "redis")


def missing(config: Config) -> Iterator[Problem]:
    """Missing directories and libraries, and files that are none."""
    yield from missing_directories(config)
    yield from unreadable_kinds(config)
    yield from missing_libraries(config)


def missing_directories(config: Config) -> Iterator[Problem]:
    """Directories that are served or written to."""
    for name, upstream in config.upstreams.items():
        if upstream.root is not None:
            yield from _directory(f"upstreams.{name}.root", upstream.root)
    for index, name in enumerate(config.tls.certificate_directories):
        yield from _directory(f"tls.certificate_directories[{index}]", name)
    if config.qlog.directory is not None:
        yield from _directory("qlog.directory", config.qlog.directory)
    if config.state_directory is not None:
        # The edge creates it, but not where it belongs.
        yield from _directory("state_directory", str(Path(config.state_directory).parent))


def _directory(key: str, name: str) -> Iterator[Problem]:
    try:
        found = Path(name).is_dir()
    except OSError as error:  # one above it may not be searched
        yield Problem(key, f"{name}: {error.strerror}")
    else:
        if not found:
            yield Problem(key, f"{name} is not a directory")


def unreadable_kinds(config: Config) -> Iterator[Problem]:
    """Pipes and devices in place of files that are read whole.

    Reading one blocks the process or never ends, and a reload cannot read a pipe again.
    """
    for key, name in _files_read(config):
        try:
            mode = os.stat(name).st_mode
        except OSError:
            continue  # reported when it is read
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            yield Problem(key, f"{name} is a pipe or a device, not a file")


def _files_read(config: Config) -> Iterator[tuple[str, str]]:
    for files in certificate_files(config.tls):
        yield f"{files.place}.cert", files.cert
        yield f"{files.place}.key", files.key
    if config.tls.shared_keys is not None:
        yield "tls.shared_keys", config.tls.shared_keys
    for key in ("connection_id_keys", "secret_file"):
        if (name := getattr(config.fleet, key)) is not None:
            yield f"fleet.{key}", name
    for name, upstream in config.upstreams.items():
        if upstream.tls_ca is not None:
            yield f"upstreams.{name}.tls_ca", upstream.tls_ca
    acme = config.tls.acme
    if acme is not None:
        yield from _issuers_files("tls.acme", acme)
        for index, issuer in enumerate(acme.issuers):
            yield from _issuers_files(f"tls.acme.issuers[{index}]", issuer)
    if config.admin.token_file is not None:
        yield "admin.token_file", config.admin.token_file


def _issuers_files(where: str, issuer: Acme | AcmeIssuer) -> Iterator[tuple[str, str]]:
    for key in ("ca", "eab_hmac_key_file"):
        name = getattr(issuer, key)
        if name is not None:
            yield f"{where}.{key}", name


def missing_libraries(config: Config) -> Iterator[Problem]:
    """Libraries that an optional extra installs."""
    if config.limits.redis is not None and not _are_installed(_REDIS_MODULES):
        yield Problem("limits.redis", "requires `pip install 'quicedge[redis]'`")
    if "://" in (config.tls.shared_keys or "") and not _are_installed(_REDIS_MODULES):
        yield Problem("tls.shared_keys", "requires `pip install 'quicedge[redis]'`")
    acme = config.tls.acme
    if acme is not None and not _are_installed(_ACME_MODULES):
        yield Problem("tls.acme", "requires `pip install 'quicedge[acme]'`")
    is_in_redis = acme is not None and acme.storage is not None and "://" in acme.storage
    if is_in_redis and not _are_installed(_REDIS_MODULES):
        yield Problem("tls.acme.storage", "requires `pip install 'quicedge[redis]'`")
    for name, upstream in config.upstreams.items():
        if upstream.discovers and not _are_installed(_DNS_MODULES):
            key = f"upstreams.{name}.servers"
            yield Problem(key, "discover requires `pip install 'quicedge[dns]'`")
    if config.otel.enabled and not _are_installed(_OTEL_MODULES):
        yield Problem("otel.enabled", "requires `pip install 'quicedge[otel]'`")


def _are_installed(modules: tuple[str, ...]) -> bool:
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:
        return False  # a parent package is missing
