"""The request core: gateway, routing, policy, filters, exchanges."""
