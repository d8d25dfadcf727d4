"""Unified Procedure Steps (PS3.4 Annex CC): our workitems, and those of others that we perform."""
