"""The QUIC interop runner's matrix without Docker: namespaces, an emulated link, its checks."""
