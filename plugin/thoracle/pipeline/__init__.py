"""THE STRAIGHT LINE: study_complete -> analyse -> route -> send, durably.

Stages meet here and nowhere else. Each is a workflow: a list of steps whose results are kept; after
a crash it goes on behind the last finished step. So clocks, files, the network and the database
are touched inside steps and transactions alone, and a step that ran twice must not show: result
UIDs and bytes are deterministic, and rows are written in the transaction of their checkpoint.
"""

from thoracle.deliver.peers import peer_of, web_peer_of
from thoracle.deliver.workflows import committed
from thoracle.outbox.workflow import enqueue
from thoracle.pipeline.analyse import (
    fail_abandoned_analyses,
    recover_unplanned_studies,
    start_quiet_period,
)
from thoracle.pipeline.correct import reanalyse, reconcile, retry, withdraw
from thoracle.pipeline.route import release
from thoracle.pipeline.senders import bind, recover
from thoracle.study.line import Line
from thoracle.ups.performer import WorklistPoller
from thoracle.ups.subscriptions import report_restart

__all__ = [
    "Line",
    "WorklistPoller",
    "bind",
    "committed",
    "enqueue",
    "fail_abandoned_analyses",
    "peer_of",
    "reanalyse",
    "reconcile",
    "recover",
    "recover_unplanned_studies",
    "release",
    "report_restart",
    "retry",
    "start_quiet_period",
    "web_peer_of",
    "withdraw",
]
