"""A listener with our workitems and a database of its own: nothing is analysed, no gateway runs."""

from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import Engine, select

import sources
from pacs import free_port
from thoracle.image.decoder import Decoder
from thoracle.receive import storescp
from thoracle.receive.duplicates import Frames
from thoracle.receive.inbox import Inbox
from thoracle.report import context
from thoracle.settings import parse
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.object_files import Objects
from thoracle.store.tables import audit_event, outbox, workitem_subscription
from thoracle.study import instances
from thoracle.study.instances import Received
from thoracle.ups import review
from thoracle.ups import workitems as audited
from thoracle.ups.scp import Workitems
from workflow import Reader

NOBODY = "2.25.4711"


class Listener:
    """A listener with workitems, on a database of its own; nothing is analysed."""

    def __init__(self, folder: Path, **tables: Any) -> None:
        self.folder, self.port = folder, free_port()
        self.settings = parse({"receive": {"port": self.port}, "ups": {"offer": True}, **tables})
        self.told: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        self.database: Engine = open_database(sqlite_url(self.folder))
        inbox = Inbox(self.folder, self.settings.receive)
        services = Workitems(self.settings, self.database.begin, self.told.extend)
        self._listener = storescp.Listener(
            self.settings.receive,
            inbox,
            Frames(Objects(self.folder), Decoder(2048, 60), self.settings.receive.budget),
            self.database,
            lambda *_: None,
            lambda *_: False,
            services.support,
        )
        self._listener.start()

    def stop(self) -> None:
        self._listener.stop(1)
        self.database.dispose()

    def offer(self, image: Dataset | None = None, **attributes: Any) -> str:
        """Return the UID of a new workitem about a study of one image."""
        image = image or sources.dx(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
        reading = sources.positive(image)
        uid = str(generate_uid())
        ds = review.build(
            context.study_context(image),
            context.referenced_requests([image]),
            [reading],
            sources.BUNDLE,
            sop_instance_uid=uid,
            worklist_label="THORACLE",
            scheduled="20261124101500+0000",
        )
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        values = {
            "sop_instance_uid": uid,
            "study_instance_uid": str(image.StudyInstanceUID),
            "generation": 1,
            "bundle_digest": "d",
            "attributes": ds.to_json_dict(),
        }
        with self.database.begin() as connection:
            received = _received(image)
            instances.lock_study(connection, received)
            if instances.latest(connection, received.sop_instance_uid) is None:
                instances.add(connection, received, generation=1)
            self.told += audited.offer(connection, values, held=False, workflow_id="test")
        return uid

    def changes(self, uid: str) -> list[tuple[Any, ...]]:
        """Return event, caller, old and new state of each row of the audit on a workitem."""
        statement = (
            select(audit_event)
            .where(audit_event.c.sop_instance_uid == uid, audit_event.c.event.like("workitem%"))
            .order_by(audit_event.c.id)
        )
        with self.database.connect() as connection:
            return [
                (row.event, row.calling_ae_title, row.detail["from"], row.detail["to"])
                for row in connection.execute(statement)
            ]

    def reports(self, ae_title: str) -> list[tuple[str, int, dict[str, Any]]]:
        """Return what a station is to be told: workitem, event type and information."""
        statement = (
            select(outbox.c.content)
            .where(outbox.c.kind == "ups", outbox.c.peer == ae_title)
            .order_by(outbox.c.id)
        )
        with self.database.connect() as connection:
            return [
                (one["workitem"], one["event_type_id"], one["information"])
                for one in connection.execute(statement).scalars()
            ]

    def subscriptions(self, ae_title: str) -> dict[str, int]:
        statement = select(workitem_subscription).where(
            workitem_subscription.c.ae_title == ae_title
        )
        with self.database.connect() as connection:
            return {
                row.sop_instance_uid: row.deletion_lock for row in connection.execute(statement)
            }


def _received(image: Dataset) -> Received:
    return Received(
        sop_class_uid=str(image.SOPClassUID),
        sop_instance_uid=str(image.SOPInstanceUID),
        study_instance_uid=str(image.StudyInstanceUID),
        series_instance_uid=str(image.SeriesInstanceUID),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_id="P1",
        issuer_of_patient_id="",
        accession_number="A1",
        priority=100,
        path="images/none.dcm",
        size=1,
        sha256="0",
        calling_ae_title="PACS",
        peer_address="127.0.0.1",
    )


SUBSCRIBERS = [
    {"ae_title": "STATION", "host": "127.0.0.1", "port": 11112},
    {"ae_title": "OTHER", "host": "127.0.0.1", "port": 11113},
]


def scheduled(reader: Reader, uid: str) -> None:
    pass


def in_progress(reader: Reader, uid: str) -> None:
    assert reader.claim(uid) == 0


def completed(reader: Reader, uid: str) -> None:
    in_progress(reader, uid)
    assert reader.complete(uid) == 0


def canceled(reader: Reader, uid: str) -> None:
    in_progress(reader, uid)
    assert reader.cancel(uid) == 0
