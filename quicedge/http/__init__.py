"""Sans-IO HTTP: messages, field validation, semantics, the HTTP/3 codec."""
