"""The audit over REST, as a program of an auditor asks it."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import httpx
import pytest

from api_tokens import token
from browsing import Site
from ledger import eventually
from test_web_audit import ONE, PERSONS, STUDY, filled
from thoracle.audit.query import Question
from thoracle.store import anchors
from thoracle.store.chain import COLUMNS


@dataclass
class Served:
    """Pages with an audit, and a token for it."""

    site: Site
    token: str

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return httpx.get(
            f"{self.site.url}/api/{path}",
            params=parameters or None,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
        )

    def found(self, **parameters: Any) -> list[dict[str, Any]]:
        answer = self.get("audit/events", **parameters)
        assert answer.status_code == 200, answer.text
        events: list[dict[str, Any]] = answer.json()["events"]
        return events


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    site = Site(tmp_path_factory.mktemp("audit"), persons=PERSONS)
    filled(site.database)
    anchors.drop_anchor(site.database, site.settings.data_folder / anchors.ANCHORS_FILE)
    with site:
        yield Served(site, token(site.database, "auditor", "audit:read"))


@pytest.mark.parametrize("name", ONE)
def test_each_filter_finds_the_row_that_has_it(served: Served, name: str) -> None:
    (row,) = served.found(**{"destination": "pacs", name: ONE[name]})
    assert row["study_instance_uid"] == STUDY
    assert set(row) == {*COLUMNS, "digest"}
    assert all(row[column] is not None for column in set(row) - {"event_type_code"})


def test_the_pages_have_every_event_once_newest_first(served: Served) -> None:
    wanted = sorted((one.id for one in served.site.events("image read")), reverse=True)
    found: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        answer = served.get("audit/events", event="image read", limit=7, **cursor).json()
        found += [one["id"] for one in answer["events"]]
        if answer["cursor"] is None:
            break
        cursor = {"cursor": answer["cursor"]}
    assert found == wanted
    assert answer["research_use_only"] == "Research use only, not for diagnosis"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("audit/events?patientid=P1", 422, "patientid"),
        ("audit/events?limit=0", 422, "limit"),
        ("audit/events?cursor=x", 422, "cursor"),
        ("audit/events?since=yesterday", 422, "since"),
        ("audit/events/x", 422, "row_id"),
        ("audit/events/99999999", 404, "no row"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    served: Served, path: str, status: int, words: str
) -> None:
    answer = served.get(path)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True)


def test_only_auditors_and_their_tokens_with_the_scope_may_read(served: Served) -> None:
    database = served.site.database
    paths = ("/api/audit/events", "/api/audit/events/1", "/api/audit/verification")
    others = [
        token(database, "auditor", "fhir:read"),
        token(database, "reader", "audit:read"),
        token(database, "administrator", "audit:read"),
    ]
    with served.site.visitor() as client:
        for path in paths:
            assert client.get(path).status_code == 401
            for other in others:
                headers = {"Authorization": f"Bearer {other}"}
                assert client.get(path, headers=headers).status_code == 403
                assert client.post(path, headers=headers).status_code in (403, 405)
    with served.site.client("auditor") as client:
        assert [client.get(path).status_code for path in paths] == [200] * 3
        assert client.get(paths[0]).headers["cache-control"] == "no-store"


def test_each_call_is_one_row_of_the_audit(served: Served) -> None:
    before = len(served.site.events())
    served.get("audit/events", patient_id="P1", event="image read", limit=1)
    served.get("audit/events/131")
    served.get("audit/verification")
    listed, single = served.site.events()[before:]
    assert [one.event for one in (listed, single)] == ["audit read"] * 2
    assert (listed.user_id, listed.patient_id) == ("auditor", "P1")
    studies = listed.detail.pop("studies")  # of the one event that was shown
    assert [one.startswith("1.2.840.98.") for one in studies] == [True]
    assert listed.detail == {
        "question": {"patient_id": "P1", "event": "image read"},
        "means": "GET /api/audit/events",
        "token": True,
    }
    assert single.study_instance_uid == STUDY


def test_a_verification_is_begun_and_asked_for(served: Served) -> None:
    first = served.get("audit/verification").json()
    assert (first["state"], first["verified"], first["anchors"]) == ("never", None, 1)
    headers = {"Authorization": f"Bearer {served.token}"}
    url = f"{served.site.url}/api/audit/verification"
    answer = httpx.post(url, params={"whole": True}, headers=headers)
    assert answer.status_code == 202
    assert answer.json()["state"] in ("running", "well")
    eventually(lambda: served.get("audit/verification").json()["state"] == "well")
    found = served.get("audit/verification").json()
    assert (found["since_id"], found["by"], found["broken_id"]) == (0, "auditor", None)
    assert found["rows"] == found["verified"]["id"] >= found["anchor"]["id"] == 131
    assert found["trail"]["first_id"] == 1
    assert found["trail"]["last_id"] == served.site.events()[-1].id


def test_the_interface_is_described_by_openapi(served: Served) -> None:
    described = served.get("openapi.json").json()
    paths = {path for path in described["paths"] if path.startswith("/api/audit")}
    assert paths == {
        "/api/audit/events",
        "/api/audit/events/{row_id}",
        "/api/audit/verification",
    }
    asked = described["paths"]["/api/audit/events"]["get"]["parameters"]
    assert {one["name"] for one in asked} == {
        *(one.name for one in fields(Question) if one.name != "shown"),  # always
        "limit",
        "cursor",
    }
    schemas = described["components"]["schemas"]
    assert set(schemas["EventAnswer"]["properties"]) == {*COLUMNS, "digest"}
    assert "description" in schemas["VerificationAnswer"]["properties"]["broken_id"]
