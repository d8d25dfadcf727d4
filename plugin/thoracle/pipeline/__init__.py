"""THE STRAIGHT LINE: study_complete -> analyse -> route -> deliver and notify, durably.

Stages meet here and nowhere else. Each is a workflow: a list of steps whose results are kept; after
a crash it goes on behind the last finished step. So clocks, files, the network and the database
are touched inside steps and transactions alone, and a step that ran twice must not show: result
UIDs and bytes are deterministic, and rows are written in the transaction of their checkpoint.
"""

from thoracle.deliver.line import Line, bind, peer_of, web_peer_of
from thoracle.deliver.workflows import committed
from thoracle.pipeline.analyse import arrived, bury, sweep
from thoracle.pipeline.correct import reanalyse, retry, withdraw
from thoracle.pipeline.route import release
from thoracle.ups.performer import Lookout
from thoracle.ups.subscriptions import enqueue_pending_reports, enqueue_reports, report_restart

__all__ = [
    "Line",
    "Lookout",
    "arrived",
    "bind",
    "bury",
    "committed",
    "enqueue_pending_reports",
    "enqueue_reports",
    "peer_of",
    "reanalyse",
    "release",
    "report_restart",
    "retry",
    "sweep",
    "web_peer_of",
    "withdraw",
]
