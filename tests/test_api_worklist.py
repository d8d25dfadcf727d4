"""The reading worklist for other programs, over real HTTP: what it says, and verdicts on it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from api_tokens import token
from documents import DOCS
from ledger import rows
from thoracle.store.tables import study as study_table
from thoracle.study import reading_list
from ward import HOSTILE, Ward, of_study, ward


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with ward(tmp_path_factory.mktemp("list")) as running:
        running.studies["hostile"] = running.send(
            *of_study(1, PatientName=HOSTILE, StudyDescription=HOSTILE, PatientID="P10")
        )
        yield running


@pytest.fixture(scope="module")
def client(here: Ward) -> Iterator[httpx.Client]:
    secret = token(here.site.database, "reader", "worklist:read", "verdicts:write")
    with here.site.visitor(headers={"Authorization": f"Bearer {secret}"}) as program:
        yield program


def listed(client: httpx.Client, **parameters: Any) -> dict[str, dict[str, Any]]:
    """Return the studies on a page of the list, by their UID, in its order."""
    answer = client.get("/api/worklist", params=parameters)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["research_use_only"] == "Research use only, not for diagnosis"
    return {one["study_instance_uid"]: one for one in found["studies"]}


def report_of(here: Ward, study: str) -> str:
    statement = "SELECT sop_instance_uid FROM result WHERE study_instance_uid = ? AND kind = 'sr'"
    (row,) = rows(here.gateway, statement, study)
    return str(row["sop_instance_uid"])


def test_a_row_says_what_the_page_says(here: Ward, client: httpx.Client) -> None:
    found = listed(client)
    assert set(found) == set(here.studies.values())
    row = found[here.studies["plain"]]
    statement = "SELECT * FROM worklist WHERE study_instance_uid = ?"
    (kept,) = rows(here.gateway, statement, here.studies["plain"])
    same = ("patient_id", "patient_name", "probability", "threshold", "received_at", "modality")
    assert {name: row[name] for name in same} == {name: kept[name] for name in same}
    assert (row["ai_state"], row["reason"]) == (kept["ai_state"], None)
    assert (row["bundle"], row["stat"]) == (kept["bundle_version"], False)
    assert (row["verdict"], row["reviewed_at"]) == (None, None)
    hostile = found[here.studies["hostile"]]
    assert hostile["study_description"] == HOSTILE[:64]  # LO


def test_a_rejected_study_has_its_reason_and_no_probability(
    here: Ward, client: httpx.Client
) -> None:
    row = listed(client, state="rejected")[here.studies["hand"]]
    assert row["reason"] == {"code": "NOT-CHEST", "meaning": "Body part is not the chest"}
    assert row["probability"] is None


def test_what_a_rule_holds_has_no_result_here(here: Ward, client: httpx.Client) -> None:
    statement = "SELECT * FROM worklist WHERE study_instance_uid = ?"
    (kept,) = rows(here.gateway, statement, here.studies["held"])
    assert (kept["ai_state"], kept["probability"], kept["head_start_minutes"]) == ("held", None, 0)
    row = listed(client)[here.studies["held"]]
    assert row["ai_state"] == "held"
    assert (row["probability"], row["threshold"], row["reason"]) == (None, None, None)
    assert (row["head_start_minutes"], row["why"]) == (0, "By arrival")


def test_no_filter_tells_what_a_rule_holds(here: Ward, client: httpx.Client) -> None:
    study = here.studies["held"]
    (kept,) = rows(here.gateway, "SELECT outcome FROM analysis WHERE study_instance_uid = ?", study)
    assert kept["outcome"] in ("positive", "negative", "indeterminate")
    answer = client.get("/api/worklist", params={"state": kept["outcome"]}).json()
    found = {one["study_instance_uid"] for one in answer["studies"]}
    assert found == {here.studies[name] for name in ("plain", "two", "stranger", "hostile")}
    assert answer["number"] == len(found)
    with here.site.client("reader") as page:
        assert study not in page.get(f"/?state={kept['outcome']}&review=all").text
        assert study in page.get("/?state=held&review=all").text


def test_between_two_readings_nothing_of_the_first_is_told(
    here: Ward, client: httpx.Client
) -> None:
    study = here.studies["held"]
    with here.site.database.begin() as connection:
        reading_list.set_state(connection, study, reading_list.QUEUED)
        reading_list.set_head_start(connection, study, 60, "AI positive")
        connection.execute(
            update(study_table)
            .where(study_table.c.study_instance_uid == study)
            .values(generation=study_table.c.generation + 1)
        )
    row = listed(client)[study]
    assert (row["ai_state"], row["why"], row["head_start_minutes"]) == ("queued", "not read yet", 0)
    assert (row["probability"], row["threshold"], row["reason"]) == (None, None, None)
    with here.site.database.begin() as connection:
        reading_list.set_state(connection, study, "indeterminate")
        connection.execute(
            update(study_table)
            .where(study_table.c.study_instance_uid == study)
            .values(generation=study_table.c.generation - 1)
        )


def test_the_filters_of_the_page_are_its_parameters(here: Ward, client: httpx.Client) -> None:
    assert set(listed(client, text="P8")) == {here.studies["hand"]}
    assert listed(client, until="2020-01-01") == {}
    by_arrival = list(listed(client, sort="received"))
    assert by_arrival == list(reversed(list(here.studies.values())))
    assert client.get("/api/worklist", params={"page": 2}).json()["studies"] == []


@pytest.mark.parametrize(
    ("query", "words"),
    [("patient=P8", "patient"), ("sort=name", "order"), ("since=x", "no date"), ("page=0", "page")],
)
def test_what_is_not_understood_is_refused(client: httpx.Client, query: str, words: str) -> None:
    answer = client.get(f"/api/worklist?{query}")
    assert answer.status_code == 422
    assert words in answer.text


def test_a_verdict_is_kept_under_the_name_of_the_person(here: Ward, client: httpx.Client) -> None:
    study = here.studies["two"]
    given = {
        "opinion": "disagree",
        "report_sop_instance_uid": report_of(here, study),
        "comment": HOSTILE,
    }
    answer = client.post(f"/api/studies/{study}/verdicts", json=given)
    assert answer.status_code == 201, answer.text
    (kept,) = rows(here.gateway, "SELECT * FROM verdict WHERE id = ?", answer.json()["verdict"])
    assert (kept["person"], kept["opinion"], kept["comment"]) == ("reader", "disagree", HOSTILE)
    assert kept["sop_instance_uid"] == given["report_sop_instance_uid"]
    (event,) = here.site.events("verdict given")
    assert (event.user_id, event.study_instance_uid) == ("reader", study)
    assert event.detail["means"] == "POST /api/studies/{study_instance_uid}/verdicts"
    assert event.detail["token"] is True
    row = listed(client, review="done")[study]
    assert row["verdict"] == "disagree"
    assert row["reviewed_at"] is not None


@pytest.mark.parametrize(
    ("study", "changes", "status"),
    [
        ("plain", {"report_sop_instance_uid": "1.2.3"}, 409),
        ("1.2.3", {}, 404),
        ("plain", {"opinion": "perhaps"}, 422),
        ("plain", {"comment": "x" * 20_000}, 422),
        ("plain", {"opinon": "agree"}, 422),
        ("plain", {"report_sop_instance_uid": None}, 422),
    ],
)
def test_a_verdict_that_cannot_stand_is_refused(
    here: Ward, client: httpx.Client, study: str, changes: dict[str, Any], status: int
) -> None:
    before = rows(here.gateway, "SELECT count(*) AS n FROM verdict")
    given = {
        "opinion": "agree",
        "report_sop_instance_uid": report_of(here, here.studies["plain"]),
        **changes,
    }
    answer = client.post(f"/api/studies/{here.studies.get(study, study)}/verdicts", json=given)
    assert answer.status_code == status, answer.text
    assert rows(here.gateway, "SELECT count(*) AS n FROM verdict") == before


def test_it_takes_the_scope_and_a_reader(here: Ward) -> None:
    study = here.studies["plain"]
    given = {"opinion": "agree", "report_sop_instance_uid": report_of(here, study)}
    cases = {
        ("reader", "results:read"): (403, 403),
        ("reader", "worklist:read"): (200, 403),
        ("administrator", "worklist:read"): (200, 403),
        ("auditor", "worklist:read"): (403, 403),
        ("administrator", "verdicts:write"): (403, 403),
    }
    for (person, scope), expected in cases.items():
        secret = token(here.site.database, person, scope)
        with here.site.visitor(headers={"Authorization": f"Bearer {secret}"}) as program:
            seen = program.get("/api/worklist").status_code
            judged = program.post(f"/api/studies/{study}/verdicts", json=given).status_code
        assert (seen, judged) == expected, (person, scope)
    with here.site.visitor() as nobody:
        assert nobody.get("/api/worklist").status_code == 401
        assert nobody.post(f"/api/studies/{study}/verdicts", json=given).status_code in (401, 403)


def test_a_page_of_another_site_cannot_judge(here: Ward) -> None:
    study = here.studies["plain"]
    given = {"opinion": "agree", "report_sop_instance_uid": report_of(here, study)}
    with here.site.client("reader") as client:
        del client.headers["X-CSRF-Token"]
        answer = client.post(f"/api/studies/{study}/verdicts", json=given)
    assert answer.status_code == 403


def test_each_list_is_one_row_of_the_audit(here: Ward, client: httpx.Client) -> None:
    before = len(here.site.events("list viewed"))
    listed(client, text="P8", state="rejected")
    (event,) = here.site.events("list viewed")[before:]
    assert (event.user_id, event.detail["means"]) == ("reader", "GET /api/worklist")
    assert event.detail["filter"]["text"] == "P8"


def test_the_document_names_every_field(here: Ward, client: httpx.Client) -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    described = client.get("/api/openapi.json").json()
    fields = described["components"]["schemas"]["RowAnswer"]["properties"]
    parameters = described["paths"]["/api/worklist"]["get"]["parameters"]
    assert all(f"`{name}`" in text for name in fields)
    assert all(f"`{one['name']}`" in text for one in parameters)
