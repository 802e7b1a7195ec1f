"""The little of DNS that `quicedge check` needs: HTTPS records (RFC 9460) of some names.

The system's `getaddrinfo` knows addresses alone, and a DNS library is much for one kind of query.
"""
