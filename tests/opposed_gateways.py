"""Two gateways that keep back the results of the same studies, one positive and one negative."""

import json
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydicom import Dataset
from pydicom.uid import generate_uid

from api_tokens import token
from browsing import Site
from bundles import SHIPPED
from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from thoracle.classify import bundle
from thoracle.pipeline import requests
from workflow import Reader, Station

PERSONS = {"reader": ["reader"], "chief": ["reader", "administrator", "auditor"]}
SCOPES = ("worklist:read", "results:read", "verdicts:write", "fhir:read")
STUDIES: dict[str, dict[str, Any]] = {
    "before": {"BodyPartExamined": "HAND", "PatientID": "P1"},
    "held": {"AccessionNumber": "HELD", "PatientID": "P2"},
    "shadow": {"AccessionNumber": "SHADOW", "PatientID": "P2"},
    "again": {"AccessionNumber": "HELD", "PatientID": "P2"},
    "withdrawn": {"AccessionNumber": "HELD", "PatientID": "P3"},
    "after": {"BodyPartExamined": "HAND", "PatientID": "P2"},
}
"""In this order; two are rejected, whatever the model thinks, and sent."""
RULES: list[dict[str, Any]] = [
    {"name": "held", "when": 'AccessionNumber == "HELD"', "hold": True},
    {"name": "shadow", "when": 'AccessionNumber == "SHADOW"', "shadow": True},
    # Whatever else may follow from a result.
    {"name": "urgent", "when": 'result.outcome == "positive"', "priority": "stat"},
    {
        "name": "images",
        "when": 'result.outcome == "positive"',
        "send": ["archive"],
        "originals": True,
        "notify": ["ups"],
    },
    {"name": "all", "send": ["archive"]},
]


@dataclass
class House:
    """A gateway with its pages, and what is random in what it says."""

    gateway: Gateway
    site: Site
    station: Station
    outcome: str
    digest: str
    ours: dict[str, str] = field(default_factory=dict)
    """SOP Instance UID of what it made -> what stands for it."""
    clients: dict[str, httpx.Client] = field(default_factory=dict)
    """By person, signed in by a browser; with ``token of``, by an API token of that person."""

    def without_random(self, text: str) -> str:
        """Return an answer without times, the UIDs of results, and random values."""
        for pattern, stands_for in RANDOM:
            text = pattern.sub(stands_for, text)
        text = text.replace(f":{self.site.port}", ":PORT")
        return UID.sub(lambda found: self.ours.get(found[0], found[0]), text)

    def report(self, study: str) -> str:
        """Return the report on a study that is kept back."""
        statement = "SELECT sop_instance_uid FROM result WHERE study_instance_uid = ? "
        found = rows(self.gateway, f"{statement} AND kind = 'sr' ORDER BY generation DESC", study)
        return str(found[0]["sop_instance_uid"])


UID = re.compile(r"\b(?:2\.25\.\d{10,}|[0-2](?:\.\d+){5,})\b")
RANDOM = (
    (re.compile(r'<figure class="chart" aria-labelledby="times-.*?</figure>', re.S), "TIMES"),
    (re.compile(r"nonce[-=]\"?[\w+/=-]+"), "NONCE"),
    (re.compile(r"view=\d+-[0-9a-f]{64}"), "view=PASS"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "DIGEST"),  # of the bundle; tokens of forms
    (re.compile(r"\b[0-9a-f]{12}\b"), "DIGEST12"),
    (
        re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d(:|%3A)\d\d((:|%3A)\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?"),
        "T",
    ),
    (re.compile(r"\b\d+(\.\d+)? (s|min|ms)\b"), "DURATION"),
    (re.compile(r"\b20\d{12}(\.\d+)?([+-]\d{4})?\b"), "T"),
    # The bundles differ, so their digests do, and what a report derives from them.
    (re.compile(r"(Device Observer (?:UID|Serial Number):</span> )[\w.]+"), r"\1DEVICE"),
    (re.compile(r"offset\([+-][0-9.]+\)"), "OFFSET"),  # how the one bundle was made positive
)
"""What differs between two gateways, whatever they are told: pattern, and what stands for it."""


def turned(folder: Path, offset: float) -> Path:
    """Return a copy of the shipped bundle whose calibration makes of every image the same."""
    made = folder / "bundle"
    shutil.copytree(SHIPPED, made, ignore=shutil.ignore_patterns("scripts", "__pycache__"))
    path = made / "models" / "decision.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "offset": offset}))
    return made


def images() -> dict[str, Dataset]:
    """Return one image of each of the studies, the same for both."""
    return {
        name: chest(StudyInstanceUID=generate_uid(), **attributes)
        for name, attributes in STUDIES.items()
    }


def open_house(stack: ExitStack, folder: Path, archive: Pacs, outcome: str) -> House:
    """Start a gateway that finds all studies positive, or negative, and its pages."""
    model = turned(folder, {"positive": 40.0, "negative": -40.0}[outcome])
    digest = bundle.digest(model)
    station = stack.enter_context(Station())
    gateway = Gateway(
        folder,
        archive,
        lists={"rule": RULES, "subscriber": [_subscriber(station)]},
        classify={"bundle": str(model), "digest": digest},
        ups={"offer": True, "outcomes": ["positive"]},
        web={"port": free_port()},
    )
    stack.enter_context(gateway)
    site = stack.enter_context(Site(folder, config=gateway.config, persons=PERSONS))
    return House(gateway, site, station, outcome, digest)


def _subscriber(station: Station) -> dict[str, Any]:
    return {"ae_title": station.ae_title, "host": "127.0.0.1", "port": station.port}


def fill(house: House, sent: dict[str, Dataset]) -> None:
    """Have a gateway read the studies, one of them twice, and withdraw one that is held."""
    with Reader(house.gateway.port) as reader:
        assert reader.subscribe(house.station.ae_title) == 0
    for image in sent.values():
        assert send(house.gateway.port, image).status == 0x0000
        concluded(house.gateway, image.StudyInstanceUID)
    database = house.site.database
    requests.reanalyse(database, str(sent["again"].StudyInstanceUID), "test")
    requests.withdraw(database, str(sent["withdrawn"].StudyInstanceUID), "test", "test")
    house.gateway.wait_for_event("result withdrawn", sent["withdrawn"].StudyInstanceUID)
    twice = "SELECT 1 FROM analysis WHERE generation = 2 AND state = 'done'"
    eventually(lambda: rows(house.gateway, twice))
    open_ = "SELECT 1 FROM outbox WHERE state IN ('waiting', 'sent')"
    eventually(lambda: not rows(house.gateway, open_))
    said = "SELECT outcome FROM analysis WHERE sending IN ('held', 'shadow')"
    assert {one["outcome"] for one in rows(house.gateway, said)} == {house.outcome}
    kinds = "SELECT * FROM result WHERE kind != 'original' ORDER BY study_instance_uid, generation"
    for one in rows(house.gateway, kinds):
        for name in ("sop_instance_uid", "series_instance_uid"):
            house.ours[one[name]] = f"{one['kind']} {name} of {one['study_instance_uid']}"


def sign_in(stack: ExitStack, house: House) -> None:
    """Sign everybody in once: log-ins from one address are limited."""
    scopes = {"token of reader": SCOPES, "token of chief": SCOPES, "metrics of chief": ("admin",)}
    for person in PERSONS:
        house.clients[person] = stack.enter_context(house.site.client(person))
    for name, some in scopes.items():
        secret = token(house.site.database, name.rpartition(" ")[2], *some)
        headers = {"Authorization": f"Bearer {secret}"}
        house.clients[name] = stack.enter_context(house.site.visitor(headers=headers))


@dataclass(frozen=True)
class Pair:
    """Both gateways, and the UIDs of the studies that both have."""

    houses: tuple[House, House]
    studies: dict[str, str]
