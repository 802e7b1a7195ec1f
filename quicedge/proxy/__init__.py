"""The exchange: one request and its response crossing the edge; routing."""
