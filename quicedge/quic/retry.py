"""Retry packets (RFC 9000 section 17.2.5, RFC 9001 section 5.8), through aioquic's codec."""

from __future__ import annotations

from hmac import compare_digest

from aioquic.quic.packet import get_retry_integrity_tag

from quicedge.quic.packet_cipher import TAG_LENGTH


def is_authentic_retry(packet: bytes, original_destination_cid: bytes, version: int) -> bool:
    """Whether a Retry packet answers a first Initial sent to that connection ID."""
    tag = get_retry_integrity_tag(packet[:-TAG_LENGTH], original_destination_cid, version)
    return compare_digest(tag, packet[-TAG_LENGTH:])
