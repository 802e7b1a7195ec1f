"""quicedge in the QUIC interop runner: the runner's matrix without Docker, and both endpoints.

`python -m interop` from a checkout. pip does not install this package; it uses the installed
quicedge, and quicedge knows nothing of it.
"""
