"""Stage 9: the events of every step, committed together with their effect."""
