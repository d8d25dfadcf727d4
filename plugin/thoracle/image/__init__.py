"""Stages 3 and 4: which images are eligible, and their pixels (PS3.4 N.2) from a child process."""
