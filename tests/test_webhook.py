"""A program is told of results and alarms: signed, again until it takes them, and of no patient."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook as Verifier

from certificates import Authority
from gateway import Gateway
from ledger import eventually, rows
from sender import send as send_image
from sender import small
from thoracle.errors import ArchiveUnavailable
from thoracle.notify.webhook import SENDER
from thoracle.outbox.senders import AlarmNotice, OutboxItem
from thoracle.pipeline.senders import add_alarm
from thoracle.settings import Settings, Webhook, load
from thoracle.store.database import existing

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAME, PATIENT, ORDER = "Kowalski^Jan", "P-4711", "A-0815"


class Receiver:
    """What came, and what is answered to it."""

    def __init__(self) -> None:
        self.port = 0
        self.status = 204
        self.came: list[tuple[dict[str, str], bytes]] = []

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.came]


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver of webhooks on this machine."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.came.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self._answer(receiver.status)

        def do_OPTIONS(self) -> None:
            self._answer(200)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "webhook.secret"
    path.write_text(SECRET + "\n")
    return f"file:{path}"


def webhook(port: int, secret: str, **settings: Any) -> Webhook:
    values = {"name": "chat", "url": f"http://127.0.0.1:{port}/in", "secret": secret}
    return Webhook.model_validate({**values, **settings})


def documents(number: int) -> list[OutboxItem]:
    return [OutboxItem(one, f"item-{one}", content={"number": one}) for one in range(number)]


def test_each_document_is_signed_so_that_a_library_of_others_verifies_it(secret: str) -> None:
    with receiving() as receiver:
        answers = list(SENDER.send(webhook(receiver.port, secret), documents(2)))
    assert [(one.state, one.status, one.proof) for one in answers] == [
        ("delivered", "204", "acknowledgement")
    ] * 2
    for number, (headers, body) in enumerate(receiver.came):
        assert Verifier(SECRET).verify(body, headers) == {"number": number}
        with pytest.raises(Exception, match="No matching signature"):
            Verifier(SECRET).verify(body + b" ", headers)
    first = receiver.came[0][0]["webhook-id"]
    assert first != receiver.came[1][0]["webhook-id"]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *((one, "delivered") for one in (200, 201, 202, 204)),
        *((one, "refused") for one in (400, 404, 410, 422)),
        *((one, "waiting") for one in (401, 403, 408, 429, 500, 502, 503)),
    ],
)
def test_what_an_answer_means(secret: str, status: int, state: str) -> None:
    with receiving() as receiver:
        receiver.status = status
        (answer,) = SENDER.send(webhook(receiver.port, secret), documents(1))
    assert (answer.state, len(receiver.came)) == (state, 1)
    assert state == "delivered" or str(status) in str(answer.detail)


def test_no_redirection_is_followed(secret: str) -> None:
    with receiving() as receiver:
        receiver.status = 302
        with pytest.raises(ArchiveUnavailable, match="redirects to another address"):
            list(SENDER.send(webhook(receiver.port, secret), documents(1)))


def test_a_secret_that_cannot_be_read_or_is_short_is_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")
    for secret in (f"file:{tmp_path / 'none'}", f"file:{tmp_path / 'short'}", "env:NOWHERE"):
        with pytest.raises(ArchiveUnavailable):
            list(SENDER.send(webhook(1, secret), documents(1)))


def test_patient_data_goes_over_https_alone(secret: str) -> None:
    with pytest.raises(ValidationError, match="required: an https url"):
        webhook(1, secret, patient_data=True)


def test_reach_posts_nothing(secret: str) -> None:
    with receiving() as receiver:
        said = SENDER.reach(webhook(receiver.port, secret), Settings(), 5)
    assert said == "answers OPTIONS with 200; nothing was posted"
    assert receiver.came == []


def test_a_result_is_told_without_a_patient_and_again_until_it_is_taken(
    tmp_path: Path, secret: str
) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.certificate_file, server.key_file)
    with receiving() as chat, receiving(context) as engine:
        chat.status = 503
        tables = [
            webhook(chat.port, secret, alarms=False).model_dump(exclude_defaults=True),
            {
                "name": "engine",
                "url": f"https://127.0.0.1:{engine.port}/in",
                "secret": secret,
                "patient_data": True,
                "alarms": False,
                "tls": {"ca_file": str(authority.ca_file)},
            },
        ]
        gateway = Gateway(tmp_path, lists={"webhook": [flat(one) for one in tables]})
        with gateway:
            image = small(PatientName=NAME, PatientID=PATIENT, AccessionNumber=ORDER)
            assert send_image(gateway.port, image).status == 0x0000
            study = str(image.StudyInstanceUID)
            eventually(lambda: engine.came)
            eventually(lambda: len(chat.came) >= 2)
            chat.status = 400
            state = "SELECT state FROM outbox WHERE peer = 'chat'"
            eventually(lambda: rows(gateway, state) == [{"state": "refused"}])
            assert "chat webhook refused" in gateway.run("status", study)
            chat.status = 200
            gateway.run("retry", study)
            eventually(lambda: rows(gateway, state) == [{"state": "delivered"}])
            events = rows(
                gateway, "SELECT * FROM audit_event WHERE destination = 'chat' ORDER BY id"
            )
    assert {one["webhook-id"] for one, _ in chat.came} == {chat.came[0][0]["webhook-id"]}
    told = b"".join(body for _, body in chat.came).decode()
    for hidden in (NAME, "Kowalski", PATIENT, ORDER, study, str(image.SOPInstanceUID)):
        assert hidden not in told
    (document,) = {json.dumps(one) for one in chat.documents}
    said = json.loads(document)
    assert (said["type"], said["status"]) == ("result", "preliminary")
    assert said["outcome"] in ("positive", "negative", "indeterminate", "rejected")
    assert said["research_use_only"] == "Research use only, not for diagnosis"
    (full,) = engine.documents
    assert (full["patient_id"], full["patient_name"]) == (PATIENT, NAME)
    assert (full["accession_number"], full["study_instance_uid"]) == (ORDER, study)
    verbs = [one["event"] for one in events]
    assert set(verbs[:-2]) == {"notification postponed"}
    assert verbs[-2:] == ["notification failed", "notification sent"]
    assert {one["event_type_code"] for one in events} == {"WEBHOOK"}


def flat(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table as the configuration of a test can say it: tables inside by dotted keys."""
    found = dict(table)
    for key, value in found.pop("tls", {}).items():
        found[f"tls.{key}"] = value
    return found


def test_an_alarm_is_told_once_by_whoever_is_told_of_alarms(tmp_path: Path, secret: str) -> None:
    alarm = AlarmNotice(
        "disk", "alarm", "The disk is nearly full.", "2026-11-29T20:00:00Z", "1.2.3"
    )
    with receiving() as chat, receiving() as deaf:
        tables = [
            webhook(chat.port, secret).model_dump(exclude_defaults=True),
            webhook(deaf.port, secret, name="deaf", alarms=False).model_dump(exclude_defaults=True),
        ]
        gateway = Gateway(tmp_path, lists={"webhook": tables})
        with gateway:
            assert gateway.terminate() == 0
        settings = load(gateway.config)
        database = existing(settings)
        for _ in range(2):
            with database.begin() as connection:
                add_alarm(connection, settings, alarm)
        database.dispose()
        with gateway:
            eventually(lambda: chat.came)
            delivered = "SELECT 1 FROM outbox WHERE state = 'delivered'"
            eventually(lambda: rows(gateway, delivered))
    assert len(chat.came) == 1
    assert deaf.came == []
    said = chat.documents[0]
    assert (said["type"], said["subject"], said["level"]) == ("alarm", "disk", "alarm")
    assert "1.2.3" not in json.dumps(said)
