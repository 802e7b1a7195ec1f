"""A rehearsal of a worker's start, in the process that workers are forked from.

Libraries initialise much on first use: types of messages, OpenSSL's providers, classes of the event
loop. Done here once, on throw-away objects, it is in memory that all processes share, and done when
they start. The loop is asyncio's: uvloop's keeps a pipe open beyond its end.
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from quicedge.config.devcerts import self_signed
from quicedge.config.schema import Config
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.tls import CertificatePem
from quicedge.telemetry.logs import prepare_rendering
from quicedge.worker.control import METHODS, Settings, WorkerSpec
from quicedge.worker.edge import Edge, load_certificates


def rehearse() -> None:
    """Start and end an edge without sockets; leaves nothing open and no thread."""
    for method in METHODS.values():
        for message in method:
            msgspec.msgpack.Decoder(message)  # derives what it has to know of these types
    prepare_rendering()
    keylog = os.environ.pop("SSLKEYLOGFILE", None)
    try:
        asyncio.run(_start_and_end(_spec()))
    finally:
        if keylog is not None:
            os.environ["SSLKEYLOGFILE"] = keylog


def _spec() -> WorkerSpec:
    """A specification as a worker receives it."""
    certificate, key = self_signed("rehearsal.invalid")
    pem = CertificatePem(cert_file="", key_file="", cert=certificate, key=key)
    spec = WorkerSpec(
        slot=0,
        workers=1,
        settings=Settings(config=Config(), certificates=[pem]),
        sockets=[],
        control_fd=-1,
        secret=bytes(32),
    )
    return msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=WorkerSpec)


async def _start_and_end(spec: WorkerSpec) -> None:
    edge = Edge(
        spec.settings.config,
        [],
        certificates=load_certificates(spec.settings.certificates),
        connection_ids=ConnectionIdIssuer(secret=spec.secret),
        secret=spec.secret,
        access_log=None,
    )
    await edge.close()
