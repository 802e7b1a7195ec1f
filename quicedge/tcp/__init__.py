"""TCP sockets and the kernel; knows nothing of HTTP."""
