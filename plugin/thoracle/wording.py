"""Words that stand in many places, the same in all: disclaimers, kinds, proofs, plurals."""

from typing import Final, NamedTuple

from thoracle.records import Kind, SaliencyKind

DISCLAIMER: Final = "AI result for research, not verified by a physician, not for diagnosis."
"""In whatever states a result, to people or to programs."""
RESEARCH_USE_ONLY: Final = "Research use only, not for diagnosis"
"""In whatever shows, lists or carries results."""
ON_PICTURES: Final = "AI - research - not for diagnosis"
"""Where there is room for a few words alone."""
IN_SUBJECTS: Final = "research use only"
"""At the end of the subject of an e-mail."""
SOFTWARE: Final = "Research software, not for diagnosis."
"""Of the program itself: help, configuration, figures."""
IN_LISTS: Final = "(research, not verified)"
"""At the end of a Series Description, so that no list shows a result without it."""

KINDS: Final = {
    Kind.SR: "structured report",
    Kind.SC: "result picture (Secondary Capture)",
    Kind.PR: "outlines (presentation state)",
    Kind.KO: "key object selection",
    Kind.SEG: "segmentation",
    Kind.REJECTION: "rejection note",
    Kind.ORIGINAL: "original image",
}
PROOFS: Final = {
    "commitment": "Storage Commitment",
    "query": "a query that finds it",
    "status": "the archive's response to the transfer alone",
    "acknowledgement": "its acknowledgement",
}
"""What showed that a peer has what was sent, by what rows of the outbox and events say."""
MESSAGES: Final = {"hl7": "message (HL7 ORU)", "email": "e-mail"}
"""Messages by the kind of those who get them."""


class MapWords(NamedTuple):
    """What is said of a map of an image."""

    legend: str
    """Beside the colour bar."""
    region: str
    """Beside an outline."""
    shows: str
    """What colours and outlines show, as the end of a sentence."""
    caution: str
    """A whole sentence about what they do not show."""


MAPS: Final = {
    SaliencyKind.CLASS_ACTIVATION: MapWords(
        legend="Contribution to score",
        region="AI: what the result rests on",
        shows="what the result rests on",
        caution="Colours and outlines say what the model used, not where disease is.",
    ),
    SaliencyKind.OPACITIES: MapWords(
        legend="Opacity seen by the model",
        region="AI: opacity seen by the model",
        shows="opacities that the model sees",
        caution="Colours and outlines say where the model sees opacities, not what they are.",
    ),
}
"""By what a bundle says that its maps are."""


def number(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun: ``1 image``, ``3 images``."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"
