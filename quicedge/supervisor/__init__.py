"""Parent process: owns the listening sockets, starts workers, handles signals."""
