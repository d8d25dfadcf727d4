"""Stage 7: rules, their conditions, and the place in the worklist."""
