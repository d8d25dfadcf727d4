"""The pages that a person reads."""
