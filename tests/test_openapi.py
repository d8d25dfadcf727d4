"""What the interfaces say of themselves is what they do: schemathesis asks, with any values."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api_tokens import token
from browsing import Site
from stored_studies import concluded
from thoracle.web.session.access import SCOPES

STUDY = "1.2.840.66.1"
EXAMPLES = 25
"""Of each operation and phase."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    persons = {"everybody": ["reader", "administrator", "auditor"]}
    with Site(tmp_path_factory.mktemp("openapi"), persons=persons) as running:
        concluded(running.database, STUDY, patient_id="P66")
        yield running


def test_the_description_has_what_is_for_programs_and_nothing_else(site: Site) -> None:
    with site.visitor() as client:
        described = client.get("/api/openapi.json").json()
        refused = client.get("/api/studies", headers={"Authorization": "Bearer none"})
    assert set(described["paths"]) == {
        "/healthz",
        "/api/whoami",
        "/api/studies",
        "/api/studies/{study_instance_uid}",
        "/api/studies/{study_instance_uid}/verdicts",
        "/api/audit/events",
        "/api/audit/events/{row_id}",
        "/api/audit/verification",
        "/api/worklist",
    }
    asked = described["paths"]["/api/studies"]["get"]
    assert set(asked["responses"]) == {"200", "400", "401", "403", "422"}
    assert asked["security"] == [{"token": []}]
    assert "HTTPValidationError" not in described["components"]["schemas"]
    assert set(described["components"]["schemas"]["Refusal"]["properties"]) == set(refused.json())


@pytest.mark.slow
def test_schemathesis_finds_no_answer_that_is_not_described(site: Site, tmp_path: Path) -> None:
    secret = token(site.database, "everybody", *SCOPES)
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run"),
        f"{site.url}/api/openapi.json",
        *("--header", f"Authorization: Bearer {secret}"),
        # No schema says that a date is one of the calendar, or that one of two values is required.
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        *("--max-examples", str(EXAMPLES), "--continue-on-failure"),
        *("--request-timeout", "30", "--no-color", "--seed", "18"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=500,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert "failed" not in site.log.read_text()


def test_an_example_of_each_is_answered_as_described(site: Site) -> None:
    secret = token(site.database, "everybody", *SCOPES)
    with httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {secret}"}) as client:
        assert client.get(f"/api/studies/{STUDY}").status_code == 200
        assert client.get("/api/studies/1.2.3").json().keys() == {"detail"}
        assert json.loads(client.get("/api/whoami").text)["name"] == "everybody"
