"""A stored analysis run again, and what comes of it compared with what is stored, byte by byte."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Row

from thoracle.audit import difference, replays
from thoracle.audit.replays import Stored
from thoracle.classify import bundle
from thoracle.errors import ThoracleError
from thoracle.image.decoder import Decoder
from thoracle.pipeline.reader import Classifier, Reader
from thoracle.records import Reading
from thoracle.report import header
from thoracle.settings import Settings, digests


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


@dataclass(frozen=True, slots=True)
class Made:
    """An object that is made now."""

    kind: str
    sop_instance_uid: str
    content: bytes


def replay(
    settings: Settings, database: Engine, study: str, generation: int | None, user_id: str
) -> Replay:
    """Run a stored analysis of a study again, compare, and record that ``user_id`` did it."""
    found = Replay(study)
    of = None
    try:
        with database.connect() as connection:
            of = replays.stored(connection, study, generation)
        _run(settings, of, found)
    except ThoracleError as error:  # no such analysis, no such bundle, or no result can be built
        found.impossible(str(error))
    with database.begin() as connection:
        replays.record_replay(connection, of, study, found.outcome, found.what, user_id)
    return found


def _run(settings: Settings, of: Stored, found: Replay) -> None:
    identity = bundle.identify(settings.classify)
    gone = [row for row in of.images if not (settings.data_folder / row.path).exists()]
    with Decoder(settings.decode.memory_megabytes, settings.decode.timeout_seconds) as decoder:
        reader = Reader(settings, identity, decoder, cache(partial(_loaded, settings)))
        found.beforehand += _beforehand(settings, of, reader)
        if gone or not of.images:
            found.impossible(_gone(gone, len(of.images)))
            return
        paths = [settings.data_folder / row.path for row in of.images]
        readings = [reader.read(path) for path in paths]
        _compare_readings(of, readings, found)
        _compare_objects(settings.data_folder, of, _made(reader, of, paths, readings), found)


def _loaded(settings: Settings) -> Classifier:
    """Return the classifier; importing torch takes seconds."""
    from thoracle.classify.classifier import Classifier as BundleClassifier

    return BundleClassifier.load(settings.classify)


def _gone(gone: list[Row[Any]], images: int) -> str:
    """Return why images cannot be read again."""
    when = sorted(str(row.purged_at) for row in gone if getattr(row, "purged_at", None))
    by_rule = f"; images are gone by retention since {when[-1]}" if when else ""
    return f"found {images - len(gone)} of {images} images kept, required are all{by_rule}"


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
    made = reader.report(
        paths,
        readings,
        content_datetime=datetime.fromisoformat(of.analysis.content_datetime).astimezone(),
        predecessor=header.Instance(*of.predecessor) if of.predecessor else None,
    )
    return [Made(kind.value, str(ds.SOPInstanceUID), header.encode(ds)) for kind, ds in made]


def _compare_objects(folder: Path, of: Stored, made: list[Made], found: Replay) -> None:
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
        _compare_object(folder / row.path, row, chosen.content, where, found)
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
    if (first := difference.first_difference(content, again)) is not None:
        found.differs(f"{where}, {first.path}", first.stored, first.replayed)
