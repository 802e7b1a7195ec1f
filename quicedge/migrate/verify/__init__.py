"""`quicedge migrate --verify`: runs both edges side by side and shows what differs."""
