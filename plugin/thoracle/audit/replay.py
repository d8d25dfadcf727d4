"""A stored analysis run again, and what comes of it compared with what is stored, byte by byte."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydicom import DataElement, Dataset, dcmread
from pydicom.errors import InvalidDicomError
from sqlalchemy import Connection, Engine, Row, select

from thoracle.audit import query, starts
from thoracle.audit.sentences import inert
from thoracle.classify import bundle, load_classifier
from thoracle.errors import ThoracleError
from thoracle.image.codecs import MALFORMED
from thoracle.image.decoder import Decoder
from thoracle.pipeline.reader import Reader
from thoracle.records import Kind, Reading
from thoracle.report.header import Instance
from thoracle.report.result_set import Made
from thoracle.settings import Settings, digests
from thoracle.store import objects, trail
from thoracle.store.object_files import Objects
from thoracle.store.tables import analysis, instance, reading, result
from thoracle.study import analyses, results

# ---- difference ----------------------------------------------------------------------------------
# Where two DICOM objects differ first: which element, and the two values.

LONGEST = 120
"""Characters of a value that are shown."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An element that two objects do not have alike."""

    path: str
    """E.g. ``ContentSequence[3].TextValue``; items count from 1."""
    stored: str
    replayed: str


def first_difference(stored: bytes, replayed: bytes) -> Difference | None:
    """Return where two files differ first; ``None`` when they are the same, byte by byte.

    UIDs of our objects follow from their content, so an element that is no UID is named if one
    differs: that is why the UIDs do.
    """
    if stored == replayed:
        return None
    try:
        ours, theirs = (dcmread(BytesIO(one), force=False) for one in (stored, replayed))
        found = [
            *_differences(ours, theirs, ""),
            *_differences(ours.file_meta, theirs.file_meta, ""),
        ]
    except (InvalidDicomError, *MALFORMED) as error:
        return Difference("the file", f"unreadable ({type(error).__name__})", "readable")
    chosen = next((one for vr, one in found if vr != "UI"), found[0][1] if found else None)
    return chosen or Difference(_byte(stored, replayed), *map(_digest, (stored, replayed)))


def _differences(one: Dataset, other: Dataset, path: str) -> Iterator[tuple[str, Difference]]:
    for tag in sorted(set(one.keys()) | set(other.keys())):
        mine, others = one.get(tag), other.get(tag)
        element: Any = mine if mine is not None else others
        name = f"{path}{element.keyword or element.tag}"
        if mine is not None and others is not None and mine.VR == others.VR == "SQ":
            yield from _items(mine, others, name)
        elif mine is None or others is None or mine.VR != others.VR or mine.value != others.value:
            yield element.VR, Difference(name, _value(mine), _value(others))


def _items(one: DataElement, other: DataElement, name: str) -> Iterator[tuple[str, Difference]]:
    for number, (mine, others) in enumerate(zip_longest(one.value, other.value), 1):
        item = f"{name}[{number}]"
        if mine is None or others is None:
            there, missing = "an item", "no such item"
            pair = (missing, there) if mine is None else (there, missing)
            yield "SQ", Difference(item, *pair)
        else:
            yield from _differences(mine, others, f"{item}.")


def _value(element: DataElement | None) -> str:
    if element is None:
        return "no such element"
    if isinstance(element.value, bytes):
        return _digest(element.value)
    return "a sequence" if element.VR == "SQ" else inert(element.value, LONGEST)


def _digest(content: bytes) -> str:
    return f"{len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()[:16]}"


def _byte(one: bytes, other: bytes) -> str:
    number = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return f"byte {min(len(one), len(other)) if number is None else number}"


# ---- what is stored ------------------------------------------------------------------------------
# What an analysis was made of and what came of it, to run it again; and that somebody did.

_MADE = tuple(kind.value for kind in (Kind.SR, Kind.SC, Kind.PR, Kind.KO))
SAME, DIFFERENT, IMPOSSIBLE = "same", "different", "impossible"
"""What comes of a replay."""
_EVENT_OUTCOMES = {
    SAME: trail.SUCCESS,
    DIFFERENT: trail.SERIOUS_FAILURE,
    IMPOSSIBLE: trail.MINOR_FAILURE,
}


@dataclass(frozen=True)
class Stored:
    """An analysis that ended with a result."""

    analysis: Row[Any]
    images: Sequence[Row[Any]]
    """The versions that were there when it ended, in the order in which they were read."""
    readings: Sequence[Row[Any]]
    objects: Sequence[Row[Any]]
    """What was made of it, the report first; nothing that a withdrawal made."""
    predecessor: tuple[str, str, str] | None
    """The report that it replaced: class, instance and series."""
    made_with: Mapping[str, str]
    """As :class:`thoracle.records.Reading` has it; empty when it was not recorded then."""
    bundle_version: str
    settings: Mapping[str, str] | None
    """Digests of the settings of the start before it, by name, as far as they were recorded."""

    @property
    def key(self) -> results.AnalysisKey:
        """Which analysis it is."""
        row = self.analysis
        return results.AnalysisKey(row.study_instance_uid, row.generation, row.bundle_digest)


def stored(connection: Connection, study_instance_uid: str, generation: int | None) -> Stored:
    """Return the newest analysis of a study, or that of a generation.

    Raises
    ------
    ThoracleError
        There is none that ended with a result.
    """
    row = _analysis(connection, study_instance_uid, generation)
    key = results.AnalysisKey(study_instance_uid, row.generation, row.bundle_digest)
    objects = _objects(connection, key)
    report = objects[0] if objects else None
    read = None if report is None else _image_read(connection, study_instance_uid, report)
    return Stored(
        analysis=row,
        images=_images(connection, row),
        readings=_readings(connection, key),
        objects=objects,
        predecessor=None if report is None else _predecessor(connection, report),
        made_with=(read or {}).get("detail", {}).get("made_with") or {},
        bundle_version=str((read or {}).get("bundle_version", "")),
        settings=starts.known(connection, row.finished_at),
    )


def record_replay(
    connection: Connection, of: Stored | None, study: str, outcome: str, what: str, user_id: str
) -> None:
    """Record that an analysis was run again, or that this was not possible.

    ``what`` names objects and elements, never their values.
    """
    columns: trail.Columns = {"study_instance_uid": study}
    detail: dict[str, Any] = {"outcome": outcome, "what": what}
    if of is not None:
        columns = analyses.of_study(connection, study)
        columns["bundle_digest"] = of.analysis.bundle_digest
        columns["finding"] = of.analysis.finding
        detail["generation"] = of.analysis.generation
    event_outcome = _EVENT_OUTCOMES[outcome]
    columns = {**columns, "user_id": user_id, "event_outcome": event_outcome, "detail": detail}
    trail.record(connection, trail.Event.ANALYSIS_REPLAYED, columns)


def _analysis(connection: Connection, study: str, generation: int | None) -> Row[Any]:
    statement = (
        select(analysis)
        .where(analysis.c.study_instance_uid == study, analysis.c.state.in_(("done", "withdrawn")))
        .order_by(analysis.c.generation.desc(), analysis.c.finished_at.desc())
        .limit(1)
    )
    if generation is not None:
        statement = statement.where(analysis.c.generation == generation)
    row = connection.execute(statement).first()
    if row is None:
        which = "" if generation is None else f" of generation {generation}"
        raise ThoracleError(f"{study:.80}: found no analysis{which} with a result, required: one")
    return row


def _images(connection: Connection, of: Row[Any]) -> list[Row[Any]]:
    ours = select(result.c.sop_instance_uid).where(result.c.kind != Kind.ORIGINAL)
    rows = connection.execute(
        select(instance)
        .where(
            instance.c.study_instance_uid == of.study_instance_uid,
            instance.c.generation <= of.generation,
            instance.c.received_at <= of.finished_at,
            instance.c.sop_instance_uid.not_in(ours),
        )
        .order_by(instance.c.sop_instance_uid, instance.c.version)
    )
    return list({row.sop_instance_uid: row for row in rows}.values())


def _readings(connection: Connection, key: results.AnalysisKey) -> Sequence[Row[Any]]:
    return connection.execute(
        select(reading)
        .where(
            reading.c.study_instance_uid == key.study_instance_uid,
            reading.c.generation == key.generation,
            reading.c.bundle_digest == key.bundle_digest,
        )
        .order_by(reading.c.sop_instance_uid)
    ).all()


def _objects(connection: Connection, key: results.AnalysisKey) -> list[Row[Any]]:
    rows = connection.execute(
        select(result)
        .where(
            result.c.study_instance_uid == key.study_instance_uid,
            result.c.generation == key.generation,
            result.c.bundle_digest == key.bundle_digest,
            result.c.kind.in_(_MADE),
        )
        .order_by(result.c.created_at, result.c.sop_instance_uid)
    ).all()
    reports = [row for row in rows if row.kind == Kind.SR]
    # A later report of the same analysis is that of its withdrawal.
    return reports[:1] + [row for row in rows if row.kind != Kind.SR]


def _predecessor(connection: Connection, report: Row[Any]) -> tuple[str, str, str] | None:
    row = connection.execute(
        select(result)
        .where(
            result.c.study_instance_uid == report.study_instance_uid,
            result.c.kind == Kind.SR,
            result.c.created_at < report.created_at,
        )
        .order_by(result.c.generation.desc(), result.c.created_at.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    return row.sop_class_uid, row.sop_instance_uid, row.series_instance_uid


def _image_read(connection: Connection, study: str, report: Row[Any]) -> dict[str, Any] | None:
    question = query.Question(
        study_instance_uid=study,
        event=trail.Event.IMAGE_READ.verb,
        sop_instance_uid=report.sop_instance_uid,
    )
    return next(query.events(connection, question), None)


# ---- replay --------------------------------------------------------------------------------------


@dataclass
class Replay:
    """What came of running an analysis again."""

    study_instance_uid: str
    outcome: str = "same"
    """same, different or impossible."""
    beforehand: list[str] = field(default_factory=list)
    """What is not as it was then: bundle, settings, version, runtime."""
    differences: list[str] = field(default_factory=list)
    """The first difference of each image and of each object."""
    what: str = ""
    """The first one without values, as the audit has it; or why it was not possible."""
    objects: int = 0
    """How many objects were compared."""

    def differs(self, where: str, stored: object, again: object) -> None:
        """Add a difference."""
        self.outcome = "different"
        self.what = self.what or where
        self.differences.append(f"{where}: stored {stored}, replayed {again}")

    def impossible(self, why: str) -> None:
        """Say that it cannot be run again."""
        self.outcome, self.what = "impossible", why


def replay(
    settings: Settings, database: Engine, study: str, generation: int | None, user_id: str
) -> Replay:
    """Run a stored analysis of a study again, compare, and record that ``user_id`` did it."""
    found = Replay(study)
    of = None
    try:
        with database.connect() as connection:
            of = stored(connection, study, generation)
        _run(settings, of, found)
    except ThoracleError as error:  # no such analysis, no such bundle, or no result can be built
        found.impossible(str(error))
    with database.begin() as connection:
        record_replay(connection, of, study, found.outcome, found.what, user_id)
    return found


def _run(settings: Settings, of: Stored, found: Replay) -> None:
    identity = bundle.identify(settings.classify)
    kept = objects.of(settings)
    files = {row.path: kept.local(row.path) for row in of.images}
    gone = [row for row in of.images if not files[row.path].exists()]
    with Decoder(settings.decode.memory_megabytes, settings.decode.timeout_seconds) as decoder:
        reader = Reader(
            settings, identity, decoder, cache(partial(load_classifier, settings.classify))
        )
        found.beforehand += _beforehand(settings, of, reader)
        if gone or not of.images:
            found.impossible(_gone(gone, len(of.images)))
            return
        if not of.readings:
            found.impossible("found no readings, required: those of then: a rule deleted them")
            return
        paths = list(files.values())
        readings = [reader.read(path) for path in paths]
        _compare_readings(of, readings, found)
        _compare_objects(kept, of, _made(reader, of, paths, readings), found)


def _gone(gone: list[Row[Any]], images: int) -> str:
    """Return why images cannot be read again."""
    when = sorted(str(row.purged_at) for row in gone if getattr(row, "purged_at", None))
    by_rule = f"; images are gone by retention since {when[-1]}" if when else ""
    return f"found {images - len(gone)} of {images} images kept, required: all{by_rule}"


def _beforehand(settings: Settings, of: Stored, reader: Reader) -> Iterator[str]:
    """Yield what is not as it was when the analysis was made."""
    then, now = of.made_with, reader.made_with
    digest = reader.bundle.digest
    if digest != of.analysis.bundle_digest:
        here = f"{reader.bundle.name} {reader.bundle.version}, digest {digest}"
        yield (f"bundle: then {of.bundle_version}, digest {of.analysis.bundle_digest}; now {here}")
    if not then:
        yield "settings, version and runtime of then were not recorded"
        return
    if then.get("settings_digest") != now["settings_digest"]:
        names = digests.changed(
            digests.of_shaping(of.settings or {}), digests.of_shaping(digests.named(settings))
        )
        known = ", ".join(names) if of.settings and names else "not known which"
        yield f"settings that shape results differ: {known}"
    for name in ("version", "runtime", "device"):
        if then.get(name) != now[name]:
            yield f"{name}: then {then.get(name)}, now {now[name]}"


def _compare_readings(of: Stored, readings: list[Reading], found: Replay) -> None:
    stored = {row.sop_instance_uid: row for row in of.readings}
    for one in readings:
        row = stored.pop(one.sop_instance_uid, None)
        where = f"the reading of image {one.sop_instance_uid}"
        if row is None:
            found.differs(where, "none", "one")
            continue
        again = {
            "probability": one.probability,
            "outcome": one.outcome.value,
            "reason_code": one.reason.code.value if one.reason else None,
        }
        for name, value in again.items():
            if getattr(row, name) != value:
                found.differs(f"{where}, {name}", getattr(row, name), value)
    for uid in stored:
        found.differs(f"the reading of image {uid}", "one", "none: it is not there")


def _made(reader: Reader, of: Stored, paths: list[Path], readings: list[Reading]) -> list[Made]:
    """Return the objects that are made now, as the pipeline makes them."""
    return reader.report(
        paths,
        readings,
        content_datetime=datetime.fromisoformat(of.analysis.content_datetime).astimezone(),
        predecessor=Instance(*of.predecessor) if of.predecessor else None,
    )


def _compare_objects(kept: Objects, of: Stored, made: list[Made], found: Replay) -> None:
    left = list(made)
    for row in of.objects:
        alike = [one for one in left if one.kind == row.kind]
        match = next((one for one in alike if one.sop_instance_uid == row.sop_instance_uid), None)
        chosen = match or (alike[0] if alike else None)
        where = f"object {row.kind} {row.sop_instance_uid}"
        found.objects += 1
        if chosen is None:
            found.differs(where, "one", "none is made")
            continue
        left.remove(chosen)
        _compare_object(kept.local(row.path), row, chosen.content, where, found)
    for one in left:
        found.objects += 1
        found.differs(f"object {one.kind} {one.sop_instance_uid}", "none", "one is made")


def _compare_object(path: Path, row: Row[Any], again: bytes, where: str, found: Replay) -> None:
    if not path.exists():  # deleted by rule: the row still has its digest
        digest = hashlib.sha256(again).hexdigest()
        if digest != row.sha256:
            found.differs(f"{where}, SHA-256 (its file is gone)", row.sha256, digest)
        return
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != row.sha256:
        found.differs(f"{where}, its file, which was changed: SHA-256", row.sha256, digest)
    if (first := first_difference(content, again)) is not None:
        found.differs(f"{where}, {first.path}", first.stored, first.replayed)
