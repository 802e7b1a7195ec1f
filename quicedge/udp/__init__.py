"""UDP sockets and the kernel: batched receive and send. Knows nothing of QUIC."""
