"""Statements about the models that have read here: what an earlier one's result meant stays known.

A bundle is exchanged by the settings; its results stay, in the archive and here, and are shown,
told and withdrawn by the words of the bundle that made them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from thoracle.classify import finding
from thoracle.records import BundleIdentity, Finding
from thoracle.store.tables import bundle


@dataclass(frozen=True, slots=True)
class KnownBundle:
    """A model that has read here."""

    name: str
    version: str
    finding: Finding
    identity: BundleIdentity | None
    """``None`` for one of the first versions, which kept less of it."""


def remember(connection: Connection, identity: BundleIdentity) -> None:
    """Record the bundle that reads from now on; the same digest is the same bundle."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    values = {
        "name": identity.name,
        "version": identity.version[:64],
        "finding": identity.finding.key,
        "identity": finding.to_json(identity),
    }
    connection.execute(
        dialect.insert(bundle)
        .values(digest=identity.digest, **values)
        .on_conflict_do_update(index_elements=[bundle.c.digest], set_=values)
    )


def known(connection: Connection, digests: Iterable[str]) -> dict[str, KnownBundle]:
    """Return the models with these digests, as far as they have read here."""
    rows = connection.execute(select(bundle).where(bundle.c.digest.in_(set(digests))))
    found: dict[str, KnownBundle] = {}
    for row in rows:
        whole = row.identity["decision"] is not None
        identity = finding.from_json(row.identity) if whole else None
        meant = identity.finding if identity else finding.finding_from_json(row.identity["finding"])
        found[row.digest] = KnownBundle(row.name, row.version, meant, identity)
    return found
