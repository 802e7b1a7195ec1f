"""Certificates from ACME issuers (RFC 8555): when to order, how, and where they are kept."""
