"""`thoracle subject-export`: all that is kept about one patient, for that patient."""

import json
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoracle.cli.options import ConfigOption, database_of, say, settings_of, who
from thoracle.errors import ThoracleError

if TYPE_CHECKING:
    from thoracle.retention.subject import Subject
    from thoracle.store.database import Database
    from thoracle.store.object_files import Objects


README = """\
What this is
============

All that Thoracle at this hospital keeps about one patient. Thoracle is research software that
reads chest radiographs beside the physicians: its results are for research, not for a diagnosis.

studies/1, studies/2, ...   one folder for each study (one examination)
    study.json              what is noted about it: when it came, what the software said of each
                            image and with which probability, what readers said of that, where
                            results were sent
    image-1.dcm, ...        the radiographs as they were received, in the format of hospitals
                            (DICOM); there are free viewers for it
    header-1.dcm, ...       of a radiograph that was deleted: names, numbers and dates that came
                            with it, without the picture, in that format
    result-1-sr.dcm, ...    what the software made of them: reports and pictures, in that format
    message-1.hl7, ...      messages about results to other systems of the hospital, as text
audit.jsonl                 the log, one event a line: who sent, read, looked at or received what
holds.json                  whether something must be kept for a legal reason

A file whose "file_state" in study.json is "gone" was deleted by the hospital's rules of retention.
The hospital's archive usually has the radiographs; this copy was kept for a while only. The header
stays, so that a result that turns out to be wrong can be withdrawn.

Names of employees stand in it where they looked at something or judged it. That somebody opened
a list of many patients is in the log of the hospital, but not here: nothing in it says who was on
the list.
{remarks}"""
MIXED = """
Study {number} also has images of somebody else, by a mistake of its sender: only this patient's own
images and what was said of each are here.
"""


def subject_export_command(
    target: Annotated[
        Path, typer.Argument(metavar="DIR|FILE.zip", help="New folder, or zip file.")
    ],
    patient: Annotated[str, typer.Option(help="Patient ID.")],
    issuer: Annotated[
        str | None,
        typer.Option(help="Issuer of the Patient ID; required if the ID has several."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Export everything about one patient. The export is audited."""
    from thoracle.retention import subject as subjects
    from thoracle.store import objects, trail, views

    if target.exists() or not target.absolute().parent.is_dir():
        raise ThoracleError(
            f"{target}: found an existing file, or no parent folder; required: a new name"
        )
    settings = settings_of(config)
    database = database_of(settings)
    subject = subject_of(database, patient, issuer)
    with database.begin() as connection:
        uids = [uid for uid, _ in subjects.studies(connection, subject)]
        for some in views.pieces(uids) or [[]]:
            columns: trail.Columns = {
                **who("thoracle subject-export", studies=list(some)),
                "patient_id": subject.patient_id,
                "issuer_of_patient_id": subject.issuer_of_patient_id,
            }
            trail.record(connection, trail.Event.EXPORTED, columns)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    try:
        files = _Export(database, objects.of(settings), subject, part).write()
        if target.suffix == ".zip":
            _zip(part, target)
        else:
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    say(f"{target} written: {files} files")


def subject_of(database: "Database", patient: str, issuer: str | None) -> "Subject":
    """Return the one patient that somebody means.

    Raises
    ------
    ThoracleError
        There is none of this ID, or of this ID and issuer; or the ID has several issuers.
    """
    from thoracle.retention import subject

    with database.connect() as connection:
        known = subject.issuers(connection, patient)
    if not patient or not known:
        raise ThoracleError(
            "--patient: found no patient with this ID, required: one with images here"
        )
    if issuer is None and len(known) > 1:
        raise ThoracleError(
            f"--issuer: found {len(known)} issuers of this ID, required: one of them: "
            f"{', '.join(repr(one) for one in sorted(known))}"
        )
    chosen = known.pop() if issuer is None else issuer
    if issuer is not None and issuer not in known:
        raise ThoracleError("--issuer: found no patient of this ID from it, required: one")
    return subject.Subject(patient, chosen)


def _zip(folder: Path, target: Path) -> None:
    part = folder.with_name(target.name + ".zipping")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
        part.chmod(0o600)
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
    part.rename(target)


class _Export:
    """One patient's export while it is written."""

    def __init__(
        self, database: "Database", kept: "Objects", subject: "Subject", folder: Path
    ) -> None:
        self._database = database
        self._objects = kept
        self._subject = subject
        self._folder = folder
        self._files = 0

    def write(self) -> int:
        """Write all of it; return how many files."""
        from thoracle.retention import subject

        with self._database.connect() as connection:
            studies = subject.studies(connection, self._subject)
            held = subject.holds(connection, self._subject)
        remarks = ""
        for number, (uid, alone) in enumerate(studies, 1):
            self._study(self._folder / "studies" / str(number), uid, alone)
            remarks += "" if alone else MIXED.format(number=number)
        theirs = [uid for uid, is_alone in studies if is_alone]
        events = subject.all_events(self._database.connect, self._subject, theirs)
        self._text("audit.jsonl", (json.dumps(one, ensure_ascii=True) + "\n" for one in events))
        self._text("holds.json", [json.dumps(held, indent=1)])
        self._text("README.txt", [README.format(remarks=remarks)])
        return self._files

    def _study(self, folder: Path, uid: str, alone: bool) -> None:
        from thoracle.retention import subject

        with self._database.connect() as connection:
            images = subject.images(connection, self._subject, uid)
            headers = subject.headers(connection, self._subject, uid)
            results = subject.results(connection, uid)
            sent = subject.sent(connection, uid) if alone else []
            values: dict[str, Any] = subject.whole(connection, uid) if alone else {}
            names = [row["sop_instance_uid"] for row in images]
            values["reading"] = subject.readings(connection, uid, names)
        folder.mkdir(parents=True)
        for number, row in enumerate(images, 1):
            self._copy(row, folder / f"image-{number}.dcm")
        for number, row in enumerate(headers, 1):
            row["path"] = f"header-{number}.dcm"
            (folder / row["path"]).write_bytes(row.pop("content"))
            self._files += 1
        mine = results if alone else []  # a result names all images of its study
        for number, row in enumerate(mine, 1):
            if row["kind"] != "original":  # that is an image above
                self._copy(row, folder / f"result-{number}-{row['kind']}.dcm")
        for number, row in enumerate((row for row in sent if row["path"]), 1):
            self._copy(row, folder / f"message-{number}{Path(row['path']).suffix}")
        values |= {"instance": images, "header": headers, "result": mine, "outbox": sent}
        name = str(folder.relative_to(self._folder) / "study.json")
        self._text(name, [json.dumps(values, indent=1, ensure_ascii=True)])

    def _copy(self, row: dict[str, Any], target: Path) -> None:
        """Copy the file of a row, and note in the row whether it is there, and its name here."""
        below, row["path"] = row["path"], None
        if row["file_state"] != "kept" or not below:
            return
        try:
            shutil.copyfile(self._objects.local(below), target)
        except FileNotFoundError:  # it has just gone
            row["file_state"] = "gone"
            return
        row["path"] = target.name
        self._files += 1

    def _text(self, name: str, lines: Iterable[str]) -> None:
        with (self._folder / name).open("w", encoding="utf-8") as file:
            file.writelines(lines)
        self._files += 1
