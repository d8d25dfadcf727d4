"""The pictures on the page of a study: no row of the audit each, and none without the page.

A page is one view, and one row. So its pictures are given only to who holds the pass that the page
was sent with: it names person and study, ends by itself, and is worth nothing to anybody else. No
pixel is seen that no row tells of.
"""

import contextlib
import hashlib
import hmac
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydicom import Dataset, dcmread
from sqlalchemy import Engine
from starlette.responses import Response

from thoracle.accounts import login_rows
from thoracle.errors import ObjectsAway, ThoracleError
from thoracle.image.codecs import LONGEST_DETAIL, MALFORMED
from thoracle.records import Kind, Outcome, Reason, SaliencyKind
from thoracle.settings import Settings
from thoracle.store import objects, rights
from thoracle.store.object_files import Objects
from thoracle.study import rows as studies
from thoracle.study.rows import StudyRows
from thoracle.web.pages.rendering import GREY_VALUES, SIGNATURE, Order
from thoracle.web.parameters import RowId
from thoracle.web.session.access import Person, anyone, sees_kept_back
from thoracle.web.site import Site, site_of

# ---- pictures on disk ----------------------------------------------------------------------------
# Pictures for the page of a study: made once, by a child process, and kept below the data folder.
#
# A picture is kept under the SHA-256 of what it is made of, so a corrected image has another.
# What was not looked at for longest goes when there are too many; none is the only copy of
# anything.

EDITION = "2"
"""Changes when the same files make another picture."""
LARGEST_ALBUM = 1024 * 2**20
"""Bytes of all pictures kept."""
AT_A_TIME = 2
"""Pictures under way: each may take the memory that ``[decode]`` allows."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")

_places = threading.BoundedSemaphore(AT_A_TIME)


class NoPicture(ThoracleError):
    """There is no picture, for a reason that can be shown: it has no patient data."""


def stored_picture(settings: Settings, order: Order, digests: Sequence[str]) -> bytes:
    """Return the PNG file that an order asks for.

    Parameters
    ----------
    order
        Paths below the data folder.
    digests
        SHA-256 of the files in it.

    Raises
    ------
    NoPicture
        The image cannot be decoded, or not within the limits of ``[decode]``.
    """
    name = _name(order, digests)
    folder = settings.data_folder / rights.PICTURES
    kept = folder / name[:2] / f"{name}.png"
    with contextlib.suppress(OSError):
        found = kept.read_bytes()
        os.utime(kept)
        return found
    made = _made(settings, order)
    with contextlib.suppress(OSError):  # e.g. a full disk: a picture is shown without being kept
        _keep(kept, made, 0o770 if settings.data_folder_group else 0o700)
        _make_room(folder)
    return made


def _name(order: Order, digests: Sequence[str]) -> str:
    parts = {"edition": EDITION, "order": order, "digests": list(digests)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _made(settings: Settings, order: Order) -> bytes:
    limits = settings.decode
    kept = objects.of(settings)

    def file(below: str) -> str:
        try:
            return str(kept.local(below).absolute())
        except ObjectsAway:
            raise
        except ThoracleError as error:  # a row that names a file elsewhere
            raise NoPicture(str(error)) from error

    absolute = Order(
        kind=order["kind"],
        image=file(order["image"]),
        states=[file(one) for one in order["states"]],
        heat_map=file(order["heat_map"]) if order["heat_map"] else "",
    )
    limit = [str(limits.memory_megabytes), str(limits.timeout_seconds)]
    # A file, because the system keeps the child from filling it; a pipe would take any amount.
    with _places, tempfile.TemporaryFile() as answer:
        try:
            status = subprocess.run(
                [sys.executable, "-P", "-m", "thoracle.web.pages.rendering", *limit],
                input=json.dumps(absolute).encode(),
                stdout=answer,
                stderr=subprocess.DEVNULL,  # its traceback may quote the patient's name
                timeout=limits.timeout_seconds,
                check=False,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
                | {"OPENBLAS_NUM_THREADS": "1"},  # each of its threads reserves address space
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise NoPicture(
                f"making it took longer than the {limits.timeout_seconds:g} seconds allowed"
            ) from error
        answer.seek(0)
        made = answer.read()
    if status != 0:
        raise NoPicture("the rendering process ended without a picture")
    if not made.startswith((SIGNATURE, GREY_VALUES)):
        raise NoPicture(made[:LONGEST_DETAIL].decode("utf-8", "replace"))
    return made


def _keep(path: Path, made: bytes, mode: int) -> None:
    # Old ones are deleted by the gateway, which may be another user.
    path.parent.mkdir(parents=True, exist_ok=True, mode=mode)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        file.write(made)
    Path(file.name).replace(path)


def _make_room(folder: Path) -> None:
    """Delete what was not looked at for longest, until the rest is small enough."""
    found = sorted((one.stat().st_mtime, one.stat().st_size, one) for one in folder.glob("*/*"))
    size = sum(length for _, length, _ in found)
    for _, length, path in found:
        if size <= LARGEST_ALBUM:
            return
        path.unlink(missing_ok=True)
        size -= length


router = APIRouter()

# ---- the route -----------------------------------------------------------------------------------

PASS_SECONDS = 12 * 3600
"""A page may stay open for a day's work."""
RADIOGRAPH, OVERLAY, KEY_IMAGE, PIXELS = "radiograph", "overlay", "key-image", "pixels"


def pass_for(site: Site, person: Person, study_instance_uid: str) -> str:
    """Return what lets a person see the pictures of a study: part of their address."""
    until = int(time.time()) + PASS_SECONDS
    return f"{until}-{_signature(site, person, study_instance_uid, until)}"


@cache
def key(database: Engine) -> bytes:
    """Return the key of passes, which all processes of pages have: another may send the pictures.

    The first call, at the start of a process, may write.
    """
    with database.begin() as connection:
        return login_rows.key(connection, login_rows.PICTURES)


def _signature(site: Site, person: Person, study_instance_uid: str, until: int) -> str:
    text = f"{until}\0{study_instance_uid}\0{person.name}"
    return hmac.new(key(site.database), text.encode(), hashlib.sha256).hexdigest()


def _may(site: Site, person: Person, study_instance_uid: str, shown: str) -> bool:
    until, _, signature = shown.partition("-")
    if not until.isdecimal() or len(until) > 12 or int(until) < time.time():
        return False
    expected = _signature(site, person, study_instance_uid, int(until))
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))


@router.get("/study/{uid}/{kind}/{number}.png")
def picture(
    request: Request,
    uid: str,
    kind: str,
    number: RowId,
    view: Annotated[str, Query(max_length=128)],
    person: Annotated[Person, Depends(anyone)],
) -> Response:
    """Return a picture of an image of a study: the radiograph, what lies on it, or its key image.

    ``pixels`` are its grey values, whatever the name of the file says.

    Not kept by browsers, which all answers with patients are not: a reading room is shared.
    """
    site = site_of(request)
    if not _may(site, person, uid, view):
        raise HTTPException(403, "reload the page of the study")
    with site.database.connect() as connection:
        rows = studies.rows(connection, uid, with_kept_back=sees_kept_back(request, person))
    if rows is None or not 1 <= number <= len(rows.images):
        raise HTTPException(404, "there is no such image")
    try:
        asked = order(site.settings, rows, rows.images[number - 1], kind)
        if asked is None:
            raise HTTPException(404, "there is no such picture")
        made = stored_picture(site.settings, *asked)
    except ObjectsAway as error:
        raise HTTPException(503, "the object store does not answer; try again later") from error
    except NoPicture as error:
        raise HTTPException(422, f"this image cannot be shown: {error}") from error
    kept = made.startswith(GREY_VALUES)
    return Response(made, media_type="application/octet-stream" if kept else "image/png")


def address(study_instance_uid: str, kind: str, number: int, view: str) -> str:
    """Return the address of a picture on a page that was sent with the pass ``view``."""
    return f"/study/{quote(study_instance_uid, safe='')}/{kind}/{number}.png?view={view}"


def order(
    settings: Settings, rows: StudyRows, image: Any, kind: str
) -> tuple[Order, Sequence[str]] | None:
    """Return what is to be made and the digests of its files; ``None`` when there is nothing."""
    if kind != KEY_IMAGE and image.file_state != "kept":
        return None
    if kind in (RADIOGRAPH, PIXELS):
        if not is_decodable(rows, image.sop_instance_uid):
            return None
        return Order(kind=kind, image=image.path, states=[], heat_map=""), [image.sha256]
    if kind == KEY_IMAGE:
        found = _about(settings, rows, Kind.SC, image.sop_instance_uid)
        if not found:
            return None
        ours = Order(kind=kind, image=found[0].path, states=[], heat_map="")
        return ours, [found[0].sha256]
    if kind == OVERLAY:
        states = _about(settings, rows, Kind.PR, image.sop_instance_uid)
        maps = _heat_maps(settings, rows, image.sop_instance_uid)
        if not states and not maps:
            return None
        laid = Order(
            kind=kind,
            image=image.path,
            states=[one.path for one in states],
            heat_map=maps[0].path if maps else "",
        )
        return laid, [image.sha256, *(one.sha256 for one in (*states, *maps[:1]))]
    return None


def is_decodable(rows: StudyRows, sop_instance_uid: str) -> bool:
    """Return whether it is worth a try: what the gateway could not decode, nobody tries again."""
    found = rows.readings.get(sop_instance_uid)
    return found is None or found.reason_code not in (
        Reason.UNDECODABLE.code.value,
        Reason.NO_IMAGE.code.value,
    )


def _about(settings: Settings, rows: StudyRows, kind: Kind, sop_instance_uid: str) -> list[Any]:
    """Return the results of a kind that refer to an image."""
    found = [one for one in rows.results if one.kind == kind and one.file_state == "kept"]
    kept = objects.of(settings)
    return [one for one in found if sop_instance_uid in _referenced(kept, one.path)]


def _heat_maps(settings: Settings, rows: StudyRows, sop_instance_uid: str) -> list[Any]:
    """Return the pictures of an image that have colours: those of positive images alone."""
    reading = rows.readings.get(sop_instance_uid)
    mapped = rows.model is None or rows.model.finding.saliency is not SaliencyKind.NONE
    if reading is None or reading.outcome != Outcome.POSITIVE or not mapped:
        return []
    return _about(settings, rows, Kind.SC, sop_instance_uid)


@lru_cache(4096)
def _referenced(kept: Objects, below: str) -> frozenset[str]:
    """Return the instances to which an object of ours refers; no such file is ever changed."""
    try:
        ds = dcmread(kept.local(below), stop_before_pixels=True)
        return frozenset(
            str(element.value)
            for element in ds.iterall()
            if element.keyword == "ReferencedSOPInstanceUID"
        )
    except ObjectsAway:
        raise
    except (*MALFORMED, OSError, ThoracleError):
        return frozenset()


def header(settings: Settings, image: Any) -> Dataset:
    """Return what the page says of an image from its header; empty when it cannot be read."""
    if image.file_state != "kept":
        return Dataset()
    try:
        path = objects.of(settings).local(image.path)
        return dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except (*MALFORMED, OSError, EOFError, RecursionError, ThoracleError):
        return Dataset()


_TAGS = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "SeriesDescription",
    "Modality",
    "ViewPosition",
    "InstanceNumber",
    "Rows",
    "Columns",
    "StationName",
    "ManufacturerModelName",
    "InstitutionName",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "ImagerPixelSpacing",
)
