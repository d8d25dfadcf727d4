"""What is sent to other systems: one table, one state machine, one workflow for every kind of peer.

A row is held (by a rule), waiting, sent (taken, not proven yet), delivered, refused, failed (given
up) or withdrawn. Rows that wait for the same peer go in one call, a *batch*, which is a workflow.

Two that send stay apart: the audit's repositories (audit/forwarding.py), which get every event of
one sequence, so that a number says how far each is; and the performer of workitems
(ups/performer.py), which holds a conversation.
"""
