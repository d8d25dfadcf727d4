"""`make demo`: a small archive, the gateway, and real radiographs over a real association.

What is printed for each image is read back from the objects that the archive now holds.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE
from pynetdicom.presentation import build_context
from rich.console import Console

from browsing import Site
from gateway import AE_TITLE, Gateway
from pacs import Pacs, free_port
from thoracle.study import reading_list

IMAGES = {
    "RG1_UNCR.dcm": "chest, CR, MONOCHROME1, 15 bit, uncompressed",
    "RG1_J2KR.dcm": "the same chest, JPEG 2000",
    "RG3_UNCR.dcm": "an extremity, CR",
    "CT_small.dcm": "a CT slice",
}
OBJECTS = (Comprehensive3DSRStorage, SecondaryCaptureImageStorage)
TIMEOUT = 120.0
console = Console(soft_wrap=True, highlight=False)


@dataclass
class Sent:
    """An image on its way."""

    name: str
    ds: Dataset
    accepted: bool = False
    answered_at: float = 0.0


def main() -> int:
    """Run the demonstration; 0 only if every image got its answer."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--keep", action="store_true", help="leave it running afterwards")
    keep = arguments.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="thoracle-demo-"))
    console.print(f"Everything is below [bold]{folder}[/bold]")
    with Pacs(sop_classes=OBJECTS, commitment=True) as pacs:
        gateway = Gateway(
            folder,
            pacs,
            complete={"quiet_after_release_seconds": 2},
            # By default a positive image alone gets a heat map; here there is one to look at.
            report={"sc": ["positive", "indeterminate", "negative"]},
            web={"port": free_port()},
        )
        # Nobody is known to the pages: the first administrator is made by the token of --keep.
        pages = Site(folder, config=gateway.config, persons={})
        with console.status("starting Thoracle and an archive ..."), gateway, pages:
            console.print(f"Thoracle listens as {AE_TITLE} on 127.0.0.1:{gateway.port}")
            console.print(f"An archive listens as {pacs.ae_title} on 127.0.0.1:{pacs.port}\n")
            sent = send(gateway.port)
            wait(pacs, sent)
            answered = [report(one, pacs, folder) for one in sent]
            answered.append(listed(pages, sent))
            console.print("\nResearch software: none of this is a diagnosis.")
            if keep:
                wait_for_user(gateway, pages, pacs)
            return 0 if all(answered) and gateway.terminate() == 0 else 1


def send(port: int) -> list[Sent]:
    """Send the images over one association, as an archive that routes a study does."""
    sent = [Sent(name, dcmread(str(get_testdata_file(name, download=False)))) for name in IMAGES]
    ae = AE(ae_title="PACS")
    contexts = {(one.ds.SOPClassUID, one.ds.file_meta.TransferSyntaxUID) for one in sent}
    assoc = ae.associate(
        "127.0.0.1",
        port,
        [build_context(sop_class, syntax) for sop_class, syntax in sorted(contexts)],
        ae_title=AE_TITLE,
    )
    accepted = {context.abstract_syntax for context in assoc.accepted_contexts}
    for one in sent:
        if one.ds.SOPClassUID in accepted:
            one.accepted = assoc.send_c_store(one.ds).Status == 0x0000
            one.answered_at = time.time()
    assoc.release()
    return sent


def wait(pacs: Pacs, sent: list[Sent]) -> None:
    """Show progress until each study that was taken has its report."""
    studies = {one.ds.StudyInstanceUID for one in sent if one.accepted}
    deadline = time.monotonic() + TIMEOUT
    with console.status("") as status:
        while time.monotonic() < deadline:
            done = {ds.StudyInstanceUID for ds in pacs.datasets() if is_whole(ds, pacs)}
            status.update(f"waiting for reports: {len(done & studies)} of {len(studies)} studies")
            if studies <= done:
                return
            time.sleep(0.1)


def is_whole(ds: Dataset, pacs: Pacs) -> bool:
    """Return whether an object is a report of which the heat maps are in the archive, too."""
    return bool(ds.Modality == "SR") and all(
        item.ReferencedSOPInstanceUID in pacs.kept
        for study in ds.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
        if item.ReferencedSOPClassUID == SecondaryCaptureImageStorage
    )


def report(one: Sent, pacs: Pacs, folder: Path) -> bool:
    """Print the lines of one image; return whether it got its answer."""
    console.print(f"[bold]{one.name}[/bold] ({IMAGES[one.name]})")
    if not one.accepted:
        declined = bool(one.ds.Modality == "CT")
        console.print("  declined in negotiation" if declined else "  NOT STORED")
        return declined
    objects = pacs.reports_on(one.ds.StudyInstanceUID)
    reports = [ds for ds in objects if ds.Modality == "SR"]
    if not reports:
        console.print("  NO REPORT")
        return False
    newest = reports[-1]
    last = max(pacs.arrived[newest.SOPInstanceUID] - one.answered_at, 0)
    console.print(f"  {answer(newest, one.ds.SOPInstanceUID)}")
    console.print(f"  SR {newest.SOPInstanceUID}, {last:.1f} s after the C-STORE response")
    for shown in objects:
        source = shown.get("SourceImageSequence", [Dataset()])[0]
        if source.get("ReferencedSOPInstanceUID") == one.ds.SOPInstanceUID:
            path = folder / f"{one.name}.heat-map.png"
            Image.fromarray(shown.pixel_array).save(path)
            console.print(f"  heat map {path}")
    return True


def answer(report_ds: Dataset, sop_instance_uid: str) -> str:
    """Return what a report says of one image, from its codes."""
    said: dict[str, str] = {}
    for item in walk(report_ds):
        if refers_to(item, sop_instance_uid):
            for one in item.ContentSequence if item.ValueType == "CONTAINER" else [item]:
                said |= coded(one)
    outcome = {"Present": "positive", "Absent": "negative", "Undetermined": "indeterminate"}
    text = outcome.get(said.get("COVID-19", ""), "NO OUTCOME")
    if "Probability" in said:
        return f"{text}, probability {said['Probability']}"
    reason = next((v for k, v in said.items() if k.startswith("Reason")), "")
    return f"rejected: {reason}"


def walk(item: Dataset) -> list[Dataset]:
    """Return the content items below one, itself first."""
    children = item.get("ContentSequence") or []
    return [item] + [below for child in children for below in walk(child)]


def refers_to(group: Dataset, sop_instance_uid: str) -> bool:
    """Return whether a measurement group, or a code outside of one, is about an image."""
    name = group.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in group else ""
    return (name == "125007" or group.get("ValueType") == "CODE") and any(
        reference.ReferencedSOPInstanceUID == sop_instance_uid
        for child in group.get("ContentSequence") or []
        for reference in child.get("ReferencedSOPSequence", [])
    )


def coded(item: Dataset) -> dict[str, str]:
    """Return concept name and value of a CODE or NUM item."""
    name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
    if item.ValueType == "CODE":
        code = item.ConceptCodeSequence[0]
        return {
            name: f"{code.CodeMeaning} ({code.CodeValue}, {code.CodingSchemeDesignator})"
            if name.startswith("Reason")
            else code.CodeMeaning
        }
    if item.ValueType == "NUM" and item.MeasuredValueSequence:
        value = item.MeasuredValueSequence[0]
        return {name: f"{value.NumericValue} {value.MeasurementUnitsCodeSequence[0].CodeValue}"}
    return {}


def listed(pages: Site, sent: list[Sent]) -> bool:
    """Print the worklist as its pages show it; return whether it has every study that was taken."""
    with pages.database.connect() as connection:
        rows = reading_list.page(connection, reading_list.Filter())
    console.print(f"\nThe worklist ({pages.url} shows it, live):")
    for row in rows:
        probability = "" if row.probability is None else f" {100 * row.probability:.1f} %"
        console.print(f"  {row.ai_state}{probability}: {row.study_instance_uid}")
    taken = {str(one.ds.StudyInstanceUID) for one in sent if one.accepted}
    return taken <= {row.study_instance_uid for row in rows}


def wait_for_user(gateway: Gateway, pages: Site, pacs: Pacs) -> None:
    """Leave all running until Control-C."""
    console.print()
    for line in pages.log.read_text(encoding="utf-8").splitlines()[:2]:  # how to log in
        console.print(line)
    console.print(f"\nRunning. Try: thoracle send {AE_TITLE}@127.0.0.1:{gateway.port} FILE")
    console.print(f"or: thoracle status --config {gateway.config}")
    console.print("Control-C ends it.")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        console.print(f"{len(pacs.kept)} objects in the archive")


if __name__ == "__main__":
    sys.exit(main())
