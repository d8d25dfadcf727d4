"""Settings of what is kept: where its rows and objects are, and for how long."""

from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field
from pydantic import model_validator as validator

from thoracle.settings.section import Secret, Section, is_loopback

# ---- database ------------------------------------------------------------------------------------
# Settings of where rows are kept: SQLite in the data folder, or a PostgreSQL server.

SCHEME = "postgresql"


def _postgresql(text: str) -> str:
    """Return a URL that has no password in it; no message quotes more than its scheme."""
    if not text:
        return text
    try:
        parts = urlsplit(text)
        password, name = parts.password, parts.path.strip("/")
    except ValueError as error:
        raise ValueError(f"found a text that is no URL, required: {_EXAMPLE}") from error
    if parts.scheme != SCHEME:
        found = f"the scheme {parts.scheme[:32]}" if parts.scheme else "a text without a scheme"
        raise ValueError(f"found {found}, required: {SCHEME}, as in {_EXAMPLE}")
    query = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True)]
    secrets = [key for key in query if "password" in key.lower() or "secret" in key.lower()]
    if password is not None or secrets:
        raise ValueError(
            "found a password in the URL, required: database.password_file, or libpq's PGPASSFILE"
        )
    if not name:
        raise ValueError(f"found no name of a database, required: one, as in {_EXAMPLE}")
    return text


_EXAMPLE = f"{SCHEME}://thoracle@db.hospital.example/thoracle?sslmode=verify-full"


class Database(Section):
    """Where the rows are; objects have a table of their own (docs/database.md)."""

    url: Annotated[str, AfterValidator(_postgresql)] = Field(
        "",
        description=f"PostgreSQL, as {_EXAMPLE}, never with the password; empty: SQLite in the data folder.",
    )
    password_file: Path | None = Field(
        None,
        description="File with the password alone, permissions at most 0640; unset: as libpq finds it (PGPASSFILE, ~/.pgpass), or none.",
    )

    @validator(mode="after")
    def _password_of_something(self) -> "Database":
        if self.password_file is not None and not self.url:
            raise ValueError("found a password_file without a url, required: both or neither")
        return self


# ---- objects -------------------------------------------------------------------------------------
# Settings of where objects are kept: files in the data folder, or a bucket.


class ObjectStore(Section):
    """A bucket for images, results and messages, in place of files in the data folder (docs/object-store.md)."""

    bucket: str = Field(
        "",
        pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$",
        description="Name of a bucket that exists, of S3 or a server with the same interface; empty: files below the data folder.",
    )
    endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#@]+)?$",
        description="Address of the server, without a path; http only to this machine. Empty: AWS, by the region.",
    )
    region: str = Field(
        "us-east-1",
        pattern=r"^[a-z0-9-]{1,63}$",
        description="Region of the bucket; other servers than AWS mostly take any.",
    )
    prefix: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_.-]*[A-Za-z0-9_-](/[A-Za-z0-9_.-]*[A-Za-z0-9_-])*)?$",
        description="What the name of each object begins with, without a slash at the end: several installations may share a bucket.",
    )
    access_key: str = Field(
        "",
        pattern=r"^[!-~]{0,128}$",
        description="Identifier of the access key, e.g. AKIA...: no secret.",
    )
    secret: Secret | None = Field(
        None,
        description="Where the secret of the access key is, `file:PATH` or `env:NAME`; read at the start.",
    )
    ca_file: Path | None = Field(
        None,
        description="Further authorities of the server's certificate, PEM; unset: those of this machine alone.",
    )
    timeout_seconds: float = Field(
        30,
        ge=1,
        le=600,
        description="Time for one request, seconds; then the bucket counts as out of reach.",
    )
    cache_days: float = Field(
        7,
        ge=0.01,
        le=3650,
        description="Local copies that nobody read so long are deleted, days; they are fetched again when needed.",
    )

    @validator(mode="after")
    def _whole(self) -> "ObjectStore":
        if self.bucket and not (self.access_key and self.secret):
            raise ValueError(
                "found a bucket without access_key and secret, required: both (docs/object-store.md)"
            )
        fields = type(self).model_fields.items()
        others = [name for name, info in fields if getattr(self, name) != info.default]
        if others and not self.bucket:
            raise ValueError(f"found {others[0]} without a bucket, required: the name of a bucket")
        return self

    @validator(mode="after")
    def _https(self) -> "ObjectStore":
        host = urlsplit(self.endpoint).hostname or ""
        if self.endpoint.startswith("http:") and (self.ca_file or not is_loopback(host)):
            raise ValueError(
                "found an endpoint with http on another machine, or with a ca_file, required: https"
            )
        return self


# ---- retention -----------------------------------------------------------------------------------
# Settings of what is kept, and for how long.

_LONGEST = 36525


def _days(default: int, description: str) -> int:
    found: int = Field(
        default, ge=0, le=_LONGEST, description=f"{description}, days; 0 keeps them for ever."
    )
    return found


class Retention(Section):
    """How long things are kept (docs/retention.md). What is under legal hold stays."""

    audit_days: int = _days(2190, "Rows of the audit")
    images_days_after_proof: int = _days(
        7, "Received images, after all that was made of their study is proven to be kept"
    )
    results_days_after_proof: int = _days(
        30, "Files of result objects and of HL7 messages, after the same"
    )
    headers_days_after_proof: int = _days(
        0,
        "What a withdrawal needs of the headers of images that are gone, after the same (of a result that is withdrawn no longer than its files)",
    )
    unanswered_days: int = _days(
        90,
        "A delivery or message that was refused or given up, and an analysis that failed, hold back what belongs to them so long, or until somebody retries",
    )
    studies_days: int = _days(
        0,
        "All rows of a study, with the files that are left, after all that was made of it is proven to be kept and nobody judged it any more",
    )
    verdicts_days: int = _days(0, "Verdicts with their comments")
    readings_days: int = _days(
        0, "What was said of each image, with the features that the watch compares"
    )
    workflow_hours: int = Field(
        6,
        ge=0,
        le=24 * _LONGEST,
        description="Rows of the engine about work that succeeded, hours; 0 keeps them for workflow_days.",
    )
    workflow_days: int = _days(30, "Rows of the engine about work that has ended in another way")
    pictures_days: int = _days(7, "Pictures of the pages that nobody looked at")
    orphans_days: int = _days(
        90, "Files without a row that a start has set aside, since they were set aside"
    )
    every_hours: float = Field(
        6, ge=0.01, le=168, description="The gateway looks for what is due so often, hours."
    )


# ---- erasure -------------------------------------------------------------------------------------
# Settings of what is left of a patient who was erased.


class Erasure(Section):
    """How `thoracle erase` erases a patient (docs/erasure.md)."""

    key_file: Path | None = Field(
        None,
        description="File with at least 32 random bytes, permissions at most 0640: the audit keeps pseudonyms made with it. Outside of the data folder.",
    )
    second_person: bool = Field(
        False,
        description="Whether one person has to request an erasure and another one to carry it out, each as a user of this machine.",
    )
