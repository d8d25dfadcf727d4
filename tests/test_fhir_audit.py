"""AuditEvents of FHIR R4 over real HTTP, each of which two libraries of others take."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from api_tokens import token
from browsing import Site
from documents import DOCS
from fhir_server import checked
from test_web_audit import HOSTILE, PERSONS, STUDY, filled
from thoracle.audit import search
from thoracle.fhir import elements
from thoracle.fhir.rows import Token
from thoracle.store import trail
from thoracle.store.trail import Columns, Event
from thoracle.web.api import fhir_search

SPAN = [("date", "ge2020-01-01"), ("date", "lt2100")]
Pairs = list[tuple[str, str]]


@dataclass
class Served:
    """Pages with an audit, and a token for it."""

    site: Site
    token: str

    def get(self, path: str, *pairs: tuple[str, str]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.get(
            f"{self.site.url}/fhir/{path}", params=pairs or None, headers=headers, timeout=60
        )

    def found(self, *pairs: tuple[str, str]) -> list[int]:
        """Return the rows that a search finds, on as many pages as it takes."""
        found: list[int] = []
        bundle = checked(self.get("AuditEvent", *SPAN, ("_count", "200"), *pairs))
        while True:
            found += [int(one["resource"]["id"]) for one in bundle.get("entry", [])]
            links = {one["relation"]: one["url"] for one in bundle["link"]}
            if "next" not in links:
                return found
            headers = {"Authorization": f"Bearer {self.token}"}
            bundle = checked(httpx.get(links["next"], headers=headers, timeout=60))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    site = Site(tmp_path_factory.mktemp("audit"), persons=PERSONS)
    filled(site.database, 20)
    with site.database.begin() as connection:
        for event in Event:
            columns: Columns = {
                "user_id": "anna",
                "patient_id": "P\x1b[2J",
                "issuer_of_patient_id": "1.2.3",
                "study_instance_uid": "1.2.840.5",
                "sop_instance_uid": "1.2.840.5.1",
                "network_address": "ward-7.example",
                "event_outcome": 4,
                "detail": {"why": f"no\x00 {HOSTILE}"},
            }
            trail.record(connection, event, columns)
            trail.record(connection, event, {})
    with site:
        yield Served(site, token(site.database, "auditor", "audit:read"))


def of(served: Served, **wanted: Any) -> list[int]:
    """Return the rows of the trail that have these values, newest first."""
    rows = [
        one
        for one in served.site.events()
        if all(getattr(one, name) == value for name, value in wanted.items())
    ]
    return [one.id for one in reversed(rows)]


# ---- What resources say --------------------------------------------------------------------------


def test_every_event_is_valid_r4_and_is_read_as_it_is_found(served: Served) -> None:
    known = [str(one.id) for one in served.site.events()]
    bundle = checked(served.get("AuditEvent", *SPAN, ("_count", "200")))
    assert [one["resource"]["id"] for one in bundle["entry"]] == known[::-1]
    verbs = {one["resource"]["subtype"][-1]["display"] for one in bundle["entry"]}
    assert verbs >= {one.verb for one in Event}
    for entry in bundle["entry"][::9]:
        answer = httpx.get(entry["fullUrl"], headers={"Authorization": f"Bearer {served.token}"})
        assert checked(answer) == entry["resource"]


def test_an_event_says_who_what_about_whom_and_keeps_every_column(served: Served) -> None:
    (row_id,) = of(served, destination="pacs")
    found = checked(served.get(f"AuditEvent/{row_id}"))
    row = next(one for one in served.site.events() if one.id == row_id)
    assert found["type"] == {
        "system": "http://dicom.nema.org/resources/ontology/DCM",
        "code": "110104",
        "display": "DICOM Instances Transferred",
    }
    assert (found["action"], found["outcome"], found["recorded"]) == ("R", "8", row.recorded_at)
    assert found["outcomeDesc"] == HOSTILE
    person, caller, us, there = found["agent"]
    assert person["who"]["identifier"]["value"] == HOSTILE[:64]
    assert (caller["altId"], caller["network"]) == (
        "MODALITY",
        {"address": "10.1.2.3", "type": "2"},
    )
    assert [one["requestor"] for one in found["agent"]] == [True, False, False, False]
    assert us["who"]["identifier"]["value"] == found["source"]["observer"]["identifier"]["value"]
    assert us["altId"] == "THORACLE"
    assert there["who"]["identifier"]["value"] == "pacs"
    study, order, image, report, patient, rest = found["entity"]
    assert study["what"]["identifier"]["value"] == f"urn:oid:{STUDY}"
    assert order["what"]["identifier"]["value"] == "=1+1"
    assert image["what"]["identifier"]["value"] == "urn:oid:1.2.840.99.8"
    assert report["what"]["identifier"]["value"] == "urn:oid:1.2.840.99.9"
    assert patient["what"]["identifier"]["assigner"]["display"] == "HOSPITAL"
    assert [one["role"]["code"] for one in found["entity"]] == ["3", "3", "3", "3", "1", "13"]
    details = {one["type"]: one["valueString"] for one in rest["detail"]}
    assert json.loads(details["detail"]) == row.detail
    for name in ("proof", "status", "correlation_id", "digest"):
        assert details[name] == getattr(row, name)
    assert (details["Probability"], details["seconds"]) == ("0.25", "77.5")
    assert details["AlgorithmDigest"] == row.bundle_digest


def test_what_a_string_cannot_carry_is_kept_in_base64(served: Served) -> None:
    (row_id,) = of(served, event="image read", patient_id="P\x1b[2J")
    found = checked(served.get(f"AuditEvent/{row_id}"))
    patient, rest = found["entity"][-2:]
    assert "identifier" not in patient["what"]
    (exact,) = [one for one in rest["detail"] if one["type"] == "Exact patient_id"]
    assert base64.b64decode(exact["valueBase64Binary"]).decode() == "P\x1b[2J"
    assert found["agent"][0]["network"] == {"address": "ward-7.example", "type": "1"}


def test_a_view_of_the_worklist_is_a_query(served: Served) -> None:
    row_id = of(served, event="list viewed", user_id="anna")[0]
    rest = checked(served.get(f"AuditEvent/{row_id}"))["entity"][-1]
    assert rest["role"]["code"] == "24"
    assert json.loads(base64.b64decode(rest["query"]))["why"].endswith(HOSTILE)


# ---- Searches ------------------------------------------------------------------------------------

DCM, OURS = "http://dicom.nema.org/resources/ontology/DCM", elements.SCHEME_URI
SEARCHES: list[tuple[Pairs, dict[str, Any]]] = [
    ([("address", "10.1.2")], {"network_address": "10.1.2.3"}),
    ([("address", "WARD-7")], {"network_address": "ward-7.example"}),
    ([("agent", "Practitioner/anna")], {"user_id": "anna"}),
    ([("agent.identifier", "MODALITY")], {"destination": "pacs"}),
    ([("agent:identifier", "|pacs")], {"destination": "pacs"}),
    ([("altid", "MODALITY,nobody")], {"destination": "pacs"}),
    ([("user", "anna")], {"user_id": "anna"}),
    ([("patient.identifier", "P3")], {"patient_id": "P3"}),
    ([("patient.identifier", "HOSPITAL|")], {"issuer_of_patient_id": "HOSPITAL"}),
    ([("entity", f"ImagingStudy/{STUDY}")], {"study_instance_uid": STUDY}),
    ([("entity.identifier", f"urn:dicom:uid|urn:oid:{STUDY}")], {"study_instance_uid": STUDY}),
    ([("entity.identifier", "1.2.840.99.9")], {"destination": "pacs"}),
    ([("entity.identifier", "=1+1")], {"accession_number": "=1+1"}),
    ([("entity.identifier", "P3")], {"patient_id": "P3"}),
    ([("type", f"{DCM}|110112")], {"event_id": "110112"}),
    ([("subtype", f"{DCM}|110122")], {"event_type_code": "110122"}),
    ([("subtype", f"{OURS}|image-read")], {"event": "image read"}),
    ([("subtype", "verdict-given")], {"event": "verdict given"}),
    ([("outcome", "8")], {"event_outcome": 8}),
    ([("action", "U")], {"action": "U"}),
    ([("user", "anna"), ("action", "U")], {"user_id": "anna", "action": "U"}),
    ([("entity-role", "24")], {"event_id": "110112"}),
]


@pytest.mark.parametrize(("pairs", "wanted"), SEARCHES, ids=lambda value: str(value)[:60])
def test_a_search_finds_what_the_resources_say(
    served: Served, pairs: Pairs, wanted: dict[str, Any]
) -> None:
    rows = of(served, **wanted)
    assert rows
    found = served.found(*pairs)
    assert [one for one in found if one in rows] == rows
    others = [one for one in served.site.events() if one.id in set(found) - set(rows)]
    if wanted.keys() & {"patient_id", "study_instance_uid"}:
        assert all(one.detail["studies"] for one in others)  # lists that showed such a study
    else:
        assert others == []


@pytest.mark.parametrize(
    "pairs",
    [
        [("type", "urn:oid:1.2|110112")],
        [("subtype", f"{DCM}|image-read")],
        [("patient.identifier", "OTHER|P3")],
        [("outcome", "x")],
        [("user", "urn:x|anna")],
        [("source", "ELSEWHERE")],
        [("_id", "0")],
        [("date", "ge2099")],
        [("address", "%")],
    ],
)
def test_a_search_for_what_is_not_there_finds_nothing(served: Served, pairs: Pairs) -> None:
    assert served.found(*pairs) == []


@pytest.mark.parametrize("begin", ["10.1.2", "WARD-7", "w", "%", "10.1.2.3"])
def test_more_addresses_than_are_looked_through_make_no_difference(
    served: Served, begin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = search.EventSearch(terms=(("address", (Token(None, begin),)),))
    with served.site.database.connect() as connection:
        few = search.page(connection, wanted, "THORACLE", 200)
        monkeypatch.setattr(search, "MOST_ADDRESSES", 1)
        assert search.page(connection, wanted, "THORACLE", 200) == few
    assert bool(few) is (begin != "%")


def test_every_event_is_of_this_source_and_has_a_system_object(served: Served) -> None:
    everything = {one.id for one in served.site.events()}  # and then the searches themselves
    ours = served.site.settings.receive.ae_title
    pairs = (("source", f"Device/{ours}"), ("source.identifier", ours), ("entity-type", "2"))
    for pair in (*pairs, ("agent.identifier", ours)):
        assert everything <= set(served.found(pair))
    persons = served.found(("entity-type", "1"))
    assert persons == served.found(("entity-role", "1"))
    assert set(persons) == {one.id for one in served.site.events() if one.patient_id}


def test_pages_go_on_by_their_links_and_show_every_event_once(served: Served) -> None:
    wanted = of(served, user_id="anna")
    bundle = checked(served.get("AuditEvent", *SPAN, ("user", "anna"), ("_count", "7")))
    found: list[int] = []
    while True:
        found += [int(one["resource"]["id"]) for one in bundle["entry"]]
        following = [one["url"] for one in bundle["link"] if one["relation"] == "next"]
        if not following:
            break
        headers = {"Authorization": f"Bearer {served.token}"}
        bundle = checked(httpx.get(following[0], headers=headers))
    assert found == wanted


@pytest.mark.parametrize(
    ("pairs", "code", "words"),
    [
        ([], "required", "lower and upper bound"),
        ([("date", "ge2026-01-01")], "required", "lower and upper bound"),
        ([("user", "anna"), ("date", "le2026-01-01")], "required", "lower and upper bound"),
        ([*SPAN, ("date", "yesterday")], "invalid", "date: found no date"),
        ([*SPAN, ("nonsense", "1")], "not-supported", "nonsense"),
        ([*SPAN, ("patient", "Patient/1")], "not-supported", "patient"),
        ([*SPAN, ("user", "")], "invalid", "user"),
        ([*SPAN, ("_count", "many")], "invalid", "_count"),
        ([*SPAN, *[("user", "anna")] * 17], "too-costly", "fewer"),
        ([*SPAN, ("user", ",".join("a" * 65))], "too-costly", "fewer"),
        ([*SPAN, ("_after", "x")], "invalid", "_after"),
    ],
)
def test_what_is_not_understood_is_refused_and_reads_nothing(
    served: Served, pairs: Pairs, code: str, words: str
) -> None:
    before = len(served.site.events())
    answer = served.get("AuditEvent", *pairs)
    assert answer.status_code == 400
    (issue,) = checked(answer)["issue"]
    assert (issue["code"], words in issue["diagnostics"]) == (code, True)
    assert len(served.site.events()) == before


def test_a_day_alone_is_a_span_with_two_ends(served: Served) -> None:
    day = served.site.events()[0].recorded_at[:10]
    bundle = checked(served.get("AuditEvent", ("date", day), ("_count", "1")))
    assert len(bundle["entry"]) == 1
    assert "total" not in bundle


# ---- Who may, and that it is a row ---------------------------------------------------------------


def test_the_audit_is_for_auditors_and_their_tokens_with_the_scope(served: Served) -> None:
    database = served.site.database
    with served.site.visitor() as client:
        for path in ("/fhir/AuditEvent?date=2026", "/fhir/AuditEvent/1"):
            answer = client.get(path)
            assert checked(answer)["issue"][0]["code"] == "login"
            for person, scope in (("reader", "audit:read"), ("auditor", "fhir:read")):
                headers = {"Authorization": f"Bearer {token(database, person, scope)}"}
                answer = client.get(path, headers=headers)
                assert answer.status_code == 403
                assert checked(answer)["issue"][0]["code"] == "forbidden"
    assert served.get("AuditEvent/99999999").status_code == 404
    assert served.get("AuditEvent/x").status_code == 404
    answer = httpx.post(
        f"{served.site.url}/fhir/AuditEvent", headers={"Authorization": f"Bearer {served.token}"}
    )
    assert (answer.status_code, checked(answer)["issue"][0]["code"]) == (405, "not-supported")


def test_each_call_is_one_row_of_the_audit(served: Served) -> None:
    before = len(served.site.events())
    pair = ("patient.identifier", "HOSPITAL|P3")
    served.get("AuditEvent", *SPAN, pair)
    served.get("AuditEvent/21")
    served.get("metadata")
    listed, single = served.site.events()[before:]
    assert [one.event for one in (listed, single)] == ["audit read"] * 2
    assert [one.user_id for one in (listed, single)] == ["auditor"] * 2
    assert (listed.patient_id, listed.issuer_of_patient_id) == ("P3", "HOSPITAL")
    assert listed.detail["means"] == "GET /fhir/AuditEvent"
    assert listed.detail["question"] == [list(one) for one in (*SPAN, pair)]
    assert (single.study_instance_uid, single.detail["means"]) == (
        STUDY,
        "GET /fhir/AuditEvent/{id_}",
    )


def test_the_system_of_our_own_codes_is_that_of_the_resources() -> None:
    assert search.SUBTYPES_OF_OURS == elements.SCHEME_URI


def test_the_document_has_each_parameter() -> None:
    text = (DOCS / "audit.md").read_text(encoding="utf-8")
    for parameter in fhir_search.AUDIT_PARAMETERS:
        assert f"`{parameter.name}`" in text, parameter.name
