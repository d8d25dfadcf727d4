"""The pages of `thoracle web`: a process of its own beside the gateway, on the same database."""
