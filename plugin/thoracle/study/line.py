"""What the workflows work with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydicom import Dataset
from sqlalchemy import Engine

from thoracle.errors import NotAnalysable
from thoracle.image import patient
from thoracle.image.header import header_of
from thoracle.image.patient import Corrector
from thoracle.records import BundleIdentity, Reading
from thoracle.report import context
from thoracle.report.header import Instance
from thoracle.report.result_set import Made
from thoracle.settings import Destination, Settings
from thoracle.store import objects
from thoracle.store.object_files import Known, Objects
from thoracle.study import headers
from thoracle.study.results import ResultObject


class StudyReader(Protocol):
    """What the workflows use of :class:`thoracle.pipeline.reader.Reader`."""

    @property
    def bundle(self) -> BundleIdentity:
        """Which bundle reads."""

    def read(self, path: Path) -> Reading:
        """Return what is said about the image in a file."""

    def report(
        self,
        paths: Sequence[Path],
        readings: Sequence[Reading],
        *,
        content_datetime: datetime,
        predecessor: Instance | None = None,
        recorded: Sequence[Mapping[str, str]] = (),
    ) -> list[Made]:
        """Return the objects of the result of one study."""


@dataclass(frozen=True)
class Line:
    """The parts that ``gateway.py`` put together."""

    settings: Settings
    database: Engine
    reader: StudyReader
    corrector: Corrector = patient.with_patient_of
    """Gives an image the patient of another: in this process, or in a child with limits."""
    destinations: dict[str, Destination] = field(init=False)
    objects: Objects = field(init=False)

    def __post_init__(self) -> None:
        by_name = {destination.name: destination for destination in self.settings.destination}
        object.__setattr__(self, "destinations", by_name)
        object.__setattr__(self, "objects", objects.of(self.settings))

    def path(self, below: str, known: Known | None = None) -> Path:
        """Return the local file of an object; raises as ``Objects.local``."""
        return self.objects.local(below, known)

    def header(self, study_instance_uid: str, below: str) -> Dataset:
        """Return the header of an image of a study, or what is kept of it when the file has gone.

        Raises
        ------
        NotAnalysable
            There is neither, or it cannot be parsed.
        """
        path = self.path(below)
        if path.exists():
            try:
                return header_of(path)
            except NotAnalysable:
                if path.exists():  # else it has gone this moment
                    raise
        with self.database.connect() as connection:
            kept = headers.content(connection, study_instance_uid, below)
        return header_of(path) if kept is None else context.read(kept)


_line: Line | None = None


def bind(line: Line) -> None:
    """Give the workflows their parts; once, before the engine starts."""
    global _line
    _line = line


def parts() -> Line:
    """Return the parts."""
    if _line is None:
        raise RuntimeError("pipeline.bind() comes first")
    return _line


def write_result(made: Made) -> ResultObject:
    """Write an object of ours durably, and return what the database says of it."""
    uid = made.sop_instance_uid  # ours, so it may be a file name
    below = f"results/{uid[-2:]}/{uid}.dcm"
    return ResultObject(
        sop_instance_uid=uid,
        sop_class_uid=made.sop_class_uid,
        series_instance_uid=made.series_instance_uid,
        kind=made.kind,
        path=below,
        sha256=parts().objects.write(below, made.content),
    )
