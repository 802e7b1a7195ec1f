"""File and directory checks, performed as the user that will use them."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator

from quicedge.admin.guard import TokenError, read_token
from quicedge.cli.findings.finding import Finding, Level
from quicedge.config import devcerts
from quicedge.config.certificate_files import has_certificates
from quicedge.config.schema import Config, Upstream
from quicedge.config.unusable import UnusableError
from quicedge.worker.privileges import Identity


def of_supervisor(config: Config) -> Iterator[Finding]:
    """Files that the supervisor reads with its own privileges."""
    if not has_certificates(config.tls):
        yield _development()
    if config.admin.enabled and config.admin.token_file is not None:
        yield _token(config.admin.token_file)


def of_workers(config: Config, identity: Identity | None) -> Iterator[Finding]:
    """Files that workers read and write; call this as the user that they run as."""
    for key, path in (("log.file", config.log.file), ("log.access_file", config.log.access_file)):
        if path is not None:
            yield _written_file(key, path, given=identity is not None)
    keylog, variable = config.tls.keylog, os.environ.get("SSLKEYLOGFILE")
    if keylog or variable:
        yield _written_file(
            "tls.keylog" if keylog else "SSLKEYLOGFILE", keylog or str(variable), given=False
        )
    traces, variable = config.qlog.directory, os.environ.get("QLOGDIR")
    if traces or variable:
        yield _directory("qlog.directory" if traces else "QLOGDIR", traces or str(variable))
    for name, upstream in config.upstreams.items():
        if upstream.root is not None:
            yield _root(name, upstream.root)
        elif upstream.is_application:
            yield _application(name, upstream)
        elif upstream.tls_ca is not None:
            yield _authority(name, upstream, upstream.tls_ca)


def _written_file(key: str, path: str, *, given: bool) -> Finding:
    """A file that is appended to. `given`: the supervisor creates it and changes its owner."""
    subject, directory = f"{key} {path}", os.path.dirname(path) or "."
    who = f"user {os.geteuid()}"
    try:
        status = os.stat(path)
    except FileNotFoundError:
        status = None
    except OSError as error:
        return Finding(
            Level.ERROR, subject, f"{error.strerror} (as {who})",
            f"grant {who} access to {directory}, or choose another path",
        )  # fmt: skip
    if status is None:
        if not os.path.isdir(directory):
            return Finding(
                Level.ERROR,
                subject,
                f"directory {directory} does not exist",
                f"mkdir -p {directory}",
            )
        if not os.access(directory, os.X_OK if given else os.W_OK | os.X_OK):
            verb = "access" if given else "create"
            return Finding(
                Level.ERROR, subject, f"{who} cannot {verb} it in {directory}",
                f"grant {who} access to {directory}, or choose another path",
            )  # fmt: skip
        return Finding(Level.OK, subject, "can be created")
    if stat.S_ISDIR(status.st_mode):
        return Finding(Level.ERROR, subject, "is a directory", "choose a file in it")
    is_given = given and stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    if not (is_given and not os.path.islink(path)) and not os.access(path, os.W_OK):
        return Finding(Level.ERROR, subject, f"{who} cannot write to it", f"chown it to {who}")
    if stat.S_ISFIFO(status.st_mode):
        # Not opened here: closing it again would signal end of file to its reader.
        return Finding(Level.OK, subject, "is a pipe: its reader must start before the edge")
    return Finding(Level.OK, subject, "is writable")


def _directory(key: str, path: str) -> Finding:
    subject = f"{key} {path}"
    try:
        os.stat(path)
    except PermissionError as error:
        who = f"user {os.geteuid()}"
        return Finding(
            Level.ERROR, subject, f"{error.strerror} (as {who})",
            f"grant {who} access to {os.path.dirname(path)}, or choose another path",
        )  # fmt: skip
    except OSError:
        pass
    if not os.path.isdir(path):
        return Finding(Level.ERROR, subject, "is not a directory", f"mkdir -p {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        user = os.geteuid()
        return Finding(
            Level.ERROR, subject, f"user {user} cannot write there", f"chown {user} {path}"
        )
    return Finding(Level.OK, subject, "is writable")


def _root(name: str, root: str) -> Finding:
    subject = f"upstream {name} {root}"
    try:
        os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        return Finding(
            Level.ERROR, subject, f"{error.strerror} (as user {os.geteuid()})",
            "create it, grant that user access, or choose another root",
        )  # fmt: skip
    return Finding(Level.OK, subject, "is a readable directory")


def _application(name: str, upstream: Upstream) -> Finding:
    """Import it as a worker does; its startup is left to workers."""
    from quicedge.upstream.asgi.application import load

    subject = f"upstream {name} {upstream.asgi or upstream.wsgi}"
    try:
        load(name, upstream)
    except UnusableError as error:
        return Finding(Level.ERROR, subject, error.reason)
    return Finding(Level.OK, subject, "is an application")


def _authority(name: str, upstream: Upstream, path: str) -> Finding:
    subject = f"upstream {name} tls_ca {path}"
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return Finding(Level.ERROR, subject, "contains no PEM certificate")
    except OSError as error:
        return Finding(Level.ERROR, subject, f"{error.strerror} (as user {os.geteuid()})")
    return Finding(Level.OK, subject, "is readable")


def _development() -> Finding:
    directory = os.path.abspath(devcerts.DIRECTORY)
    nearest = directory if os.path.exists(directory) else os.path.dirname(directory)
    if os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK):
        return Finding(
            Level.OK,
            "tls.certificates",
            f"development certificate, created in {directory}",
        )
    return Finding(
        Level.ERROR, "tls.certificates", f"development certificate: cannot write to {directory}",
        "configure a certificate, or run where that directory is writable",
    )  # fmt: skip


def _token(path: str) -> Finding:
    try:
        read_token(path)
    except TokenError as error:
        return Finding(
            Level.ERROR, "admin.token_file", str(error).removeprefix("admin.token_file: "),
            f"(umask 077; openssl rand -hex 16 > {path})",
        )  # fmt: skip
    return Finding(Level.OK, "admin.token_file", "contains a token")
