"""Webhooks: a small JSON document for each result or alarm, posted and signed.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com), so that a
receiver can check them with a library of its own language.
"""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import requests

from thoracle.deliver.dicomweb import WebPeer, address, failure, secret, talking
from thoracle.notify import document
from thoracle.outbox import senders
from thoracle.outbox.senders import AlarmNotice, OutboxItem, ResultNotice, SendAnswer, Sender
from thoracle.settings import Settings, Webhook

_SECRET = re.compile(r"[\x21-\x7e]{16,}")
_PREFIX = "whsec_"
"""Before a secret in base64; without it the characters are the secret."""


def send(webhook: Webhook, items: Sequence[OutboxItem]) -> Iterator[SendAnswer]:
    """Post documents on one connection; yield what was answered to each."""
    peer = _peer(webhook)
    key = _key(webhook)
    with talking(peer) as (session, _):
        for item in items:
            yield _posted(session, peer, key, item)


def _posted(session: requests.Session, peer: WebPeer, key: bytes, item: OutboxItem) -> SendAnswer:
    try:
        body = item.path.read_bytes() if item.path else json.dumps(item.content).encode()
    except OSError as error:
        return senders.failure(error, address(peer))
    headers = signed(key, f"{item.number}-{item.key}"[:64], int(time.time()), body)
    try:
        response = session.post(
            peer.url, data=body, headers=headers, timeout=peer.timeout_seconds, stream=True
        )
    except requests.ReadTimeout:  # of this document; the next one may be taken
        text = f"{address(peer)} did not answer in {peer.timeout_seconds:g} s"
        return SendAnswer("waiting", text)
    with response:  # what it says beside the status is not read
        status = response.status_code
    if 200 <= status < 300:
        return SendAnswer("delivered", status=str(status), proof="acknowledgement")
    return senders.failure(failure(peer, status), address(peer))


def signed(key: bytes, identifier: str, moment: int, body: bytes) -> dict[str, str]:
    """Return the headers of a document: HMAC-SHA256 over identifier, time and body.

    The identifier is the same for each attempt at the same document.
    """
    content = f"{identifier}.{moment}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": identifier,
        "webhook-timestamp": str(moment),
        "webhook-signature": f"v1,{signature}",
    }


def _key(webhook: Webhook) -> bytes:
    text = secret(webhook.secret, _SECRET, "16 or more characters without spaces")
    if not text.startswith(_PREFIX):
        return text.encode()
    return base64.b64decode(text.removeprefix(_PREFIX))


def _peer(webhook: Webhook) -> WebPeer:
    return WebPeer(webhook.url, webhook.timeout_seconds, tls=webhook.tls)


def compose(webhook: Webhook, notice: ResultNotice) -> str:
    """Write the document of a result; return its path below the data folder."""
    content = document.of_result(notice, patient_data=webhook.patient_data)
    name = hashlib.sha256(f"{notice.report_sop_instance_uid} {webhook.name}".encode()).hexdigest()
    return document.write(content, name[:20])


def alarm(webhook: Webhook, raised: AlarmNotice) -> Any:
    """Return the document of an alarm; ``None`` when it is not told of any."""
    if not webhook.alarms:
        return None
    return document.of_alarm(raised, patient_data=webhook.patient_data)


def where(webhook: Webhook) -> str:
    """Return where a webhook is: a path may hold a secret, so not the whole url."""
    return f"webhook {address(_peer(webhook))}"


def reach(webhook: Webhook, _settings: Settings, seconds: float | None = None) -> str:
    """Return whether a webhook answers, and how; nothing is posted."""
    _key(webhook)
    patience = min(seconds or webhook.timeout_seconds, webhook.timeout_seconds)
    peer = WebPeer(webhook.url, patience, tls=webhook.tls)
    with talking(peer) as (session, _):
        status = session.options(webhook.url, timeout=patience).status_code
    return f"answers OPTIONS with {status}; nothing was posted"


SENDER = Sender(
    kind="webhook",
    table="webhook",
    peers=lambda settings: settings.webhook,
    where=where,
    reach=reach,
    send=send,
    compose=compose,
    alarm=alarm,
)
