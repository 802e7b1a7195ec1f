"""What clients speak: sessions that turn requests into exchanges."""
