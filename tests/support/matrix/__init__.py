"""One specification of exchanges for every version of HTTP, at both ends of an edge."""
