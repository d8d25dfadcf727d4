"""People are told by e-mail: over TLS, again until it is taken, and of no patient."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, Session
from pydantic import ValidationError

from certificates import Authority
from gateway import Gateway
from ledger import eventually, rows
from pacs import free_port
from sender import send as send_image
from sender import small
from thoracle.errors import ArchiveUnavailable
from thoracle.notify.smtp import SENDER
from thoracle.outbox.senders import OutboxItem
from thoracle.settings import Email, Settings

RESULT = {
    "type": "result",
    "finding": {"name": "Pneumonia", "code": "233604007", "scheme": "SCT"},
    "outcome": "positive",
    "status": "preliminary",
    "probability": 0.93,
}
ALARM = {"type": "alarm", "subject": "scores", "level": "alarm", "sentence": "Scores differ."}


class Mailbox:
    """What came, and what is answered to it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.came: list[bytes] = []
        self.recipients: list[str] = []
        self.reply = "250 OK"
        self.secured: list[bool] = []

    async def handle_RCPT(
        self, _server: Any, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.secured.append(session.ssl is not None)
        if self.reply.startswith("250"):
            self.came.append(envelope.content)
            self.recipients += envelope.rcpt_tos
        return self.reply

    @property
    def messages(self) -> list[Message]:
        return [message_from_bytes(one) for one in self.came]


@contextmanager
def serving(context: ssl.SSLContext | None = None, **options: Any) -> Iterator[Mailbox]:
    """Run a mail server on this machine, with STARTTLS when there is a context."""
    mailbox = Mailbox()
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=mailbox.port,
        tls_context=context,
        require_starttls=context is not None,
        **options,
    )
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    server = authority.issue("server", "127.0.0.1")
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(server.certificate_file, server.key_file)
    return made


def peer(port: int, **settings: Any) -> Email:
    values = {
        "name": "duty",
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "thoracle@hospital.example",
        "to": ("one@hospital.example", "two@hospital.example"),
    }
    return Email.model_validate({**values, **settings})


def items(*documents: dict[str, Any]) -> list[OutboxItem]:
    return [
        OutboxItem(number, f"item-{number}", content=one) for number, one in enumerate(documents)
    ]


# aiosmtpd sets what it calls deprecated itself.
@pytest.mark.filterwarnings("ignore:Session.login_data:DeprecationWarning")
def test_messages_go_on_one_connection_with_starttls_and_log_in(
    tmp_path: Path, authority: Authority, context: ssl.SSLContext
) -> None:
    (tmp_path / "word").write_text("correct horse\n")
    seen: list[bytes] = []

    def log_in(_server: Any, _session: Any, _envelope: Any, _how: str, data: Any) -> AuthResult:
        seen.append(data.password)
        return AuthResult(success=data.password == b"correct horse", handled=False)

    settings = {
        "security": "starttls",
        "tls": {"ca_file": authority.ca_file},
        "username": "thoracle",
        "password": f"file:{tmp_path / 'word'}",
    }
    with serving(context, authenticator=log_in, auth_required=True) as mailbox:
        answers = list(SENDER.send(peer(mailbox.port, **settings), items(RESULT, ALARM)))
        (tmp_path / "word").write_text("wrong\n")
        with pytest.raises(ArchiveUnavailable, match="answered 535 to our log-in"):
            list(SENDER.send(peer(mailbox.port, **settings), items(RESULT)))
    assert [(one.state, one.proof, one.detail) for one in answers] == [
        ("delivered", "acknowledgement", None)
    ] * 2
    assert mailbox.secured == [True, True]
    assert seen[0] == b"correct horse"
    result, alarm = mailbox.messages
    assert result["Subject"] == "Thoracle: Pneumonia positive (preliminary), research use only"
    assert alarm["Subject"] == "Thoracle: alarm: scores"
    assert "probability: 0.93" in str(result.get_payload())
    assert result["Message-ID"] != alarm["Message-ID"]


def test_without_starttls_nothing_is_sent_in_plain(authority: Authority) -> None:
    with serving() as mailbox:
        one = peer(mailbox.port, security="starttls", tls={"ca_file": authority.ca_file})
        with pytest.raises(ArchiveUnavailable):
            list(SENDER.send(one, items(RESULT)))
    assert mailbox.came == []


def test_a_server_that_another_authority_names_is_not_believed(
    tmp_path: Path, context: ssl.SSLContext
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    with serving(context) as mailbox:
        one = peer(mailbox.port, security="starttls", tls={"ca_file": other.ca_file})
        with pytest.raises(ArchiveUnavailable, match="certificate"):
            list(SENDER.send(one, items(RESULT)))
    assert mailbox.came == []


@pytest.mark.parametrize(
    ("reply", "state"),
    [("250 OK", "delivered"), ("451 try later", "waiting"), ("554 no", "refused")],
)
def test_what_a_reply_means(reply: str, state: str) -> None:
    with serving() as mailbox:
        mailbox.reply = reply
        found = [one.state for one in SENDER.send(peer(mailbox.port), items(RESULT, ALARM))]
    assert found == [state, state]


def test_recipients_that_are_refused_do_not_keep_it_from_the_others() -> None:
    to = ("nobody@hospital.example", "one@hospital.example")
    with serving() as mailbox:
        (answer,) = SENDER.send(peer(mailbox.port, to=to), items(RESULT))
        (all_refused,) = SENDER.send(peer(mailbox.port, to=to[:1]), items(RESULT))
    assert (answer.state, answer.detail) == ("delivered", "1 of 2 recipients refused")
    assert mailbox.recipients == ["one@hospital.example"]
    assert (all_refused.state, "550" in str(all_refused.detail)) == ("refused", True)


def test_a_subject_has_no_line_of_its_own() -> None:
    hostile = {**ALARM, "subject": "scores\r\nBcc: all@hospital.example"}
    with serving() as mailbox:
        (answer,) = SENDER.send(peer(mailbox.port), items(hostile))
    assert answer.state == "delivered"
    (message,) = mailbox.messages
    assert message["Bcc"] is None
    assert mailbox.recipients == ["one@hospital.example", "two@hospital.example"]


def test_plain_is_for_this_machine_alone() -> None:
    for settings in ({"host": "mail.example"}, {"username": "a", "password": "env:A"}):
        with pytest.raises(ValidationError, match="found security none"):
            peer(25, **settings)


def test_reach_sends_nothing() -> None:
    with serving() as mailbox:
        assert SENDER.reach(peer(mailbox.port), Settings(), 5) == (
            "takes connections, plain; nothing was sent"
        )
    assert mailbox.came == []


def test_a_result_is_told_by_e_mail_without_a_patient_when_the_server_is_back(
    tmp_path: Path,
) -> None:
    with serving() as mailbox:
        mailbox.reply = "451 greylisted"
        table = {
            **peer(mailbox.port).model_dump(exclude_defaults=True),
            "outcomes": ["positive", "negative", "indeterminate", "rejected"],
        }
        with Gateway(tmp_path, lists={"email": [table]}) as gateway:
            image = small(PatientName="Kowalski^Jan", PatientID="P-4711")
            assert send_image(gateway.port, image).status == 0x0000
            waiting = "SELECT attempts FROM outbox WHERE kind = 'email' AND attempts > 0"
            eventually(lambda: rows(gateway, waiting))
            mailbox.reply = "250 OK"
            eventually(lambda: mailbox.came)
            delivered = "SELECT 1 FROM outbox WHERE kind = 'email' AND state = 'delivered'"
            eventually(lambda: rows(gateway, delivered))
            study = str(image.StudyInstanceUID)
            assert "duty email delivered" in gateway.run("status", study)
    said = mailbox.came[0].decode()
    for hidden in ("Kowalski", "P-4711", study):
        assert hidden not in said
    assert "Research use only, not for diagnosis" in said
