"""Stage 7: sending results to their destinations."""
