"""A ward that works: a gateway, its archive, its pages, and studies with real results."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import generate_uid

from browsing import Site
from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from test_proof import ALWAYS, OBJECTS

PERSONS = {
    "reader": ["reader"],
    "administrator": ["administrator"],
    "auditor": ["auditor"],
    "chief": ["reader", "administrator", "auditor"],
}
VIEWER = "https://viewer.example/?study={StudyInstanceUID}&patient={PatientID}"
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'; DROP TABLE x; --{{191*193}}"
HELD = "HELD"
"""Accession Number of studies that a rule holds."""


@dataclass
class Ward:
    """All of it, while it runs."""

    gateway: Gateway
    archive: Pacs
    site: Site
    studies: dict[str, str] = field(default_factory=dict)
    """Study Instance UID by a name of ours."""

    def send(self, *images: Dataset) -> str:
        """Send the images of one study, and return its UID when its result is there and sent."""
        for image in images:
            assert send(self.gateway.port, image).status == 0x0000
        study = str(images[0].StudyInstanceUID)
        concluded(self.gateway, study)
        eventually(lambda: not self.states(study) & {"waiting", "sent"})
        return study

    def states(self, study: str) -> set[str]:
        """Return the states of a study's deliveries."""
        statement = (
            "SELECT DISTINCT state FROM outbox JOIN result USING (sop_instance_uid) "
            "WHERE study_instance_uid = ? AND outbox.kind = 'dicom'"
        )
        return {row["state"] for row in rows(self.gateway, statement, study)}


def of_study(number: int, **attributes: object) -> list[Dataset]:
    """Return images of a new study of a patient of its own, the second of them a lateral."""
    study = generate_uid()
    views = ("PA", "LL")[:number]
    return [chest(StudyInstanceUID=study, ViewPosition=view, **attributes) for view in views]


@contextmanager
def ward(folder: Path) -> Iterator[Ward]:
    """Yield a ward with a study of each kind."""
    rule = {"name": "hold", "when": f'AccessionNumber == "{HELD}"', "hold": True}
    pictures = {"sc": ALWAYS, "pr": ALWAYS}
    with Pacs("ARCHIVE", OBJECTS) as archive:
        gateway = Gateway(
            folder,
            archive,
            lists={"rule": [rule]},
            report=pictures,
            web={"port": free_port(), "viewer_url": VIEWER, "site_name": "Ward 1"},
        )
        with gateway, Site(folder, config=gateway.config, persons=PERSONS) as site:
            here = Ward(gateway, archive, site)
            here.studies = {
                "plain": here.send(*of_study(1, PatientID="P7&?", IssuerOfPatientID="H")),
                "two": here.send(*of_study(2, PatientID="P7&?", IssuerOfPatientID="H")),
                "stranger": here.send(*of_study(1, PatientID="P7&?", IssuerOfPatientID="OTHER")),
                "hand": here.send(*of_study(1, BodyPartExamined="HAND", PatientID="P8")),
                "held": here.send(*of_study(1, AccessionNumber=HELD, PatientID="P9")),
            }
            yield here
