"""What the processes of the edge import: each module costs every one of them memory and time."""

from __future__ import annotations

import subprocess
import sys

import pytest


def imported_by(*modules: str) -> set[str]:
    """The modules in a fresh interpreter after these imports."""
    program = "; ".join(
        ["import sys", *(f"import {module}" for module in modules), "print(*sys.modules)"]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return set(done.stdout.decode().split())


def printed_by(*lines: str) -> list[str]:
    """What a program prints after the lean imports."""
    program = "\n".join(["import sys, quicedge.lean_imports", *lines])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return done.stdout.decode().splitlines()


UNNEEDED = {
    "rich",
    "pygments",
    "uvicorn",
    "starlette",
    "prometheus_client",
    "typing_extensions",
    "certifi",
    "difflib",
    "pickle",
    "calendar",
    "email",
    "hpack.huffman_table",
    "msgspec.inspect",
    "msgspec._json_schema",
    "cryptography.hazmat.primitives.serialization.ssh",
    "bcrypt",
    "http",
}
"""Of no use in a process that serves."""

OPTIONAL = {
    "OpenSSL",
    "service_identity",
    "brotli",
    "dns",
    "zstandard",
    "redis",
    "limits",
    "opentelemetry",
    "h2",
    "hyperframe",
    "quicedge.upstream.static",
    "quicedge.downstream.shared_anti_replay",
    "quicedge.upstream.asgi",
    "quicedge.telemetry.otlp",
}
"""Imported where the configuration asks for what they do."""


def test_what_all_processes_share_has_nothing_of_the_admin_api_and_no_rich() -> None:
    imported = imported_by(
        "quicedge.cli", "quicedge.cli.serve", "quicedge.supervisor", "quicedge.worker.rehearsal"
    )
    assert {"structlog", "aioquic", "cryptography"} <= imported
    assert not imported & {*UNNEEDED, *OPTIONAL}


COMMAND_LINE = {
    "click",
    "quicedge.cli",
    "ast",
    "tokenize",
    "platform",
    "locale",
    "stringprep",
    *(("dis",) if sys.version_info < (3, 14) else ()),
}
"""What it needs, and what is imported with that."""


def test_a_served_configuration_has_no_command_line_and_nothing_that_reads_source_code() -> None:
    imported = imported_by(
        "quicedge.program",
        "quicedge.lean_imports",
        "quicedge.supervisor",
        "quicedge.worker.rehearsal",
    )
    assert not imported & {*UNNEEDED, *OPTIONAL, *COMMAND_LINE}


PREPARED = """
import sys
from quicedge.worker.fork_server import prepare
prepare()
before = set(sys.modules)
import asyncio
import quicedge.worker.main
asyncio.run(asyncio.to_thread("a".encode, "idna"))
assert "uvloop" in before
print(*set(sys.modules) - before)
"""


def test_a_forked_worker_has_nothing_left_to_import() -> None:
    done = subprocess.run([sys.executable, "-c", PREPARED], capture_output=True, check=True)
    assert done.stdout.split() == []


def test_a_worker_that_is_a_fresh_interpreter_does_not_import_the_supervisor() -> None:
    imported = imported_by("quicedge.worker.__main__", "quicedge.worker.main")
    assert not imported & {*UNNEEDED, "click"}


def test_a_fork_server_that_is_a_fresh_interpreter_does_not_import_the_supervisor() -> None:
    imported = imported_by("quicedge.worker.fork_server", "quicedge.worker.rehearsal")
    assert not imported & {*UNNEEDED, *OPTIONAL, "click", "quicedge.supervisor"}


@pytest.mark.parametrize("unused", ["rich", "typing_extensions", "pickle", "email.utils"])
@pytest.mark.parametrize(
    "first", ["structlog", "msgspec", "rich", "typing_extensions", "pickle", "email.utils"]
)
def test_what_is_imported_already_stays(first: str, unused: str) -> None:
    assert unused in imported_by(first, "quicedge.lean_imports", unused)


def test_certificates_with_mail_addresses_are_read_as_without_lean_imports() -> None:
    printed = printed_by(
        "from cryptography.x509 import RFC822Name",
        "print(RFC822Name('a@example.com').value)",
        "try: RFC822Name('Name <a@example.com>')",
        "except ValueError: print('refused')",
        "print('email.utils' in sys.modules)",
    )
    assert printed == ["a@example.com", "refused", "True"]


def test_deferred_modules_are_found_by_name_and_as_attributes() -> None:
    printed = printed_by(
        "import msgspec",
        "print(type(msgspec.inspect.type_info(int)) is msgspec.inspect.IntType)",
        "import msgspec.inspect, hpack.huffman_table, pickle",
        "print(msgspec.inspect.__name__, hpack.huffman_table.decode_huffman(bytes([0x1F])))",
        "print(msgspec.json.schema(int), len(pickle.dumps(1)) > 0)",
        "import structlog._output",
        "print(structlog._output.PicklingError is pickle.PicklingError)",
    )
    assert printed == ["True", "msgspec.inspect b'a'", "{'type': 'integer'} True", "True"]


def test_what_hpack_decodes_for_clients_is_decoded_with_its_own_table() -> None:
    printed = printed_by(
        "import hpack",
        "block = hpack.Encoder().encode([('a', 'some value')])",
        "print(hpack.Decoder().decode(block), 'hpack.huffman_table' in sys.modules)",
    )
    assert printed == ["[('a', 'some value')] True"]


def test_what_reads_keys_of_ssh_is_imported_when_it_is_asked_for() -> None:
    printed = printed_by(
        "from cryptography.hazmat.primitives import serialization",
        "print('bcrypt' in sys.modules, hasattr(serialization, 'missing'))",
        "from cryptography.hazmat.primitives.serialization import SSHCertificate, ssh",
        "print(SSHCertificate is ssh.SSHCertificate, 'bcrypt' in sys.modules)",
        "print(serialization.load_ssh_public_key is ssh.load_ssh_public_key)",
        "from cryptography.hazmat.primitives.serialization import *",
    )
    assert printed == ["False False", "True True", "True"]


def test_source_code_is_found_as_without_lean_imports() -> None:
    printed = printed_by(
        "import inspect, json",
        "print('ast' in sys.modules, 'tokenize' in sys.modules)",
        "print(inspect.getsource(json.JSONEncoder).splitlines()[0])",
        "print(inspect.getsource(json.loads).splitlines()[0])",
        "print(inspect.signature(dict.get), inspect.ast.__name__)",
        "import ast, dis, linecache",
        "print(sys.version_info >= (3, 14) or dict(quicedge.lean_imports.CODE_FLAGS.items() & "
        "dis.COMPILER_FLAG_NAMES.items()) == quicedge.lean_imports.CODE_FLAGS)",
        "print(ast.parse('1').body != [], len(linecache.getlines(json.__file__)) > 100)",
        "print(not inspect._ClassFinder.__mro__[1:2] or inspect._ClassFinder.__mro__[1] is "
        "ast.NodeVisitor) if hasattr(inspect, '_ClassFinder') else print(True)",
    )
    assert printed == [
        "False False",
        "class JSONEncoder(object):",
        "def loads(s, *, cls=None, object_hook=None, parse_float=None,",
        "(self, key, default=None, /) ast",
        "True",
        "True True",
        "True",
    ]


def test_names_that_are_not_ascii_are_translated_as_without_lean_imports() -> None:
    printed = printed_by(
        "print('stringprep' in sys.modules)",
        "print('b\u00fccher.example'.encode('idna'), 'example'.encode('idna'))",
        "import platform, subprocess, uuid",
        "print(getattr(uuid, 'platform', platform).system() == platform.system())",
        "print(subprocess.run([sys.executable, '-c', 'print(1)'], text=True, "
        "stdout=subprocess.PIPE).stdout.strip(), uuid.uuid4().version)",
        "import locale",
        "print(subprocess.locale.getencoding() == locale.getencoding())",
    )
    assert printed == ["False", "b'xn--bcher-kva.example' b'example'", "True", "1 4", "True"]
