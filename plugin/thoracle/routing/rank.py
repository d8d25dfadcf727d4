"""Which studies are read sooner: reasons in the expression language of the rules, and ageing.

A reason gives a head start: the study is ordered as if it had come so many minutes earlier. Time
itself is the other reason, for what has waited stands before what has come, so that a study
without a reason is overtaken only for as long as the longest head start.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from thoracle.errors import SettingsError
from thoracle.routing import doubts, expression
from thoracle.routing.expression import Undecided
from thoracle.settings import Rank, Settings

logger = logging.getLogger(__name__)

SHIPPED = (
    Rank(name="positive", when='result.outcome == "positive"', head_start_minutes=240),
    Rank(name="indeterminate", when='result.outcome == "indeterminate"', head_start_minutes=120),
    Rank(
        name="no-result",
        when='result.outcome == "rejected" || result.outcome == "failed"',
        head_start_minutes=60,
    ),
)
"""The order without any [[rank]]: what the AI could not judge is not taken for negative."""


@dataclass(frozen=True, slots=True)
class HeadStart:
    """How much sooner a study is read, and why."""

    minutes: int
    why: str
    """Name of the rank; empty when none holds."""


def head_start(
    ranks: Sequence[Rank], headers: Sequence[Dataset], common: Mapping[str, Any]
) -> HeadStart:
    """Return the largest head start of the ranks that hold.

    Parameters
    ----------
    ranks
        As the settings have them; none: those that are shipped.
    headers
        Of the received images. Pixel data are not needed.
    common
        Values that are no attributes: of the sender and the result. ``result.outcome`` is
        ``failed`` for a study of which the analysis failed.
    """
    best = HeadStart(0, "")
    for rank in ranks or SHIPPED:
        try:
            holds = expression.condition(rank.when).first(headers, common) is not None
        except Undecided as error:
            logger.info("rank %s: %s", rank.name, error)
            continue
        if holds and rank.head_start_minutes > best.minutes:
            best = HeadStart(rank.head_start_minutes, rank.name)
    return best


def warnings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield for each comparison of the ranks that can never be true the rank, and what it is."""
    for rank in settings.rank:
        with suppress(SettingsError):  # a fault
            condition = expression.condition(rank.when)
            yield from ((rank.name, f"when: {text}") for text in doubts.never_true(condition))


def faults(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield for each fault of the ranks the name of the rank, and what is found and required."""
    names = [rank.name for rank in settings.rank]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield name, f"found {names.count(name)} ranks of this name, required: different names"
    for rank in settings.rank:
        try:
            condition = expression.condition(rank.when)
        except SettingsError as error:
            yield rank.name, f"when: {error}"
        else:
            if condition.constant() is False:
                yield rank.name, "when is always false, required: a condition that can hold"
