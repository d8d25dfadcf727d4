"""The pipeline without a network: files in, answers and result objects out."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.misc import is_dicom

from thoracle.classify import bundle, load_classifier
from thoracle.errors import ThoracleError
from thoracle.image.decoder import Decoder
from thoracle.image.header import header_of
from thoracle.pipeline.reader import Reader
from thoracle.records import BundleIdentity, Code, Reading
from thoracle.settings import Settings
from thoracle.store import files

PICTURES = {".png", ".jpg", ".jpeg"}


def images(paths: Iterable[Path]) -> list[Path]:
    """Return the files named, and the DICOM, PNG and JPEG files below the folders named."""
    return _files(paths, lambda path: path.suffix.lower() in PICTURES or is_dicom(path))


def dicom_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files named, and the DICOM files below the folders named."""
    return _files(paths, is_dicom)


def _files(paths: Iterable[Path], wanted: Any) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.is_file() and wanted(file))
        elif path.exists():
            found.append(path)
        else:
            raise ThoracleError(f"{path}: found nothing, required: a file or folder")
    return found


def analyse(
    settings: Settings, paths: Sequence[Path], out: Path | None
) -> Iterator[dict[str, Any]]:
    """Yield what is said of each image; write the objects of each study to ``out`` at the end.

    A PNG or JPEG file gets an answer and no report: a report must name a SOP Instance. So does an
    image that states no class, series or study.
    """
    identity = bundle.identify(settings.classify)
    content_datetime = datetime.now(UTC)
    classifier = load_classifier(settings.classify)
    studies: dict[str, list[tuple[Path, Reading]]] = {}
    with Decoder(settings.decode.memory_megabytes, settings.decode.timeout_seconds) as decoder:
        reader = Reader(settings, identity, decoder, lambda: classifier)
        for path, reading in zip(paths, reader.read_all(paths), strict=True):
            yield _answer(path, reading, identity)
            if out is not None and (study := _study(path, reading)):
                studies.setdefault(study, []).append((path, reading))
        for pairs in studies.values():
            made = reader.report(
                [path for path, _ in pairs],
                [reading for _, reading in pairs],
                content_datetime=content_datetime,
            )
            assert out is not None
            for one in made:
                files.write_durably(out / f"{one.kind}-{one.sop_instance_uid}.dcm", one.content)


def _study(path: Path, reading: Reading) -> str:
    """Return the study in which a report can name an image; empty when none can."""
    if not reading.sop_instance_uid:
        return ""
    ds = header_of(path)
    named = ds.get("SOPClassUID") and ds.get("SeriesInstanceUID")
    return str(ds.get("StudyInstanceUID") or "") if named else ""


def _answer(path: Path, reading: Reading, identity: BundleIdentity) -> dict[str, Any]:
    code, found = reading.reason.code if reading.reason else None, identity.finding
    return {
        "path": str(path),
        "sop_instance_uid": reading.sop_instance_uid or None,
        "finding": {**_plain(found.code), "name": found.name},
        "outcome": reading.outcome.value,
        "reason": code and _plain(code),
        "detail": reading.detail,
        "probability": reading.probability,
        "threshold": identity.decision.threshold,
        "limitations": list(reading.limitations),
        "bundle_digest": identity.digest,
        "seconds": round(sum(reading.seconds.values()), 4),
    }


def _plain(code: Code) -> dict[str, str]:
    return {"code": code.value, "scheme": code.scheme, "meaning": code.meaning}
