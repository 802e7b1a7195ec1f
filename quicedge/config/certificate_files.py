"""The files of certificates that a configuration names, by patterns and directories too."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from quicedge.config.schema import Certificate, Tls

_PAIRS = (("tls.crt", "tls.key"), ("fullchain.pem", "privkey.pem"))
"""How Kubernetes and certbot call chain and key of one certificate."""
_CHAINS = (".crt", ".pem")
_KEY = ".key"


class CertificateFiles(NamedTuple):
    """A chain and its key, each in a file."""

    cert: str
    key: str
    place: str
    """The key of the configuration that they come from."""
    default: bool = False


def certificate_files(tls: Tls) -> list[CertificateFiles]:
    """All certificates, each once, in a stable order; those that do not exist only if they are
    named without a pattern."""
    found: list[CertificateFiles] = []
    for index, item in enumerate(tls.certificates):
        found += _matching(item, f"tls.certificates[{index}]")
    for index, directory in enumerate(tls.certificate_directories):
        found += _in_directory(Path(directory), f"tls.certificate_directories[{index}]")
    return list({files.cert: files for files in reversed(found)}.values())[::-1]


def has_certificates(tls: Tls) -> bool:
    """Whether the configuration says where certificates come from."""
    return bool(tls.certificates or tls.certificate_directories) or tls.acme is not None


def pattern_problem(item: Certificate) -> str | None:
    """Describe what is wrong with the patterns of an entry; None if nothing is."""
    if "*" not in item.cert and "*" not in item.key:
        return None
    if "**" in item.cert or "**" in item.key:
        return "** is not supported: a * stands for one name, or a part of one"
    if item.cert.count("*") != item.key.count("*"):
        return "cert and key must have the same number of *: what each stands for is the same"
    if item.default:
        return "default requires a certificate without *"
    return None


def _matching(item: Certificate, place: str) -> Iterator[CertificateFiles]:
    if "*" not in item.cert:
        yield CertificateFiles(item.cert, item.key, place, item.default)
        return
    parts = item.cert.split("*")
    expression = re.compile("([^/]*)".join(map(re.escape, parts)))
    for cert in sorted(glob.glob("*".join(map(glob.escape, parts)))):
        match = expression.fullmatch(cert)
        if match is None:
            continue
        key = item.key
        for stands_for in match.groups():
            key = key.replace("*", stands_for, 1)
        yield CertificateFiles(cert, key, place)


def _in_directory(directory: Path, place: str) -> Iterator[CertificateFiles]:
    """The certificates in a directory and in those directly below it: `NAME.crt` or `NAME.pem` with
    `NAME.key`, and the names of Kubernetes and certbot."""
    yield from _pairs(directory, place)
    try:
        below = sorted(entry for entry in directory.iterdir() if entry.is_dir())
    except OSError:
        return
    for entry in below:
        if not entry.name.startswith("."):  # Kubernetes keeps its versions there
            yield from _pairs(entry, place)


def _pairs(directory: Path, place: str) -> Iterator[CertificateFiles]:
    try:
        names = set(os.listdir(directory))
    except OSError:
        return
    for chain, key in _PAIRS:
        if chain in names and key in names:
            yield CertificateFiles(str(directory / chain), str(directory / key), place)
    for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        is_known = any(name in pair for pair in _PAIRS)
        if suffix in _CHAINS and f"{stem}{_KEY}" in names and not is_known:
            yield CertificateFiles(str(directory / name), str(directory / f"{stem}{_KEY}"), place)
