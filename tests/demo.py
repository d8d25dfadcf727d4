"""`make demo`: a small archive, the gateway and its pages, and radiographs over real associations.

What is printed for each image is read back from the objects that the archive now holds. The images
are those of pydicom-data, and synthetic ones made of them (`tests/synthetic.py`).
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.presentation import build_context
from rich.console import Console

import synthetic
from browsing import PASSWORD, Site
from gateway import AE_TITLE, Gateway
from pacs import Pacs, free_port

OBJECTS = (
    Comprehensive3DSRStorage,
    SecondaryCaptureImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
)
SECONDS = 900
"""Longest wait for one thing. A quiet machine needs less than a minute for all of it."""
EVERY = 15
"""Seconds between the lines that say what is waited for, where there is no terminal."""
PERSON = "demo"
console = Console(soft_wrap=True, highlight=False)


@dataclass
class Case:
    """A study that is sent, and what is said about it."""

    title: str
    why: str
    """What it shows, in a sentence."""
    ds: Dataset
    expected: str
    """How its answer begins."""
    late: Dataset | None = None
    """An image that comes when the study has its result."""
    withdrawn_because: str = ""
    accepted: bool = False
    answered_at: float = 0.0

    @property
    def study(self) -> str:
        """Return its Study Instance UID."""
        return str(self.ds.StudyInstanceUID)

    @property
    def accession(self) -> str:
        """Return its Accession Number."""
        return str(self.ds.AccessionNumber)


def cases() -> list[Case]:
    """Return all studies of the demonstration, each of a patient of its own."""
    before = synthetic.with_clear_lungs()
    found = [
        Case(
            "positive",
            "Synthetic: opacities painted into the lungs. The archive gets a heat map, too.",
            synthetic.with_opacities(0),
            "positive",
        ),
        Case(
            "negative",
            "Synthetic: the same chest, its lungs smoothed. Negative does not exclude the disease.",
            synthetic.with_clear_lungs(),
            "negative",
        ),
        Case(
            "indeterminate",
            "Real: RG1, a chest with nodules. The model is not confident.",
            real("RG1_UNCR.dcm"),
            "indeterminate",
        ),
        Case(
            "rejected",
            "Real: RG3, a leg. No answer, but a coded reason for having none.",
            real("RG3_UNCR.dcm"),
            "rejected",
        ),
        Case(
            "corrected",
            "Synthetic: an image comes late. It is read again; the new report names the old.",
            before,
            "negative",
            late=synthetic.with_opacities(3),
        ),
        Case(
            "withdrawn",
            "Real: RG1 in JPEG 2000. `thoracle withdraw` takes the result back, and says why.",
            real("RG1_J2KR.dcm"),
            "indeterminate",
            withdrawn_because="Images of another patient",
        ),
        Case(
            "declined",
            "Real: a CT slice. The listener accepts no CT when the association is negotiated.",
            real("CT_small.dcm"),
            "declined",
        ),
    ]
    for number, case in enumerate(found, 1):
        named(case.ds, number, case.title)
    for case in found:
        if case.late is not None:
            belongs_to(case.late, case.ds)
    return found


def real(name: str) -> Dataset:
    """Return an image of pydicom-data."""
    return dcmread(str(get_testdata_file(name, download=False)))


def named(ds: Dataset, number: int, title: str) -> None:
    """Give a study a patient and numbers of the demonstration."""
    ds.PatientName = f"DEMO^{title.upper()}"
    ds.PatientID = f"DEMO-{number}"
    ds.AccessionNumber = f"A260000{number}"
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    now = datetime.now(UTC)
    ds.StudyDate, ds.StudyTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"


def belongs_to(ds: Dataset, first: Dataset) -> None:
    """Make an image one of the study of another."""
    for keyword in (
        "PatientName",
        "PatientID",
        "AccessionNumber",
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "StudyDescription",
        "SeriesInstanceUID",
    ):
        setattr(ds, keyword, first[keyword].value)
    ds.InstanceNumber = 2


class Waiting:
    """Says what is waited for and since when: live on a terminal, else a line now and then."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._since = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._say, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Return how long it has waited."""
        return time.monotonic() - self._since

    def _say(self) -> None:
        if not console.is_terminal:
            while not self._done.wait(EVERY):
                console.print(f"  ... {self.what} ({self.seconds:.0f} s)")
            return
        with console.status("") as status:
            while not self._done.wait(0.2):
                status.update(f"{self.what} ({self.seconds:.0f} s)")


class NotDone(Exception):
    """Something did not come in time."""


def wait(what: Callable[[], str], hint: str) -> None:
    """Return when ``what`` returns nothing; meanwhile it returns what is waited for."""
    with Waiting(what()) as waiting:
        while text := what():
            waiting.what = text
            if waiting.seconds > SECONDS:
                raise NotDone(f"{text}: not done after {SECONDS} s. {hint}")
            time.sleep(0.2)


@dataclass
class Demo:
    """All of it while it runs."""

    folder: Path
    pacs: Pacs
    gateway: Gateway
    pages: Site
    cases: list[Case] = field(default_factory=list)

    @property
    def thoracle(self) -> str:
        """Return how the command is called here."""
        program = Path(sys.executable).with_name("thoracle")
        here = Path.cwd()
        return str(program.relative_to(here) if program.is_relative_to(here) else program)

    @property
    def hint(self) -> str:
        """Return where to look when something does not come."""
        return (
            f"See {self.gateway.log} and {self.pages.log}, and ask: "
            f"{self.thoracle} status --config {self.gateway.config}"
        )

    def run(self) -> None:
        """Send all studies, and wait for each answer, correction and withdrawal."""
        console.print("Sending 7 studies by C-STORE ...")
        self.cases = cases()
        self.send([(case, case.ds) for case in self.cases])
        taken = [case for case in self.cases if case.accepted]
        self.wait_for_reports({case.study: 1 for case in taken}, "the first loads the networks")
        again = {case.study: 2 for case in taken if case.late or case.withdrawn_because}
        for case in taken:
            if case.late is not None:
                self.send([(case, case.late)])
            if case.withdrawn_because:
                self.gateway.run("withdraw", case.accession, "--reason", case.withdrawn_because)
        self.wait_for_reports(again, "a late image, and a withdrawal")

    def send(self, images: list[tuple[Case, Dataset]]) -> None:
        """Send images over one association, as an archive that routes studies does."""
        ae = AE(ae_title="PACS")
        pairs = {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for _, ds in images}
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in sorted(pairs)]
        assoc = ae.associate("127.0.0.1", self.gateway.port, contexts, ae_title=AE_TITLE)
        if not assoc.is_established:
            raise NotDone(f"Thoracle took no association. {self.hint}")
        accepted = {context.abstract_syntax for context in assoc.accepted_contexts}
        for case, ds in images:
            if ds.SOPClassUID in accepted:
                case.accepted = assoc.send_c_store(ds).Status == 0x0000
                case.answered_at = time.time()
        assoc.release()

    def wait_for_reports(self, wanted: dict[str, int], why: str) -> None:
        """Return when the archive has so many whole reports of each study."""

        def missing() -> str:
            if self.gateway.process is None or self.gateway.process.poll() is not None:
                raise NotDone(f"Thoracle has ended. {self.hint}")
            left = sum(len(self.reports(study)) < number for study, number in wanted.items())
            number = len(wanted)
            return (
                f"waiting for reports: {number - left} of {number} are here; {why}" if left else ""
            )

        wait(missing, self.hint)

    def reports(self, study: str) -> list[Dataset]:
        """Return the reports of a study of which all heat maps are in the archive, too."""
        found = (ds for ds in self.pacs.reports_on(study) if ds.Modality == "SR")
        return [ds for ds in found if is_whole(ds, self.pacs)]


@contextmanager
def running(folder: Path) -> Iterator[Demo]:
    """Yield the demonstration with all its processes."""
    with ExitStack() as stack:
        pacs = stack.enter_context(Pacs(sop_classes=OBJECTS, commitment=True))
        gateway = Gateway(
            folder,
            pacs,
            complete={"quiet_after_release_seconds": 2},
            # By default a positive image alone gets a heat map; here there is one to look at.
            report={"sc": ["positive", "indeterminate", "negative"]},
            web={"port": free_port()},
        )
        roles = {PERSON: ["reader", "administrator", "auditor"]}
        stack.callback(gateway.__exit__)
        with Waiting("starting Thoracle, which listens when its database is ready"):
            gateway.start(SECONDS)
        pages = Site(folder, config=gateway.config, persons=roles)
        with Waiting("starting the pages"):
            pages.start(SECONDS)
        stack.callback(pages.__exit__)
        yield Demo(folder, pacs, gateway, pages)


def main() -> int:
    """Run the demonstration; 0 only if every study got its answer."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--keep", action="store_true", help="leave it running afterwards")
    arguments.add_argument("--end", action="store_true", help="end it even on a terminal")
    chosen = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="thoracle-demo-"))
    console.print(f"Everything is below [bold]{folder}[/bold]; nothing else is changed.")
    try:
        with running(folder) as demo:
            console.print(f"Thoracle listens as {AE_TITLE} on 127.0.0.1:{demo.gateway.port},")
            console.print(f"an archive as {demo.pacs.ae_title} on 127.0.0.1:{demo.pacs.port}.")
            demo.run()
            answered = [shown(number, case, demo) for number, case in enumerate(demo.cases, 1)]
            console.print("\nResearch software: none of this is a diagnosis.")
            kept = chosen.keep or (sys.stdin.isatty() and not chosen.end)
            suggest(demo, kept)
            if kept:
                wait_for_user()
            return 0 if all(answered) and demo.gateway.terminate() == 0 else 1
    except (NotDone, RuntimeError) as error:
        console.print(f"\nThe demo did not finish: {error}", markup=False)
        console.print(f"Files so far: {folder}", markup=False)
        return 1


def shown(number: int, case: Case, demo: Demo) -> bool:
    """Print what a study shows; return whether its answer is there."""
    console.print(f"\n[bold]{number}  {case.accession}  {case.title}[/bold]")
    console.print(f"   {case.why}", markup=False)
    if not case.accepted:
        declined = case.expected == "declined"
        console.print("   declined in the negotiation" if declined else "   NOT STORED")
        return declined
    reports = demo.reports(case.study)
    first, newest = reports[0], reports[-1]
    said = answer(first, str(case.ds.SOPInstanceUID))
    late = max(demo.pacs.arrived[first.SOPInstanceUID] - case.answered_at, 0)
    took = "" if case.late else f"   [{late:.1f} s after the image was acknowledged]"
    console.print(f"   {said}{took}", markup=False)
    if case.late is not None:
        console.print(f"   with the late image: {answer(newest, str(case.late.SOPInstanceUID))}")
    if len(reports) > 1:
        named = newest.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
        uid = named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        what = "withdraws" if case.withdrawn_because else "replaces"
        console.print(f"   report ...{newest.SOPInstanceUID[-12:]} {what} ...{uid[-12:]}")
    for image in demo.pacs.reports_on(case.study):
        if "PixelData" in image:
            path = demo.folder / f"{case.title}.heat-map.png"
            Image.fromarray(image.pixel_array).save(path)
    kept(case, demo.folder)
    if not said.startswith(case.expected):
        console.print(f"   (expected {case.expected}: another bundle may read it so)")
    return "NO OUTCOME" not in said


def kept(case: Case, folder: Path) -> None:
    """Write the images of a study as files."""
    case.ds.save_as(folder / f"{case.title}.dcm", enforce_file_format=True)
    if case.late is not None:
        case.late.save_as(folder / f"{case.title}-late.dcm", enforce_file_format=True)


def suggest(demo: Demo, kept: bool) -> None:
    """Print the page to look at, and commands that work as they are printed."""
    config = f"--config {demo.gateway.config}"
    if kept:
        console.print(f"\nThe worklist: [bold]{demo.pages.url}[/bold]")
        console.print(f"   log in as [bold]{PERSON}[/bold], password [bold]{PASSWORD}[/bold]")
    else:
        console.print("\n`make demo ARGS=--keep` leaves it running, with its pages.")
    console.print(f"Images and heat maps: {demo.folder}/*.dcm, *.heat-map.png")
    console.print("\nNext, try:")
    for why, command in (
        ("What happened to the corrected study?", f"audit why {demo.cases[4].accession} {config}"),
        ("Has anybody changed the audit log?", f"audit verify {config}"),
        ("The same pipeline on files:", f"analyse {demo.folder}/positive.dcm {config}"),
    ):
        console.print(f"   {why}\n      {demo.thoracle} {command}", markup=False)


def is_whole(ds: Dataset, pacs: Pacs) -> bool:
    """Return whether the heat maps of a report are in the archive."""
    return all(
        item.ReferencedSOPInstanceUID in pacs.kept
        for study in ds.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
        if item.ReferencedSOPClassUID == SecondaryCaptureImageStorage
    )


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


def wait_for_user() -> None:
    """Leave all running until Control-C."""
    console.print("\nRunning; Control-C ends it.")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("Ending ...")


if __name__ == "__main__":
    sys.exit(main())
