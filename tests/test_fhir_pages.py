"""Long searches of FHIR: each page costs the same, and links lead through all of them."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from api_tokens import token
from browsing import Site
from fhir_server import checked
from pacs import free_port
from stored_studies import concluded, said
from thoracle.fhir import rows as fhir_rows
from thoracle.fhir.rows import Search
from thoracle.records import Outcome
from thoracle.store.database import open_database, sqlite_url
from thoracle.web.api import fhir_search

MANY = 1200


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    database = open_database(sqlite_url(tmp_path_factory.mktemp("many")))
    for number in range(MANY):
        study = f"1.2.840.88.{number}"
        if number % 3:
            concluded(database, study)
        else:
            concluded(database, study, said(study, Outcome.NEGATIVE, probability=0.1))
    return database


def statements(database: Engine, search: Search, limit: int) -> int:
    seen: list[str] = []

    def count(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    with database.connect() as connection:
        event.listen(database, "before_cursor_execute", count)
        found = fhir_rows.page(connection, search, limit)
        event.remove(database, "before_cursor_execute", count)
    assert len(found) == limit
    return len(seen)


def test_a_page_takes_the_same_number_of_statements_however_long_it_is(many: Engine) -> None:
    assert statements(many, Search("Observation"), 2) == statements(
        many, Search("Observation"), 200
    )


def test_links_lead_through_all_pages_once_and_in_order(many: Engine, tmp_path: Path) -> None:
    folder = Path(str(many.url.database)).parent
    config = tmp_path / "web.toml"
    config.write_text(
        f"data_folder = {json.dumps(str(folder))}\n[web]\nport = {free_port()}\n", encoding="utf-8"
    )
    with Site(tmp_path, config=config) as site:
        headers = {"Authorization": f"Bearer {token(site.database, 'reader', 'fhir:read')}"}
        url: str | None = f"{site.url}/fhir/Observation?status=preliminary&_count=150"
        pages: list[dict[str, Any]] = []
        while url is not None:
            pages.append(checked(httpx.get(url, headers=headers, timeout=60)))
            links = {one["relation"]: one["url"] for one in pages[-1]["link"]}
            url = links.get("next")
            if len(pages) == 1:  # one that comes meanwhile moves no page
                assert pages[0]["total"] == MANY // 3
                study = "1.2.840.99.1"
                concluded(site.database, study, said(study, Outcome.NEGATIVE, probability=0.1))
        assert len(pages) == 3
        seen = [entry["resource"]["id"] for page in pages for entry in page["entry"]]
        numbers = [int(uid.rpartition(".")[2]) for uid in seen]
        assert numbers == [n for n in reversed(range(MANY)) if n % 3 == 0]
        total = checked(httpx.get(f"{site.url}/fhir/Observation?_count=0", headers=headers))
        assert total["total"] == MANY // 3 + 1
        assert "entry" not in total
        largest = checked(httpx.get(f"{site.url}/fhir/Task?_count=100000", headers=headers))
        assert len(largest["entry"]) == fhir_search.LARGEST_COUNT
