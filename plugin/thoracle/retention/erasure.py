"""The erasure of a patient: files first, then rows, then what the audit says.

As a purge does it, a file goes after its row says so, and a row after its file: what a crash leaves
half done the next run finishes. The audit keeps its rows under a pseudonym (store/erased.py).
"""

import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pydicom import dcmread
from sqlalchemy import Connection, Engine

from thoracle.errors import ThoracleError
from thoracle.image.codecs import MALFORMED
from thoracle.retention import erasure_rows as stored
from thoracle.retention import study_rows
from thoracle.retention import subject as subjects
from thoracle.retention.erasure_rows import Identifiers
from thoracle.retention.pseudonyms import Pseudonyms, patterns, replacer, representations
from thoracle.retention.subject import Subject
from thoracle.settings import Settings
from thoracle.store import chain, engine, erased, objects, rights, sqlite, trail
from thoracle.store.database import begin_writing, sqlite_file
from thoracle.store.folding import folded
from thoracle.store.object_files import Objects
from thoracle.store.tables import timestamp

logger = logging.getLogger(__name__)

REQUEST_DAYS = 30
"""A request for an erasure that a second person carries out is good for so long."""
_BATCH = 500


class ErasureError(ThoracleError):
    """The patient cannot be erased now."""


@dataclass(frozen=True)
class Plan:
    """What would go, and what forbids it."""

    known: Identifiers
    pseudonym: str
    mixed: tuple[str, ...]
    """Studies that have images of another patient, too."""
    rows: Mapping[str, int]
    events: int
    """Rows of the audit that name the patient or a study."""
    told: tuple[str, ...]
    """Studies with a result that a destination has and that still stands."""
    forbidden: tuple[str, ...]
    """Legal holds, and work that has not ended."""


@dataclass
class Erased:
    """What went."""

    files: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    workflows: int = 0
    events: int = 0


class Erasure:
    """One patient.

    Parameters
    ----------
    pseudonyms
        Of the key of the settings.
    """

    def __init__(
        self, database: Engine, settings: Settings, pseudonyms: Pseudonyms, subject: Subject
    ) -> None:
        self._database = database
        self._settings = settings
        self._subject = subject
        self._pseudonyms = pseudonyms
        self._pseudonym = pseudonyms.of("patient", subject.patient_id, subject.issuer_of_patient_id)

    def plan(self, *, sending: bool = True) -> Plan:
        """Return what would go now; nothing is changed.

        With ``sending``, what waits to be sent forbids it.
        """
        with self._database.connect() as connection:
            found = subjects.studies(connection, self._subject)
            uids = [uid for uid, _ in found]
            known = stored.identifiers(connection, self._subject, uids)
            return Plan(
                known,
                self._pseudonym,
                tuple(uid for uid, is_alone in found if not is_alone),
                study_rows.counts(connection, uids),
                len(self._replaced(connection, known, self._events(connection, known))),
                tuple(stored.told(connection, uids)),
                (
                    *self._forbidden(connection, uids, sending=sending),
                    *(f"{one} is at work" for one in engine.at_work(self._database, uids)),
                ),
            )

    def _forbidden(
        self, connection: Connection, uids: list[str], *, sending: bool
    ) -> Iterator[str]:
        yield from stored.kept_by(connection, self._subject, uids)
        yield from stored.under_way(connection, uids, sending=sending)

    def looked_at(self, plan: Plan, columns: trail.Columns) -> None:
        """Record that somebody saw which studies a patient has."""
        detail = {**columns["detail"], "studies": list(plan.known.studies)}
        with self._database.begin() as connection:
            trail.record(
                connection,
                trail.Event.LIST_VIEWED,
                {**columns, **self._mine(), "detail": detail},
            )

    def _mine(self) -> trail.Columns:
        return {
            "patient_id": self._subject.patient_id,
            "issuer_of_patient_id": self._subject.issuer_of_patient_id,
        }

    def request(self, reason: str, columns: trail.Columns) -> bool:
        """Return whether another person has requested it; if not, record that this one does."""
        since = timestamp(datetime.now(UTC) - timedelta(days=REQUEST_DAYS))
        with self._database.begin() as connection:
            others = stored.requested_by(connection, self._subject, since) - {columns["user_id"]}
            if not others:
                named: trail.Columns = {**self._named(columns, reason), **self._mine()}
                trail.record(connection, trail.Event.ERASURE_REQUESTED, named)
        return bool(others)

    def _named(self, columns: trail.Columns, reason: str) -> trail.Columns:
        detail = {**columns.get("detail", {}), "reason": reason}
        return {**columns, "patient_id": self._pseudonym, "detail": detail}

    def run(self, reason: str, columns: trail.Columns, *, sending: bool = True) -> Erased:
        """Erase all of it; return what went.

        Raises
        ------
        ErasureError
            Something forbids it; files may have gone by then, and a second run finishes.
        """
        plan = self.plan(sending=sending)
        self._refuse(plan.forbidden)
        done = Erased(rows=plan.rows)
        uids = list(plan.known.studies)
        with self._database.begin() as connection:
            begin_writing(connection)
            self._refuse(self._forbidden(connection, uids, sending=sending))
            paths = stored.let_go(connection, uids)
        done.files = self._unlink(paths)
        done.workflows = engine.delete_naming(self._database, self._words(plan.known))
        with self._database.connect() as connection:
            seen = chain.head(connection)[0]
            found = self._events(connection, plan.known)
        with self._database.begin() as connection:
            begin_writing(connection)
            self._refuse(self._forbidden(connection, uids, sending=False))
            self._refuse(stored.arrived(connection, uids))
            found |= self._events(connection, plan.known, after=seen)
            detail = {"studies": uids, "files": done.files, "deleted": dict(plan.rows)}
            named = self._named(columns, self._replace(plan.known)(reason))
            named["detail"].update(detail)
            replaced = self._replaced(connection, plan.known, found)
            delete = partial(stored.delete_rows, connection, plan.known, self._pseudonym)
            erased.replace(connection, replaced, named, delete)
        done.events = len(replaced)
        done.workflows += engine.delete_naming(self._database, self._words(plan.known))
        return done

    @staticmethod
    def _refuse(forbidden: Iterable[str]) -> None:
        if found := list(forbidden):
            raise ErasureError("not erased: " + "; ".join(found))

    # ---- files -------------------------------------------------------------------------------

    def _unlink(self, paths: list[str]) -> int:
        kept = objects.of(self._settings)
        orphans = [one.name for one in kept.orphans() if self._is_mine(kept, one.name)]
        for path in paths:
            kept.delete(path)
        for name in orphans:
            kept.delete_orphan(name)
        # Pictures are named by what they were made of; the pages make them again.
        shutil.rmtree(self._settings.data_folder / rights.PICTURES, ignore_errors=True)
        return len(paths) + len(orphans)

    def _is_mine(self, kept: Objects, name: str) -> bool:
        """Return whether a file that a start has set aside is of the patient."""
        tags = ["PatientID", "IssuerOfPatientID"]
        with (
            suppress(*MALFORMED, FileNotFoundError, RecursionError),
            kept.opened_orphan(name) as file,
        ):
            ds = dcmread(file, stop_before_pixels=True, specific_tags=tags)
            issuer = str(ds.get("IssuerOfPatientID") or "")
            return (str(ds.get("PatientID") or ""), issuer) == (
                self._subject.patient_id,
                self._subject.issuer_of_patient_id,
            )
        return False

    # ---- the audit ---------------------------------------------------------------------------

    def _events(self, connection: Connection, known: Identifiers, after: int = 0) -> set[int]:
        """Return rows of the audit behind one that may name the patient."""
        texts = [self._subject.patient_id, *known.accessions, *known.studies]
        names = (one for name in known.names for one in representations(name))
        texts += sorted({_longest_word(family) for family, _ in names})
        found = set(erased.naming(connection, texts, after))
        return {one for one in {*found, *stored.about(connection, known)} if one > after}

    def _is_only_one(self, connection: Connection) -> bool:
        """Return whether no other patient here has the same ID."""
        found = subjects.issuers_of_images(connection, self._subject.patient_id)
        return found <= {self._subject.issuer_of_patient_id}

    def _replaced(
        self, connection: Connection, known: Identifiers, row_ids: Iterable[int]
    ) -> dict[int, dict[str, Any]]:
        """Return the new values of the rows that change."""
        is_only_one = self._is_only_one(connection)
        wanted, changed = sorted(row_ids), {}
        for begin in range(0, len(wanted), _BATCH):
            for row in stored.events(connection, wanted[begin : begin + _BATCH]):
                before = dict(row._mapping)
                values = self._values(before, known, is_only_one)
                if any(before[name] != value for name, value in values.items()):
                    changed[int(row.id)] = values
        return changed

    def _values(
        self, before: dict[str, Any], known: Identifiers, is_only_one: bool
    ) -> dict[str, Any]:
        """Return what a row of the audit has afterwards where it may name the patient.

        Where another patient has the same ID, an ID without its issuer counts only in rows about
        the studies.
        """
        same = before["patient_id"] == self._subject.patient_id
        issuer = before["issuer_of_patient_id"] or ""
        if same and issuer != self._subject.issuer_of_patient_id and (issuer or not is_only_one):
            return {}
        mine = is_only_one or same or before["study_instance_uid"] in known.studies
        replace = self._replace(known, by_id=mine)
        values = {
            name: replace(before[name])
            for name in ("study_instance_uid", "accession_number", "detail")
        }
        values["detail"] = self._without_search(values["detail"], known)
        if same:
            values |= {"patient_id": self._pseudonym, "issuer_of_patient_id": None}
        return values

    def _without_search(self, detail: dict[str, Any], known: Identifiers) -> dict[str, Any]:
        """Return the detail of a view without a text by which the patient was searched for."""
        asked = detail.get("filter")
        if not isinstance(asked, dict) or not (text := asked.get("text")):
            return detail
        words = folded(str(text)).split()
        if not any(all(word in search for word in words) for search in known.searches):
            return detail
        return {**detail, "filter": {**asked, "text": self._pseudonym}}

    def _replace(self, known: Identifiers, *, by_id: bool = True) -> Any:
        exact = {one: self._pseudonyms.of("accession", one) for one in known.accessions}
        words = list(known.accessions)
        if by_id:
            exact[self._subject.patient_id] = self._pseudonym
            words.append(self._subject.patient_id)
        pair = [self._subject.patient_id, self._subject.issuer_of_patient_id]
        return replacer(exact, patterns(words, known.names), (pair, self._pseudonym))

    def _words(self, known: Identifiers) -> list[str]:
        """Return what names the patient in rows of the engine."""
        words = [*known.studies, *known.instances, *known.names, *known.accessions]
        with self._database.connect() as connection:
            if self._is_only_one(connection):
                words.append(self._subject.patient_id)
        return words


def _longest_word(family: list[str]) -> str:
    """Return what a text has to have in it that has a name, whatever the case of its letters.

    Three or more letters in ASCII if there are any: of others, databases know no case.
    """
    ascii_ = [part for word in family for part in re.findall(r"[!-~]{3,}", word)]
    return max(ascii_ or family, key=len)


def compact(settings: Settings, *, vacuum: bool) -> bool:
    """Leave nothing of what was deleted in the embedded database; return whether that is so."""
    return sqlite.compact(sqlite_file(settings), vacuum=vacuum)
