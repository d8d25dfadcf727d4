"""What the fork server of :mod:`processes` imports before it forks."""

import gc

import schema_copy
import thoracle.gateway
import thoracle.web.serve  # noqa: F401 - it stays in memory
from thoracle.classify import import_classifier

import_classifier()
schema_copy.install()
gc.freeze()  # a collection would write to every page that the processes share
