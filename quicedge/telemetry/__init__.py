"""Event schema, connection statistics, metrics, logs and traces."""
