"""Stage 8: tells those who keep reading worklists what was found."""
