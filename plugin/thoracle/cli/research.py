"""`thoracle research-export`: what was read and said, under pseudonyms that a key makes.

Who has the key can make the pseudonym of a known patient and find their rows; nobody else can go
either way. The columns are named here one by one: no text of a sender or of a reader is among them.
"""

import hashlib
import hmac
import importlib.util
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoracle import spreadsheet
from thoracle.cli.options import ConfigOption, database_of, say, settings_of, who
from thoracle.errors import ThoracleError

if TYPE_CHECKING:
    from thoracle.store.database import Database


SHORTEST_KEY = 32
"""Bytes: as long as the digest."""
BATCH = 2000
DECIMALS = 6
MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_CODE = re.compile(r"[A-Z0-9-]{1,16}")
_MODALITY = re.compile(r"[A-Z]{2}")
FEATURES = (
    *("mean", "contrast", "dark", "median", "bright"),
    *("black", "white", "aspect", "megapixels", "sharpness"),
)
"""Of ``thoracle.image.features``, which says what they are."""
STAGES = ("select", "pixels", "classify")
COLUMNS = (
    *("patient", "study", "image", "device", "reader", "month", "modality"),
    *("bundle_digest", "finding", "generation", "outcome", "probability", "threshold"),
    *("reason_code", "reason_scheme", "study_outcome", "study_probability", "state", "opinion"),
    *(f"feature_{name}" for name in FEATURES),
    *(f"seconds_{name}" for name in STAGES),
)
_FLOATS = {
    *("probability", "threshold", "study_probability"),
    *(name for name in COLUMNS if name.startswith(("feature_", "seconds_"))),
}
README = """\
Readings of chest radiographs by Thoracle, for research. One row is one image read once.

patient, study, image, device, reader   pseudonyms: HMAC-SHA-256 of the identifier under a key
                that is not in this folder, cut to 128 bits. The same key makes them again.
month           of the reading, UTC; no date is more precise than that
modality        CR, DX, ...; empty where the header says something else
bundle_digest   which model
finding         positive or negative for what: scheme and code
generation      1, 2, ...: a study is read again when an image comes late, or on demand
outcome, probability, threshold, reason_code, reason_scheme   of the image
study_outcome, study_probability, state   of the study; a withdrawn result is "withdrawn"
opinion         newest verdict of a reader on that result: agree, disagree or not applicable
feature_...     descriptors of the image as the model saw it
seconds_...     times of the stages of the reading

Not in it: names, Patient IDs, accession numbers, UIDs, addresses, AE titles, dates, comments, texts
of headers, and images. De-identification of DICOM files is not part of this export. Pseudonyms are
not anonymity: who knows a rare course of events may recognise it. Treat it as data on patients.
"""


def research_export_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder.")],
    key: Annotated[
        Path,
        typer.Option(
            help="File with the secret key: 32 bytes or more, readable by its owner alone."
        ),
    ],
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="First month.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="End month, exclusive.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Write readings and verdicts under pseudonyms, as CSV and Parquet. It is audited."""
    from thoracle.store import trail

    for name, month in (("--since", since), ("--until", until)):
        if month is not None and not MONTH.fullmatch(month):
            raise ThoracleError(f"{name}: found {month!r}, required: a month as 2026-11")
    if folder.exists() or not folder.absolute().parent.is_dir():
        raise ThoracleError(
            f"{folder}: found an existing file, or no parent folder; required: a new name"
        )
    if importlib.util.find_spec("pyarrow") is None:
        raise ThoracleError("found no pyarrow, required: `pip install thoracle[parquet]`")
    pseudonyms = Pseudonyms(secret(key))
    database = database_of(settings_of(config))
    columns = who("thoracle research-export", since=since, until=until)
    with database.begin() as connection:
        trail.record(connection, trail.Event.EXPORTED, columns)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    try:
        number = _write(part, _rows(database, pseudonyms, since, until))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    say(f"{folder} written: {number} readings")


def secret(path: Path) -> bytes:
    """Return the key in a file.

    Raises
    ------
    ThoracleError
        There is none, others may read it, or it is too short.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except OSError as error:
        raise ThoracleError(f"--key: {path}: {error.strerror}, required: a file") from error
    if mode & 0o077:
        raise ThoracleError(f"--key: {path}: found mode {mode:04o}, required: 0600 or less")
    if len(content) < SHORTEST_KEY:
        raise ThoracleError(
            f"--key: {path}: found {len(content)} bytes, required: at least "
            f"{SHORTEST_KEY}, e.g. of `head -c 32 /dev/urandom`"
        )
    return content


class Pseudonyms:
    """Makes pseudonyms under a key; those of different kinds have nothing in common."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, kind: str, *identifiers: str | None) -> str:
        """Return the pseudonym of something, 32 hexadecimal digits; empty for nothing."""
        if not any(identifiers):
            return ""
        text = json.dumps([kind, *(one or "" for one in identifiers)])
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:32]


def _rows(
    database: "Database", pseudonyms: Pseudonyms, since: str | None, until: str | None
) -> Iterator[Sequence[dict[str, Any]]]:
    """Yield the rows in pieces, each read in a transaction of its own."""
    from thoracle.retention import research

    after = research.FIRST
    while True:
        with database.connect() as connection:
            found = research.readings(connection, since, until, after, BATCH)
        if found:
            yield [_row(row, pseudonyms) for row in found]
        if len(found) < BATCH:
            return
        last = found[-1]
        after = (
            *(last.study_instance_uid, last.generation),
            *(last.bundle_digest, last.sop_instance_uid),
        )


def _row(row: Any, pseudonyms: Pseudonyms) -> dict[str, Any]:
    of = pseudonyms.of
    study, features, seconds = row.study_instance_uid, row.features or {}, row.seconds or {}
    # Without an ID nobody is meant: such images must not become one patient.
    patient = (
        of("patient", row.issuer_of_patient_id, row.patient_id)
        if row.patient_id
        else of("study without a patient", study)
    )
    return {
        "patient": patient,
        "study": of("study", study),
        "image": of("image", row.sop_instance_uid),
        "device": of("device", row.device),
        "reader": of("reader", row.person),
        "month": (row.finished_at or "")[:7],
        "modality": _checked(row.modality, _MODALITY),
        "bundle_digest": row.bundle_digest,
        "finding": row.finding,
        "generation": row.generation,
        "outcome": row.outcome,
        "probability": _number(row.probability),
        "threshold": _number(row.threshold),
        "reason_code": _checked(row.reason_code, _CODE),
        "reason_scheme": _checked(row.reason_scheme, _CODE),
        "study_outcome": row.study_outcome,
        "study_probability": _number(row.study_probability),
        "state": row.state,
        "opinion": row.opinion,
        **{f"feature_{name}": _number(features.get(name)) for name in FEATURES},
        **{f"seconds_{name}": _number(seconds.get(name)) for name in STAGES},
    }


def _checked(value: str | None, pattern: re.Pattern[str]) -> str:
    """Return a code; empty for what is none: it may be anything that a sender wrote."""
    return value if value is not None and pattern.fullmatch(value) else ""


def _number(value: Any) -> float | None:
    return round(float(value), DECIMALS) if isinstance(value, int | float) else None


def _write(folder: Path, pieces: Iterator[Sequence[dict[str, Any]]]) -> int:
    """Write the rows in both formats; return how many."""
    import pyarrow
    from pyarrow import parquet

    def type_of(name: str) -> Any:
        if name == "generation":
            return pyarrow.int32()
        return pyarrow.float64() if name in _FLOATS else pyarrow.string()

    schema: Any = pyarrow.schema([(name, type_of(name)) for name in COLUMNS])
    number = 0
    (folder / "README.txt").write_text(README, encoding="utf-8")
    with (
        (folder / "readings.csv").open("w", encoding="utf-8", newline="") as text,
        parquet.ParquetWriter(folder / "readings.parquet", schema, compression="zstd") as table,
    ):
        text.write(spreadsheet.text(COLUMNS, []))
        for rows in pieces:
            cells = (
                ["" if one[name] is None else str(one[name]) for name in COLUMNS] for one in rows
            )
            text.writelines(list(spreadsheet.lines(COLUMNS, cells))[1:])
            table.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema))
            number += len(rows)
    for path in folder.iterdir():
        path.chmod(0o600)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return number
