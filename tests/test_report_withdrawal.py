"""The withdrawal of a result: what it names, says, and never says."""

from pathlib import Path

import pytest

from sources import NOON, cr, dx
from structured_reports import items, report, reread, texts, values, withdrawn, written
from thoracle.errors import ReportError
from thoracle.wording import DISCLAIMER
from validators import dciodvfy, dsr2html


def test_the_withdrawal_of_a_result_never_reads_as_negative() -> None:
    built = withdrawn([dx(1), dx(2)], made=NOON)
    assert values(built, "COVID-19") == ["Undetermined", "Undetermined"]
    assert values(built, "Reason for no result") == ["Result withdrawn", "Result withdrawn"]
    assert values(built, "Finding") == items(built, "Probability") == []
    assert texts(built, "Conclusion") == [
        f"{DISCLAIMER} The earlier AI result of 2026-01-02 12:00+00:00 on this study is "
        'withdrawn and must not be used. Reason stated: "Wrong film". This says nothing about '
        "COVID-19."
    ]
    assert "not analysed" not in " ".join(texts(built, "Comment"))
    assert (built.VerificationFlag, built.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert built.ContentQualification == "RESEARCH"


def test_a_withdrawal_names_what_it_withdraws() -> None:
    (study,) = withdrawn([cr()]).PredecessorDocumentsSequence
    named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == report([cr()], "positive").SOPInstanceUID


def test_the_reason_of_a_withdrawal_is_text_and_never_markup(tmp_path: Path) -> None:
    reason = "<script>alert(1)</script> & \\ ^ Λάθος ακτινογραφία\nsecond line"
    built = withdrawn([cr()], reason)
    assert f'"{reason}"' in texts(reread(built), "Conclusion")[0]
    path = written(built, tmp_path)
    assert dciodvfy(path) == []
    assert "<script>" not in dsr2html(path)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (" \n", "found 0 characters, required: 1 to 1024"),
        ("x" * 1025, "found 1025 characters"),
        ("a\x1bb", r"found U\+001B, required: text"),
        ("a\udcffb", r"found U\+DCFF, required: text"),
    ],
)
def test_a_reason_that_no_report_can_hold_is_refused(reason: str, message: str) -> None:
    with pytest.raises(ReportError, match=message):
        withdrawn([cr()], reason)
