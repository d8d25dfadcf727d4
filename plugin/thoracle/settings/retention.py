"""Settings of what is kept, and for how long."""

from pydantic import Field

from thoracle.settings.section import Section

_LONGEST = 36525


def _days(default: int, description: str) -> int:
    found: int = Field(
        default, ge=0, le=_LONGEST, description=f"{description}, days; 0 keeps them for ever."
    )
    return found


class Retention(Section):
    """How long things are kept (docs/retention.md). What is under legal hold stays."""

    audit_days: int = _days(2190, "Rows of the audit")
    images_days_after_proof: int = _days(
        7, "Received images, after all that was made of their study is proven to be kept"
    )
    results_days_after_proof: int = _days(
        30, "Files of result objects and of HL7 messages, after the same"
    )
    headers_days_after_proof: int = _days(
        0,
        "What a withdrawal needs of the headers of images that are gone, after the same (of a result that is withdrawn no longer than its files)",
    )
    unanswered_days: int = _days(
        90,
        "A delivery or message that was refused or given up, and an analysis that failed, hold back what belongs to them so long, or until somebody retries",
    )
    workflow_days: int = _days(30, "Rows of the engine about work that has ended")
    pictures_days: int = _days(7, "Pictures of the pages that nobody looked at")
    orphans_days: int = _days(
        90, "Files without a row that a start has set aside, since they were set aside"
    )
    every_hours: float = Field(
        6, ge=0.01, le=168, description="The gateway looks for what is due so often, hours."
    )
