"""Translation of Caddyfiles, by way of the JSON that Caddy makes of them."""
