"""Persons who may open the pages: accounts, roles, tokens, and log-in by OpenID Connect."""
