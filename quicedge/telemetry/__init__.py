"""Events, connection statistics, logs."""
