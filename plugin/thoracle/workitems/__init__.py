"""Unified Procedure Steps: states, the changes that are allowed, and every answer (PS3.4 Annex CC).

Nothing here touches a network or a database: who keeps workitems (worklist/, audit/) and who
performs those of others (deliver/, pipeline/) both read the rules here.
"""
