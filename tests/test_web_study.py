"""The page of a study: what it shows to whom, what it records, and that nothing in it runs."""

import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from browsing import csrf_token
from ledger import eventually, rows
from thoracle.image import pixels
from thoracle.web import wording
from thoracle.web.pages import about
from ward import HOSTILE, Ward, of_study, ward

IMAGE = re.compile(r'(?:src|data-src)="(/study/[^"]+\.png\?view=[^"]+)"')


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with ward(tmp_path_factory.mktemp("ward")) as running:
        yield running


@pytest.fixture(scope="module")
def reader(here: Ward) -> Iterator[httpx.Client]:
    with here.site.client("reader") as client:
        yield client


class Shape(HTMLParser):
    """The tags of a page with the names of their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def page(client: httpx.Client, study: str) -> str:
    answer = client.get(f"/study/{study}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.text


def words(client: httpx.Client, study: str) -> str:
    """Return the text of a page, with single spaces."""
    return " ".join(Shape(page(client, study)).text.split())


def report_of(client: httpx.Client, study: str) -> str:
    found = re.search(r'name="report" value="([0-9.]+)"', page(client, study))
    assert found is not None
    return found[1]


def judge(client: httpx.Client, study: str, **form: str) -> httpx.Response:
    values = {"opinion": "agree", "report": report_of(client, study), "comment": "", **form}
    return client.post(f"/study/{study}/verdict", data=values)


# ---- what it shows ---------------------------------------------------------------------------


def test_the_page_says_who_what_and_by_which_rule(here: Ward, reader: httpx.Client) -> None:
    study = here.studies["plain"]
    (found,) = rows(here.gateway, "SELECT * FROM analysis WHERE study_instance_uid = ?", study)
    said = words(reader, study)
    for expected in (
        "Doe, Jane",
        "P7&?",
        "(H)",
        "1970-01-01, 50 y, F",
        "A1",
        "2020-04-01 10:15:00",
        f"COVID-19: {found['outcome']}",
        f"{100 * found['probability']:.1f} % calibrated probability",
        "Positive from 72 %, negative below 39 %, indeterminate between",
        "No usable window is stated",
        "Thoracle COVID-19 chest radiograph classification 0.3.1, generation 1",
        found["bundle_digest"],
        "Research use only, not for diagnosis.",
        "Not verified by a physician",
        "structured report ✓ delivered",
        "accepted, storage not confirmed",
        "Conclusion: AI result for research, not verified by a physician",
        "instance stored SENDER status 0x0000",
        "delivery succeeded to archive, proof: status",
    ):
        assert expected in said
    assert 'href="/model-card"' in page(reader, study)
    assert f"https://viewer.example/?study={study}&amp;patient=P7%26%3F" in page(reader, study)


def test_a_rejected_image_is_as_visible_as_another(here: Ward, reader: httpx.Client) -> None:
    said = words(reader, here.studies["two"])
    assert said.count("⊘ rejected") == 2  # in the choice of images, and below its picture
    assert "View is not frontal NOT-FRONTAL" in said
    assert "found View Position 'LL', required:" in said
    shown = re.findall(r'<figure class="viewer"[^>]+>', page(reader, here.studies["two"]))
    assert len(shown) == 2
    (first,) = (one for one in shown if "hidden" not in one)
    number = re.search(r'data-image="(\d)"', first)
    assert number is not None
    assert f"Image {number[1]}, PA" in said  # the one that made the outcome


def test_rejected_is_never_told_as_negative(here: Ward, reader: httpx.Client) -> None:
    said = words(reader, here.studies["hand"])
    assert "Body part is not the chest. Rejected does not mean negative." in said
    assert "calibrated probability" not in said
    assert "No overlay: the image was not analysed." in said


def test_other_studies_are_those_of_the_same_patient_of_the_same_issuer(
    here: Ward, reader: httpx.Client
) -> None:
    links = re.findall(r'<td><a href="/study/([0-9.]+)"', page(reader, here.studies["plain"]))
    assert links == [here.studies["two"]]
    assert "No other studies with the same" in words(reader, here.studies["stranger"])


def test_a_study_that_nobody_knows_has_no_page(reader: httpx.Client) -> None:
    for path in ("/study/1.2.3", "/study/1.2.3/state", "/study/%3Cscript%3E"):
        answer = reader.get(path)
        assert answer.status_code == 404
        assert "there is no such study" in answer.text
        assert "<script>alert" not in answer.text


# ---- what it records -------------------------------------------------------------------------


def test_each_view_is_one_row_and_what_belongs_to_it_none(here: Ward, reader: httpx.Client) -> None:
    study = here.studies["plain"]
    before = len(here.site.events())
    for address in set(IMAGE.findall(page(reader, study))):
        assert reader.get(address.replace("&amp;", "&")).status_code == 200
    for waiting in ("true", "false"):
        assert reader.get(f"/study/{study}/state?waiting={waiting}").status_code == 200
    (event,) = here.site.events()[before:]
    assert (event.event, event.user_id, event.network_address) == (
        "study viewed",
        "reader",
        "127.0.0.1",
    )
    assert (event.study_instance_uid, event.patient_id) == (study, "P7&?")
    assert event.detail == {"means": "GET /study/{uid}"}


def test_what_the_page_asks_for_again_and_again_tells_nothing_of_a_patient(
    here: Ward, reader: httpx.Client
) -> None:
    study = here.studies["plain"]
    newest = re.search(r"state\?report=([0-9.]+)", page(reader, study))
    assert newest is not None
    same = reader.get(f"/study/{study}/state?report={newest[1]}").text
    other = reader.get(f"/study/{study}/state?report=1.2.3").text
    assert "The study has changed" in other
    assert "The study has changed" not in same
    for text in (same, other):
        assert not {"Doe", "P7", "A1"} & set(re.findall(r"\w+", text))


def test_readers_see_what_was_done_and_auditors_who_looked(
    here: Ward, reader: httpx.Client
) -> None:
    study = here.studies["hand"]
    page(reader, study)
    said = words(reader, study)
    assert "study complete" in said
    assert "study viewed" not in said
    assert "127.0.0.1" not in said
    with here.site.client("auditor") as auditor:
        said = words(auditor, study)
    assert "study viewed reader 127.0.0.1" in said


# ---- pictures --------------------------------------------------------------------------------


def picture(client: httpx.Client, study: str, kind: str) -> httpx.Response:
    (address,) = {one for one in IMAGE.findall(page(client, study)) if f"/{kind}/" in one}
    return client.get(address)


def test_the_pictures_are_the_radiograph_and_what_the_gateway_made(
    here: Ward, reader: httpx.Client
) -> None:
    study = here.studies["plain"]
    (image,) = rows(here.gateway, "SELECT path FROM instance WHERE study_instance_uid = ?", study)
    model = pixels.read_image(here.gateway.data_folder / image["path"]).array[0] * 255
    answer = picture(reader, study, "radiograph")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "no-store"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)), np.float32)
    assert np.abs(shown - model).max() <= 0.5
    overlay = np.asarray(Image.open(io.BytesIO(picture(reader, study, "overlay").content)))
    assert overlay.shape == (512, 512, 4)
    assert 0 < (overlay[..., 3] > 0).mean() < 0.5
    (made,) = rows(
        here.gateway,
        "SELECT path FROM result WHERE study_instance_uid = ? AND kind = 'sc'",
        study,
    )
    key = np.asarray(Image.open(io.BytesIO(picture(reader, study, "key-image").content)))
    assert np.array_equal(key, dcmread(here.gateway.data_folder / made["path"]).pixel_array)


def test_no_picture_is_seen_without_its_page(here: Ward, reader: httpx.Client) -> None:
    study, other = here.studies["plain"], here.studies["hand"]
    (address,) = {one for one in IMAGE.findall(page(reader, study)) if "/radiograph/" in one}
    path, _, view = address.partition("?view=")
    later, _, signature = view.partition("-")
    for wrong in (
        path,
        f"{path}?view=",
        f"{path}?view={view[:-1]}",
        f"{path}?view={int(later) + 1}-{signature}",
        f"{path}?view=1-{signature}",
        address.replace(study, other),
    ):
        assert reader.get(wrong).status_code in (403, 422), wrong
    with here.site.client("chief") as chief:
        assert chief.get(address).status_code == 403
    with here.site.visitor() as visitor:
        assert visitor.get(address).status_code == 303
    assert reader.get(address).status_code == 200
    for absent in ("/radiograph/2.png", "/radiograph/0.png", "/other/1.png"):
        wrong = address.replace("/radiograph/1.png", absent)
        assert reader.get(wrong).status_code == 404


def test_an_image_that_was_damaged_costs_its_picture_alone(
    here: Ward, reader: httpx.Client
) -> None:
    study = here.send(*of_study(1, PatientID="P11"))
    (image,) = rows(here.gateway, "SELECT path FROM instance WHERE study_instance_uid = ?", study)
    path = here.gateway.data_folder / image["path"]
    path.write_bytes(path.read_bytes()[:2000])
    assert picture(reader, study, "radiograph").status_code == 422
    path.unlink()
    assert "Doe, Jane" in words(reader, study)
    assert picture(reader, study, "radiograph").status_code == 422


# ---- hostile text ----------------------------------------------------------------------------


def test_hostile_text_in_every_field_is_text(here: Ward, reader: httpx.Client) -> None:
    usual = Shape(page(reader, here.studies["plain"]))
    fields = (
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "AccessionNumber",
        "StudyDescription",
        "SeriesDescription",
        "StationName",
        "InstitutionName",
        "PatientAge",
        "Manufacturer",
    )
    study = here.send(*of_study(1, **dict.fromkeys(fields, HOSTILE)))
    text = page(reader, study)
    shape = Shape(text)
    # The same page but for the rows of the other study of the plain one's patient.
    assert {*shape.tags} <= {*usual.tags}
    assert "<script>alert(1)" in shape.text
    assert not re.search(rf"\b{191 * 193}\b", shape.text)  # what a template made of its text


def test_long_names_and_control_characters_do_no_harm(here: Ward, reader: httpx.Client) -> None:
    study = here.send(
        *of_study(
            1,
            SpecificCharacterSet="ISO_IR 192",
            PatientName="A" * 4_000,
            StudyDescription="x\x00\x1b[31m\u202e\r\nSet-Cookie: a=b" + "y" * 4_000,
            PatientID="P12",
        )
    )
    text = page(reader, study)
    assert "A" * 200 + "…" in text
    assert "A" * 201 not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)
    assert len(text) < 100_000


def test_wording_is_one_line_of_limited_length() -> None:
    assert wording.person_name("Doe^Jane^M^Dr^") == "Doe, Jane M Dr"
    assert wording.person_name("=山田^太郎=やまだ^たろう") == "山田, 太郎"
    assert wording.person_name("^^^=") == ""
    assert wording.plain("a\x00\u202eb", 3) == "a\ufffd\ufffd…"
    assert wording.date("20200401") == "2020-04-01"
    assert wording.date("today") == "today"
    assert wording.percent(None) == ""


# ---- verdicts --------------------------------------------------------------------------------


def test_a_reader_judges_and_the_history_is_shown(here: Ward, reader: httpx.Client) -> None:
    study = here.studies["stranger"]
    answer = judge(reader, study, comment="<b>first</b>\nline", opinion="disagree")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"/study/{study}?done=verdict",
    )
    with here.site.client("chief") as chief:
        assert judge(chief, study, opinion="not applicable").status_code == 303
    text = page(reader, study)
    assert "&lt;b&gt;first&lt;/b&gt;\nline" in text
    said = " ".join(Shape(text).text.split())
    assert said.index("not applicable ✓ current by chief,") < said.index("disagree by reader,")
    found = rows(
        here.gateway,
        "SELECT opinion, comment, person FROM verdict WHERE study_instance_uid = ? ORDER BY id",
        study,
    )
    assert [(one["opinion"], one["person"]) for one in found] == [
        ("disagree", "reader"),
        ("not applicable", "chief"),
    ]
    assert found[0]["comment"] == "<b>first</b>\nline"
    (listed,) = rows(
        here.gateway, "SELECT verdict FROM worklist WHERE study_instance_uid = ?", study
    )
    assert listed["verdict"] == "not applicable"
    events = [one for one in here.site.events("verdict given") if one.study_instance_uid == study]
    assert [one.user_id for one in events] == ["reader", "chief"]
    assert {one.network_address for one in events} == {"127.0.0.1"}


def test_nobody_else_judges(here: Ward, reader: httpx.Client) -> None:
    study = here.studies["two"]
    report = report_of(reader, study)
    form = {"opinion": "agree", "report": report}
    for name in ("auditor", "administrator"):
        with here.site.client(name) as client:
            assert client.get(f"/study/{study}").status_code == 200
            answer = client.post(f"/study/{study}/verdict", data=form)
            assert answer.status_code == 403
            assert "the role reader is required" in answer.text
            assert 'name="opinion"' not in page(client, study)
    with here.site.visitor() as visitor:
        token = {"csrf_token": csrf_token(visitor)}
        assert visitor.post(f"/study/{study}/verdict", data=form | token).status_code == 303
    for headers in ({"X-CSRF-Token": "0" * 64}, {"Sec-Fetch-Site": "cross-site"}):
        answer = reader.post(f"/study/{study}/verdict", data=form, headers=headers)
        assert answer.status_code == 403
    assert rows(here.gateway, "SELECT * FROM verdict WHERE study_instance_uid = ?", study) == []


def test_a_verdict_is_about_what_was_seen(here: Ward, reader: httpx.Client) -> None:
    study = here.studies["two"]
    assert judge(reader, study, report="1.2.3").status_code == 409
    assert judge(reader, study, opinion="maybe").status_code == 422
    assert judge(reader, study, comment="x" * 2001).status_code == 422
    assert reader.post("/study/1.2.3/verdict", data={"opinion": "agree", "report": "1"}).is_error
    assert rows(here.gateway, "SELECT * FROM verdict WHERE study_instance_uid = ?", study) == []


# ---- administration --------------------------------------------------------------------------


def test_readers_and_auditors_administer_nothing(here: Ward, reader: httpx.Client) -> None:
    study = here.studies["held"]
    assert "Administration" not in words(reader, study)
    with here.site.client("auditor") as auditor:
        for client in (reader, auditor):
            for what in ("release", "retry", "reanalyse", "withdraw"):
                answer = client.post(f"/study/{study}/{what}", data={"reason": "x"})
                assert answer.status_code == 403, what


def test_an_administrator_releases_reads_again_and_withdraws(here: Ward) -> None:
    study = here.studies["held"]
    with here.site.client("administrator") as client:
        assert "held by a rule: not sent" in words(client, study)
        answer = client.post(f"/study/{study}/retry")
        assert answer.status_code == 409
        assert "found nothing refused or given up" in answer.text
        answer = client.post(f"/study/{study}/release")
        assert answer.status_code == 303
        assert (
            "Release requested: the result will be sent."
            in client.get(answer.headers["location"]).text
        )
        eventually(lambda: here.states(study) == {"delivered"})
        assert client.post(f"/study/{study}/release").status_code == 409
        assert client.post(f"/study/{study}/reanalyse").status_code == 303
        eventually(lambda: "generation 2" in words(client, study))
        eventually(lambda: "held by a rule" in words(client, study))
        assert client.post(f"/study/{study}/withdraw", data={"reason": " "}).status_code == 409
        reason = "<b>wrong</b> patient"
        assert client.post(f"/study/{study}/withdraw", data={"reason": reason}).status_code == 303
        eventually(lambda: "withdrawn, was" in words(client, study))
        assert "No active result." in words(client, study)
        shown = page(client, study)
        assert "it must not be used.</strong> Reason: &lt;b&gt;wrong&lt;/b&gt; patient</p>" in shown
    for verb in ("study released", "result withdrawn"):
        (event,) = (one for one in here.site.events(verb) if one.study_instance_uid == study)
        assert event.user_id == "administrator"


def test_what_an_archive_refused_is_as_visible_and_is_sent_again(here: Ward) -> None:
    here.archive.status = 0xA900
    try:
        study = here.send(*of_study(1, PatientID="P13"))
    finally:
        here.archive.status = 0x0000
    assert here.states(study) == {"refused"}
    with here.site.client("administrator") as client:
        said = words(client, study)
        assert "structured report ✖ refused" in said
        assert "0xA900" in said
        assert client.post(f"/study/{study}/retry").status_code == 303
        eventually(lambda: here.states(study) == {"delivered"})
        assert client.post(f"/study/{study}/retry").status_code == 409
    (event,) = (
        one for one in here.site.events("delivery retried") if one.study_instance_uid == study
    )
    assert event.user_id == "administrator"


# ---- the model card --------------------------------------------------------------------------


def test_the_model_card_is_a_page_with_its_pictures_and_parts(reader: httpx.Client) -> None:
    text = reader.get("/model-card").text
    assert "<h1>Thoracle COVID-19 chest radiograph classification</h1>" in text
    assert "<th>0.3.0, mean of three seeds (range)</th>" in text
    assert "style=" not in text
    (picture_,) = set(re.findall(r'src="(/model-card/reliability\.png)"', text))
    assert reader.get(picture_).headers["content-type"] == "image/png"
    assert reader.get("/model-card/results.md").status_code == 200
    for outside in (
        "..%2fconfigs%2fmetadata.json",
        "split.csv",
        "absent.md",
        "%2e%2e%2fx.png",
    ):
        assert reader.get(f"/model-card/{outside}").status_code in (404, 307), outside


def test_a_model_card_of_strangers_cannot_run_anything() -> None:
    made = str(
        about.html(
            "<script>alert(1)</script>\n\n[a](javascript:alert(1)) ![b](x.png) [c](../y.md)\n\n"
            "|a|\n|-:|\n|<img src=x onerror=alert(1)>|\n"
        )
    )
    shape = Shape(made)
    assert {tag for tag, _ in shape.tags} <= {
        *("p", "a", "img", "div", "table", "thead", "tbody", "tr", "th", "td")
    }
    assert not any({"style", "onerror"} & set(names) for _, names in shape.tags)
    assert "javascript:" not in re.sub(r"\[a\]\(javascript:alert\(1\)\)", "", made)
    assert 'src="/model-card/x.png"' in made
