"""E-mail: a short message for each result or alarm, over SMTP (RFC 5321) with TLS."""

import hashlib
import json
import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from typing import Any

from thoracle.deliver.dicomweb import PASSWORD, secret
from thoracle.errors import ArchiveRefused, ArchiveUnavailable, SettingsError
from thoracle.notify import document
from thoracle.outbox import senders
from thoracle.outbox.senders import AlarmNotice, OutboxItem, ResultNotice, SendAnswer, Sender
from thoracle.settings import ClientTLS, Email, Settings, tls
from thoracle.wording import IN_SUBJECTS

ENDED = SendAnswer("waiting", "the server ended the connection")
LOCAL = "thoracle.invalid"
"""Right side of a Message-ID, which names no machine of the hospital (RFC 2606)."""


def send(peer: Email, items: Sequence[OutboxItem]) -> Iterator[SendAnswer]:
    """Send messages on one connection; yield what was answered to each.

    When a message ends the connection, the next ones get another.
    """
    left = list(items)
    while left:
        with _connected(peer) as connection:
            answer = None
            while left and answer is not ENDED:
                answer = _sent(connection, peer, left.pop(0))
                yield answer


def _sent(connection: smtplib.SMTP, peer: Email, item: OutboxItem) -> SendAnswer:
    try:
        found = json.loads(item.path.read_bytes()) if item.path else item.content
        refused = connection.send_message(message(peer, item.key, found))
    except smtplib.SMTPServerDisconnected:
        return ENDED
    except smtplib.SMTPRecipientsRefused as error:
        code = max(code for code, _ in error.recipients.values())
        return senders.failure(_error(peer, code, "all recipients"), peer.name)
    except smtplib.SMTPResponseException as error:
        return senders.failure(_error(peer, error.smtp_code, "the message"), peer.name)
    except Exception as error:  # noqa: BLE001 - `failure` says what each means
        return senders.failure(error, peer.name)
    detail = f"{len(refused)} of {len(peer.to)} recipients refused" if refused else None
    return SendAnswer("delivered", detail, status="250", proof="acknowledgement")


def _error(peer: Email, code: int, what: str) -> Exception:
    """Return what a reply stands for: 4xx passes, 5xx does not (RFC 5321 Section 4.2.1)."""
    text = f"{_where(peer)} answered {code} to {what}"
    return ArchiveUnavailable(text) if code < 500 else ArchiveRefused(text)


def message(peer: Email, key: str, found: dict[str, Any]) -> EmailMessage:
    """Return the e-mail of a document.

    Subject and sender are the same for every attempt, and so is the Message-ID, by which a mailbox
    knows a repetition.
    """
    made = EmailMessage()
    made["Subject"] = _subject(found)
    made["From"] = peer.sender
    made["To"] = ", ".join(peer.to)
    made["Date"] = format_datetime(localtime())
    identifier = hashlib.sha256(f"{peer.name} {key}".encode()).hexdigest()[:32]
    made["Message-ID"] = f"<{identifier}@{LOCAL}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answer of a machine to it
    lines = [f"{name}: {_shown(value)}" for name, value in found.items() if value not in ("", None)]
    made.set_content("\n".join(lines) + "\n")
    return made


def _subject(found: dict[str, Any]) -> str:
    if found["type"] == "alarm":
        text = f"Thoracle: {found['level']}: {found['subject']}"
    else:
        name, outcome = found["finding"]["name"], found["outcome"] or "result"
        text = f"Thoracle: {name} {outcome} ({found['status']}), {IN_SUBJECTS}"
    return " ".join(text.split())


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(one) for one in value.values())
    return " ".join(str(value).split())


# ---- The connection ----------------------------------------------------------------------------


@contextmanager
def _connected(peer: Email, seconds: float | None = None) -> Iterator[smtplib.SMTP]:
    """Yield a connection that is secured and logged in, as the settings say.

    Raises
    ------
    ArchiveUnavailable
        Not reached, no TLS, or no log-in: the operator can mend each.
    """
    patience = min(seconds or peer.timeout_seconds, peer.timeout_seconds)
    where = _where(peer)
    try:
        with _opened(peer, patience) as connection:
            if peer.username is not None and peer.password is not None:
                word = secret(peer.password, PASSWORD, "a password without control characters")
                connection.login(peer.username, word)
            yield connection
    except SettingsError as error:
        raise ArchiveUnavailable(f"TLS files cannot be used: {error}") from error
    except smtplib.SMTPAuthenticationError as error:
        raise ArchiveUnavailable(f"{where} answered {error.smtp_code} to our log-in") from None
    except smtplib.SMTPException as error:
        raise ArchiveUnavailable(f"{where} {type(error).__name__}") from None
    except (ssl.SSLError, ConnectionError, TimeoutError) as error:
        raise ArchiveUnavailable(f"{where} {tls.failure(error)}") from error
    except OSError as error:
        raise ArchiveUnavailable(f"{where} not reached: {error.strerror or error}") from error


def _opened(peer: Email, seconds: float) -> smtplib.SMTP:
    context = tls.client_context(peer.tls or ClientTLS(), "email.tls")
    if peer.security == "tls":
        return smtplib.SMTP_SSL(peer.host, peer.port, timeout=seconds, context=context)
    connection = smtplib.SMTP(peer.host, peer.port, timeout=seconds)
    if peer.security == "starttls":
        try:
            connection.starttls(context=context)  # raises when it is not offered: never without
        except BaseException:
            connection.close()
            raise
    return connection


def _where(peer: Email) -> str:
    return f"{peer.host}:{peer.port}"


# ---- What it is to the outbox ------------------------------------------------------------------


def compose(peer: Email, notice: ResultNotice) -> str:
    """Write the document of a result; return its path below the data folder."""
    content = document.of_result(notice, patient_data=peer.patient_data)
    name = hashlib.sha256(f"{notice.report_sop_instance_uid} {peer.name}".encode()).hexdigest()
    return document.write(content, name[:20])


def alarm(peer: Email, raised: AlarmNotice) -> Any:
    """Return the document of an alarm; ``None`` when it is not told of any."""
    return document.of_alarm(raised, patient_data=peer.patient_data) if peer.alarms else None


def where(peer: Email) -> str:
    """Return by which server e-mail goes."""
    return f"SMTP {_where(peer)}"


def reach(peer: Email, _settings: Settings, seconds: float | None = None) -> str:
    """Return whether the server takes a connection and our log-in; nothing is sent."""
    with _connected(peer, seconds) as connection:
        connection.noop()
    how = {"tls": "with TLS", "starttls": "with STARTTLS", "none": "plain"}[peer.security]
    return f"takes connections, {how}; nothing was sent"


SENDER = Sender(
    kind="email",
    table="email",
    peers=lambda settings: settings.email,
    where=where,
    reach=reach,
    send=send,
    compose=compose,
    alarm=alarm,
)
