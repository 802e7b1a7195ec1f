"""quicedge: an HTTP/3 edge terminator that shows its transport."""

__version__ = "0.1.0"
