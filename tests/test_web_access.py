"""The pages let in whom they should, and attacks on the log-in and the forms come to nothing."""

import hashlib
import re
from collections.abc import Iterator

import pytest

from browsing import Site
from thoracle.web.site import FOLDER


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as running:
        yield running


def test_a_person_logs_in_and_out(site: Site) -> None:
    with site.client("reader") as client:
        assert client.get("/api/whoami").json() == {
            "name": "reader",
            "roles": ["reader"],
            "scopes": None,
        }
        cookie = dict(client.cookies)
        assert client.post("/logout").status_code == 303
        client.cookies.update(cookie)
        assert client.get("/api/whoami").status_code == 401
    assert [row.user_id for row in site.events("logged in", "logged out")] == ["reader"] * 2


def test_the_files_of_others_are_those_that_the_list_names() -> None:
    listed = dict(
        re.findall(
            r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$",
            (FOLDER / "static" / "README.md").read_text(),
            re.MULTILINE,
        )
    )
    assert {
        name: hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest()
        for name in ("htmx.min.js", "sse.min.js")
    } == listed
