"""Translation of other servers' configurations into `quicedge.toml`, with a report line by line."""
