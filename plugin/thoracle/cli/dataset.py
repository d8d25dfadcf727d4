"""`thoracle dataset`: its commands. Each imports what it needs when it runs, as in ``cli``."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from thoracle.cli.options import JsonOption, err, out, print_json, say, with_progress

app = typer.Typer(
    help="Check sets of images for leaks, and convert them to DICOM.", no_args_is_help=True
)
Found = TypeVar("Found")

FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="Folder that contains Dataset/, or any tree of images."),
]
ManifestOption = Annotated[
    Path | None,
    typer.Option(help="CSV with path, patient_id, view, ...; default: manifest.csv near PATH."),
]


class SopClass(StrEnum):
    """Which kind of DICOM object an image becomes."""

    DX = "dx"
    SC = "sc"


@app.command("check")
def check_command(
    path: FolderArgument,
    as_json: JsonOption = False,
    split: Annotated[
        Path | None, typer.Option(help="CSV file to write: a split without the leaks.")
    ] = None,
    manifest: ManifestOption = None,
    crops: Annotated[
        bool, typer.Option(help="Also find copies with another border (slow).")
    ] = True,
) -> None:
    """Find leaks between Train, Val and Prediction, and what gives the class away.

    Exit code 1 when parts share images or patients, or a file is unreadable, unless a split
    file without them was written.
    """
    from thoracle.dataset import fingerprint, groups, layout
    from thoracle.dataset.check import check
    from thoracle.dataset.show import show, show_split
    from thoracle.store import files

    entries = layout.entries(path, manifest)
    measured = with_progress(fingerprint.fingerprints(entries), len(entries), "reading")
    report = check(measured, _comparing if crops else None)
    if as_json:
        print_json(report.to_json())
    else:
        show(report, out)
    if split is not None:
        files.write_durably(split, groups.split_file(report.places).encode())
        if not as_json:
            show_split(report, out)
        return
    raise typer.Exit(1 if report.leaks or report.unreadable else 0)


@app.command("convert")
def convert_command(
    path: FolderArgument,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the DICOM files.")],
    sop_class: Annotated[
        SopClass,
        typer.Option(help="dx: DX Image Storage For Presentation; sc: Secondary Capture."),
    ] = SopClass.DX,
    manifest: ManifestOption = None,
) -> None:
    """Convert PNG and JPEG images to DICOM files, keeping the folders below PATH.

    The same image always becomes the same bytes. Exit code 1 when an image could not be
    converted; each is named, and the others are.
    """
    from thoracle.dataset import convert, layout

    entries = layout.entries(path, manifest)
    faults = 0
    converted = convert.convert(entries, folder, sop_class.value)
    for entry, fault in with_progress(converted, len(entries), "converting"):
        if fault:
            faults += 1
            err.print(f"{entry.name}: {fault}", markup=False, highlight=False, soft_wrap=True)
    done = len(entries) - faults
    say(f"{done} images converted, {faults} not")
    raise typer.Exit(1 if faults else 0)


def _comparing(images: list[Found]) -> Iterator[Found]:
    return with_progress(images, len(images), "comparing")
