"""Configuration: schema, loader, validation and limits."""
