"""Receivers of HL7 messages: each is told of a result by an ORU^R01."""

import hashlib
from collections.abc import Iterator, Sequence

from thoracle.hl7 import mllp, oru
from thoracle.hl7.oru import ReportReference
from thoracle.outbox.senders import OutboxItem, ResultNotice, SendAnswer, Sender, failure
from thoracle.settings import HL7, Settings
from thoracle.study.line import parts


def compose(receiver: HL7, notice: ResultNotice) -> str:
    """Write the message to a receiver durably; return its path below the data folder."""
    name = f"{notice.report_sop_instance_uid} {receiver.name}"
    control_id = hashlib.sha256(name.encode()).hexdigest()[:20]
    content = oru.oru(
        notice.source,
        notice.readings,
        notice.bundle,
        ReportReference(notice.report_series_instance_uid, notice.report_sop_instance_uid),
        receiver,
        sentence=notice.sentence,
        control_id=control_id,
        made=notice.made,
        status=notice.status,
    )
    below = f"messages/{control_id[-2:]}/{control_id}.hl7"
    parts().objects.write(below, content)
    return below


def send(receiver: HL7, items: Sequence[OutboxItem]) -> Iterator[SendAnswer]:
    """Send messages, each on a connection of its own (hl7/mllp.py says why)."""
    for item in items:
        assert item.path is not None  # a message that could not be written is not sent
        try:
            message = item.path.read_bytes()
        except OSError as error:
            yield failure(error, receiver.name)
            continue
        yield _answer(receiver, message)


def _answer(receiver: HL7, message: bytes) -> SendAnswer:
    try:
        mllp.send(receiver, message)
    except mllp.NotReached:  # nor by the next message
        raise
    except Exception as error:  # noqa: BLE001 - `failure` says what each means
        return failure(error, receiver.name)
    return SendAnswer("delivered", proof="acknowledgement")


def where(receiver: HL7) -> str:
    """Return where a receiver is."""
    return f"HL7 {receiver.host}:{receiver.port}"


def reach(receiver: HL7, _settings: Settings, seconds: float | None = None) -> str:
    """Return whether a receiver takes a connection."""
    patience = min(seconds or receiver.timeout_seconds, receiver.timeout_seconds)
    mllp.reach(receiver.model_copy(update={"timeout_seconds": patience}))
    how = "plain" if receiver.tls is None else "with TLS"
    return f"takes connections, {how}; nothing was sent"


SENDER = Sender(
    kind="hl7",
    table="hl7",
    peers=lambda settings: settings.hl7,
    where=where,
    reach=reach,
    send=send,
    compose=compose,
)
