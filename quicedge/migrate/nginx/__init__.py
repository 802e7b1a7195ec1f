"""Translation of nginx's configuration."""
