"""Who asks: log-in, cookies, roles, and the limits on both."""
