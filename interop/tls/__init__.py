"""What other TLS stacks negotiate with the edge, from runs on loopback."""
