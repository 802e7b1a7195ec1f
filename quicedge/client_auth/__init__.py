"""Certificates that clients prove who they are with, on QUIC and TCP alike."""
