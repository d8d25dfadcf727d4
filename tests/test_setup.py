"""Set-up in the browser: by HTTP as each role, on a real file, with real peers and real studies."""

import html
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, expect
from sqlalchemy import select, update

import reading_room
from browser import ZOOMED, visit
from browsing import PASSWORD, Site, csrf_token, log_in
from ledger import eventually
from pacs import Pacs, free_port
from radiographs import chest
from thoracle.audit import starts
from thoracle.pipeline import trial
from thoracle.records import Outcome
from thoracle.settings import document
from thoracle.store.tables import analysis, timestamp
from thoracle.store.tables import study as study_table
from thoracle.study import instances
from thoracle.web.app import create_app

HEAD = """\
# kept by the radiology
data_folder = "data"

[web]
port = {web}

[[destination]]
# the archive
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}

[[destination]]
name = "cloud"
url = "https://127.0.0.1:9/dicomweb"
token = "file:very-secret.token"

[[rule]]
name = "positives"  # since the pilot
when = 'result.outcome == "positive"'
send = ["archive"]

[[hl7]]
name = "ris"
host = "127.0.0.1"
port = {ris}
"""


class Configured:
    """A site with a configuration of its own, an archive that answers, and studies of a week."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.config = site.config
        self.original = site.config.read_text()
        self.positive = reading_room.add(site, chest(AccessionNumber="POS1"), Outcome.POSITIVE)
        self.negative = reading_room.add(site, chest(), Outcome.NEGATIVE)
        self.gone = reading_room.add(site, chest(), Outcome.POSITIVE)
        self.old = reading_room.add(site, chest(), Outcome.POSITIVE)
        (path,) = (site.settings.data_folder / "images").glob(f"{self._image(self.gone)}.dcm")
        path.unlink()
        week_ago = timestamp(datetime.now(UTC) - timedelta(days=8))
        with site.database.begin() as connection:
            starts.record(connection, site.settings, {})
            for study in (self.positive, self.negative, self.gone):
                tried = trial.of_study(connection, site.settings, study)
                if tried is not None:
                    self._decided(connection, study, tried.decision.to_json())
            mine = analysis.c.study_instance_uid == self.old
            connection.execute(update(analysis).where(mine).values(finished_at=week_ago))

    def _image(self, study: str) -> str:
        with self.site.database.connect() as connection:
            return str(instances.sources(connection, study, 1)[0].sop_instance_uid)

    @staticmethod
    def _decided(connection: Any, study: str, routing: dict[str, Any]) -> None:
        mine = analysis.c.study_instance_uid == study
        connection.execute(update(analysis).where(mine).values(routing=routing))

    def form(self, client: httpx.Client, path: str, **changes: Any) -> dict[str, Any]:
        """Return the form of a page as a browser would send it, with changes."""
        page = client.get(path).text
        found: dict[str, Any] = {}
        area = page[page.index('id="entry"') : page.index("</form>", page.index('id="entry"'))]
        for tag in re.findall(r"<input[^>]*>", area):
            name = re.search(r'name="([^"]+)"', tag)
            value = re.search(r'value="([^"]*)"', tag)
            box = 'type="checkbox"' in tag
            if name and name[1] != "csrf_token" and (not box or " checked" in tag):
                text = html.unescape(value[1]) if value else "on"
                found.setdefault(name[1], []).append(text)
        for name, text in re.findall(
            r'<textarea[^>]*name="([^"]+)"[^>]*>\n?(.*?)</textarea>', area, re.S
        ):
            found[name] = html.unescape(text)
        return {**found, **changes}


@pytest.fixture(scope="module")
def archive() -> Iterator[Pacs]:
    with Pacs("ARCHIVE") as running:
        yield running


@pytest.fixture(scope="module")
def ris() -> Iterator[int]:
    """A receiver that takes connections, and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, archive: Pacs, ris: int
) -> Iterator[Configured]:
    folder = tmp_path_factory.mktemp("site")
    config = folder / "thoracle.toml"
    config.write_text(HEAD.format(web=free_port(), archive=archive.port, ris=ris))
    config.chmod(0o640)
    with Site(folder, config=config) as running:
        yield Configured(running)


@pytest.fixture
def configured(whole: Configured) -> Configured:
    """The same, with its configuration as in the beginning."""
    whole.config.write_text(whole.original)
    return whole


@pytest.fixture
def client(configured: Configured) -> Iterator[httpx.Client]:
    with configured.site.client("administrator") as found:
        yield found


@pytest.mark.parametrize("person", ["reader", "auditor"])
def test_set_up_is_for_administrators(configured: Configured, person: str) -> None:
    with configured.site.client(person) as client:
        for path in ("/setup", "/setup/callers", "/setup/rule/add", "/setup/rule/edit/positives"):
            assert client.get(path).status_code == 403
        for path in ("/setup/rule/add", "/setup/rule/remove/positives", "/setup/callers"):
            assert client.post(path).status_code == 403
        assert client.post("/setup/test/destination/archive").status_code == 403
    assert configured.config.read_text() == configured.original


def test_the_overview_says_what_is_set_up_and_in_use(client: httpx.Client) -> None:
    page = client.get("/setup").text
    assert "The gateway runs with the saved settings." in page
    for said in ("ARCHIVE at 127.0.0.1:", "https://127.0.0.1:9/dicomweb", "Any AE title may call"):
        assert said in page
    assert "very-secret" not in page + client.get("/setup/destination/edit/cloud").text
    assert "Set in the file and not shown here: token." in (
        client.get("/setup/destination/edit/cloud").text
    )
    for path in ("/setup/webhook/add", "/setup/rule/edit/none", "/setup/web/edit/x"):
        assert client.get(path).status_code == 404


def test_a_destination_is_changed_and_nothing_else(
    configured: Configured, client: httpx.Client
) -> None:
    path = "/setup/destination/edit/archive"
    form = configured.form(client, path, port="104", proof="query", kinds=["sr", "ko"])
    assert client.post(path, data=form).headers["location"] == "/setup?said=saved"
    text = configured.config.read_text()
    before = configured.original.splitlines()
    assert [line for line in text.splitlines() if line not in before] == [
        "port = 104",
        'kinds = ["sr", "ko"]',
        'proof = "query"',
    ]
    assert 'token = "file:very-secret.token"' in text
    assert "# the archive" in text
    assert configured.config.stat().st_mode & 0o777 == 0o640
    page = client.get("/setup").text
    assert "Restart the gateway to apply it" in page
    assert "systemctl restart thoracle" in page
    assert "Differs: destination.archive.kinds, destination.archive.port" in page
    event = configured.site.events("configuration edited")[-1]
    assert (event.user_id, event.network_address) == ("administrator", "127.0.0.1")
    changed = {one["setting"]: (one["before"], one["after"]) for one in event.detail["changed"]}
    assert changed["destination.archive.proof"] == (None, "query")
    assert changed["destination.archive.port"][1] == 104
    copies = configured.config.parent.glob("thoracle.toml.2*")
    assert configured.original in [one.read_text() for one in copies]


def test_what_is_wrong_stands_beside_its_field_and_nothing_is_written(
    configured: Configured, client: httpx.Client
) -> None:
    path = "/setup/destination/edit/archive"
    form = configured.form(client, path, port="<b>", ae_title="BACK\\SLASH")
    answer = client.post(path, data=form)
    assert answer.status_code == 422
    assert "found &#39;&lt;b&gt;&#39;, required: a whole number" in answer.text
    assert 'id="f-ae_title-fault"' in answer.text
    assert 'value="&lt;b&gt;"' in answer.text
    answer = client.post(
        "/setup/destination/add", data={"digest": form["digest"], "name": "archive"}
    )
    assert answer.status_code == 422
    assert "required: ae_title, host and port, or url alone" in answer.text
    removed = client.post("/setup/destination/remove/archive", data=form)
    assert removed.status_code == 422
    assert "archive" in removed.text
    assert configured.config.read_text() == configured.original


def test_a_secret_is_not_sent_to_another_address(
    configured: Configured, client: httpx.Client
) -> None:
    path = "/setup/destination/edit/cloud"
    form = configured.form(client, path, url="https://192.0.2.9/dicomweb")
    answer = client.post(path, data=form)
    assert answer.status_code == 422
    assert "as long as token is set: change both in the file" in answer.text
    assert configured.config.read_text() == configured.original


def test_a_change_by_hand_meanwhile_is_not_overwritten(
    configured: Configured, client: httpx.Client
) -> None:
    path = "/setup/destination/edit/archive"
    form = configured.form(client, path, port="104")
    by_hand = configured.original + "# by hand\n"
    configured.config.write_text(by_hand)
    for where in (path, "/setup/destination/remove/archive", "/setup/callers"):
        answer = client.post(where, data=form)
        assert answer.status_code == 409
        assert "The file has changed since this page was loaded" in answer.text
    assert configured.config.read_text() == by_hand


def test_a_file_with_faults_is_shown_and_left_alone(
    configured: Configured, client: httpx.Client
) -> None:
    broken = configured.original + '[receive]\nport = "many"\n'
    configured.config.write_text(broken)
    page = client.get("/setup").text
    assert "receive.port: found &#39;many&#39;, required: a whole number" in page
    assert "Correct the file by hand first." in page
    digest = document.read(configured.config).digest
    answer = client.post("/setup/rule/add", data={"digest": digest, "name": "r", "hold": "on"})
    assert answer.status_code == 409
    configured.config.write_text("no toml")
    assert client.get("/setup").status_code == 200
    assert client.get("/setup/callers").status_code == 200
    assert configured.config.read_text() == "no toml"


def test_peers_are_tried_as_saved(configured: Configured, client: httpx.Client) -> None:
    assert "archive answers C-ECHO" in client.post("/setup/test/destination/archive").text
    assert "ris takes connections, plain; nothing was sent" in (
        client.post("/setup/test/hl7/ris").text
    )
    assert 'role="alert"' in client.post("/setup/test/destination/cloud").text
    assert client.post("/setup/test/hl7/archive").status_code == 404
    tried = configured.site.events("peer tried")
    assert [(one.destination, one.event_outcome) for one in tried] == [
        ("archive", 0),
        ("ris", 0),
        ("cloud", 4),
    ]


def test_callers_are_one_table_over_four_lists(
    configured: Configured, client: httpx.Client
) -> None:
    digest = document.read(configured.config).digest
    every = ("receive.calling_ae_titles", "receive.store_ae_titles")
    form = {
        "digest": digest,
        "ae.0": "CR1",
        "may.0": list(every),
        "ae.1": "MONITOR",
        "may.1": [every[0]],
        "mode.receive.calling_ae_titles": "marked",
        "mode.receive.store_ae_titles": "marked",
    }
    assert client.post("/setup/callers", data=form).status_code == 303
    found = document.read(configured.config).values["receive"]
    assert found == {"calling_ae_titles": ["CR1", "MONITOR"], "store_ae_titles": ["CR1"]}
    assert "ups" not in document.read(configured.config).values
    page = client.get("/setup/callers?seen=1").text
    assert page.count("not in 30 days") == 2
    form = {**form, "digest": document.read(configured.config).digest, "may.0": [], "may.1": []}
    answer = client.post("/setup/callers", data=form)
    assert answer.status_code == 422
    assert "Send images: found no caller marked, required: one, or all that may call" in answer.text
    wrong = {**form, "ae.2": "BACK\\SLASH", "may.2": list(every)}
    answer = client.post("/setup/callers", data=wrong)
    assert answer.status_code == 422
    assert "required: an AE title" in answer.text


def test_a_rule_is_tried_on_the_last_week_without_being_saved(
    configured: Configured, client: httpx.Client
) -> None:
    path = "/setup/rule/edit/positives"
    form = configured.form(client, path, when='result.outcome == "negative"', action="week")
    page = " ".join(client.post(path, data=form).text.split())
    assert "Checked 3 of 3 studies analysed since" in page
    assert "The rule matches 1. 2 would be handled differently. 1 cannot be evaluated" in page
    assert "to archive: nothing (was sr, sc, pr, ko)" in page
    assert "to archive: sr, sc, pr, ko (was nothing)" in page
    assert configured.old not in page
    assert configured.config.read_text() == configured.original
    event = configured.site.events("list viewed")[-1]
    assert event.detail["studies"] == sorted([configured.positive, configured.negative])
    form = configured.form(client, path, action="week")
    page = " ".join(client.post(path, data=form).text.split())
    assert "The rule matches 1. 0 would be handled differently." in page


def test_a_rule_that_never_fires_is_warned_of_where_it_is_tried_and_listed(
    configured: Configured, client: httpx.Client
) -> None:
    path = "/setup/rule/edit/positives"
    form = configured.form(client, path, when='result.outcome == "postive"', action="week")
    assert "which is never true" in client.post(path, data=form).text
    assert "which is never true" not in client.get("/setup").text
    client.post(path, data={**form, "action": "save"})
    assert "which is never true" in client.get("/setup").text


def test_a_rule_is_explained_on_a_study(configured: Configured, client: httpx.Client) -> None:
    path = "/setup/rule/edit/positives"
    form = configured.form(client, path, hold="on", study="POS1", action="explain")
    page = client.post(path, data=form).text
    assert "rule positives fires" in page
    assert "held by positives; once released:" in page
    event = configured.site.events("study viewed")[-1]
    assert (event.study_instance_uid, event.user_id) == (configured.positive, "administrator")
    for study, said in (("", "found no study"), ("NONE", "&#39;NONE&#39; among 4")):
        answer = client.post(path, data={**form, "study": study})
        assert (answer.status_code, said in answer.text) == (422, True)
    answer = client.post(path, data={**form, "study": configured.gone})
    assert "found no stored image files" in answer.text
    with configured.site.database.connect() as connection:
        patient = connection.execute(select(study_table.c.patient_id)).scalar()
    answer = client.post(path, data={**form, "study": patient})
    assert f"found 4 studies with &#39;{patient}&#39;" in answer.text
    event = configured.site.events("list viewed")[-1]
    assert (event.study_instance_uid, configured.gone in event.detail["studies"]) == (None, True)
    wrong = {**form, "when": "Modality == "}
    answer = client.post(path, data=wrong)
    assert (answer.status_code, 'id="f-when-fault"' in answer.text) == (422, True)


def test_rules_and_receivers_are_added_and_removed(
    configured: Configured, client: httpx.Client
) -> None:
    digest = document.read(configured.config).digest
    rule: dict[str, Any] = {"digest": digest, "name": "quiet", "when": "true", "hold": "on"}
    rule["kinds"] = ["sr"]
    refused = client.post("/setup/rule/add", data=rule)
    assert "found kinds or originals without send" in refused.text
    rule["kinds"] = ["sr", "sc", "pr", "ko"]
    assert client.post("/setup/rule/add", data=rule).status_code == 303
    digest = document.read(configured.config).digest
    new: dict[str, Any] = {"digest": digest, "name": "emr", "host": "192.0.2.9", "port": "2575"}
    new |= {"outcomes": ["positive"], "tls": "on", "tls.ca_file": "ca.pem"}
    assert client.post("/setup/hl7/add", data=new).status_code == 303
    values = document.read(configured.config).values
    assert values["rule"][1] == {"name": "quiet", "hold": True}
    assert values["hl7"][1] == {
        "name": "emr",
        "host": "192.0.2.9",
        "port": 2575,
        "outcomes": ["positive"],
        "tls": {"ca_file": "ca.pem"},
    }
    digest = document.read(configured.config).digest
    assert client.post("/setup/rule/remove/quiet", data={"digest": digest}).status_code == 303
    assert len(document.read(configured.config).values["rule"]) == 1


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Yield the address of an application that runs in this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("file", [False, True])
def test_what_cannot_be_written_is_shown_and_says_why(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, file: bool
) -> None:
    site = configured.site
    why = "/etc/thoracle cannot be written by user thoracle. To allow it, ..."
    monkeypatch.setattr(document, "why_read_only", lambda _path: why)
    app = create_app(site.settings, site.database, configured.config if file else None)
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert log_in(client, "administrator", PASSWORD).status_code == 303
        client.headers["X-CSRF-Token"] = csrf_token(client, "/account")
        said = why if file else "These pages run without a configuration file."
        for path in ("/setup", "/setup/callers", "/setup/rule/add"):
            page = client.get(path).text
            assert said in page
            assert ("<fieldset" not in page) or "disabled>" in page
        if file:
            assert "ARCHIVE at" in client.get("/setup").text
            assert "disabled>" in client.get("/setup/rule/edit/positives").text
        for path in ("/setup/rule/add", "/setup/callers"):
            answer = client.post(path, data={"digest": "", "name": "r", "hold": "on"})
            assert (answer.status_code, said in answer.text) == (409, True)
    assert configured.config.read_text() == configured.original


def test_set_up_by_keyboard_without_a_grave_fault(configured: Configured, browser: Browser) -> None:
    with visit(browser, configured.site, "administrator") as found:
        page = found.page
        found.go("/setup/destination/edit/archive")
        page.locator("#f-port").fill("0")
        page.keyboard.press("Enter")
        expect(page.locator("#f-port-fault")).to_contain_text("required: at least 1")
        assert found.faults() == []
        page.locator("#f-port").fill("105")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Saved.")
        found.go("/setup/rule/edit/positives")
        page.locator("#f-when").fill('result.outcome == "negative"')
        page.get_by_role("button", name="What would it have done").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("The rule matches 1.")
        for theme in ("dark", "light"):
            for name, path in PAGES.items():
                if path:
                    found.go(path)
                assert page.locator("html").get_attribute("data-theme") == theme
                assert found.faults() == [], name
            page.get_by_role("button", name="Switch between dark and light").click()
        page.set_viewport_size({"width": ZOOMED[0], "height": ZOOMED[1]})
        for path in PAGES.values():
            found.go(path or "/setup")
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        # The browser itself tells of an answer 422.
        assert [one for one in found.complaints if "422" not in one] == []


PAGES = {
    "week": "",
    "overview": "/setup",
    "callers": "/setup/callers",
    "destination": "/setup/destination/edit/archive",
    "rule": "/setup/rule/add",
    "hl7": "/setup/hl7/edit/ris",
}
