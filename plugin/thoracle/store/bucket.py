"""Objects in a bucket of S3; files below the data folder are copies of them.

An object is kept when the server has answered its PUT. A copy gets its name when it is whole, and
when its object is in the bucket: whatever has a name below the data folder can be read.
"""

import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from hashlib import file_digest, sha256
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast

from thoracle.errors import ObjectsAway, SettingsError, ThoracleError
from thoracle.settings import ObjectStore
from thoracle.settings.section import require_private
from thoracle.store import files
from thoracle.store.object_files import ORPHANS, Digest, Known, Objects, Orphan

try:
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store
except ImportError as error:
    raise SettingsError(
        "objects.bucket: found no obstore, required: `pip install thoracle[s3]`"
    ) from error

logger = logging.getLogger(__name__)

PART = 32 * 1024 * 1024
"""Bytes; what is larger is sent in parts, two at a time: a small object takes one request."""
CHUNK = 4 * 1024 * 1024
PROBE_SECONDS = 30.0
"""What was kept so recently shows that the bucket can be written."""
REST_SECONDS = 2.0
"""After a request without an answer, others are not tried for so long."""
SILENT = "it does not answer"
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_ABSENT = "NoSuchBucket"


class _NoObject(FileNotFoundError):
    """The bucket has no object of this name; no file of this machine is meant."""


class Bucket(Objects):
    """Objects in a bucket.

    Parameters
    ----------
    folder
        The data folder, for copies.
    """

    def __init__(self, folder: Path, settings: ObjectStore) -> None:
        super().__init__(folder)
        self._settings = settings
        self._prefix = f"{settings.prefix}/" if settings.prefix else ""
        self._store = _store(settings)
        self._kept_at = float("-inf")
        self._away = (float("-inf"), "")

    # ---- one object --------------------------------------------------------------------------

    def local(self, below: str, known: Known | None = None) -> Path:
        """Return a copy, fetched when there is none."""
        path = files.stored(self.folder, below)
        try:
            os.utime(path)  # copies go by the time of their last use
        except FileNotFoundError:
            with suppress(_NoObject):
                self._fetch(below, path, known)
        return path

    def _fetch(self, below: str, path: Path, known: Known | None) -> None:
        with self._part(path) as file:
            self._copy(below, file)
            digest = known() if known is not None else None
            if digest is not None:
                _require(file, digest)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)

    @contextmanager
    def _part(self, path: Path) -> Iterator[IO[bytes]]:
        """Yield a file beside a copy, to be renamed; an error of the disk is one of the fetch."""
        name = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
                name = file.name
                yield cast(IO[bytes], file)
        except (_NoObject, ObjectsAway):
            raise
        except OSError as error:
            raise ObjectsAway(f"no room for a copy of an object: {error.strerror}") from error
        finally:
            if name is not None:
                Path(name).unlink(missing_ok=True)

    def _copy(self, key: str, file: IO[bytes]) -> None:
        with self._asked():
            answer = obstore.get(self._store, self._prefix + key)
            length = answer.meta["size"]
            for chunk in answer.stream(min_chunk_size=CHUNK):
                file.write(chunk)
        if file.tell() != length:
            raise ObjectsAway(f"{self}: found {file.tell()} bytes of an object, required: {length}")

    def opened(self, below: str) -> BufferedReader:
        """Open what is in the bucket, and no copy."""
        files.stored(self.folder, below)
        return self._opened(below)

    def _opened(self, key: str) -> BufferedReader:
        file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 - the caller closes it
        try:
            self._copy(key, file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return cast(BufferedReader, file)

    def exists(self, below: str) -> bool:
        """Return whether an object is in the bucket, whatever copies there are."""
        files.stored(self.folder, below)
        key = self._prefix + below
        try:
            with self._asked():
                obstore.head(self._store, key)
        except _NoObject:
            # The answer to HEAD has no text: that of GET says whether there is a bucket at all.
            try:
                with self._asked():
                    obstore.get(self._store, key)
            except _NoObject:
                return False
        return True

    def adopt(self, source: Path, below: str) -> None:
        """Put a file into the bucket; it stays as a copy."""
        target = files.stored(self.folder, below)
        self._put(below, source)
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            source.rename(target)
        except OSError:
            with suppress(ObjectsAway):  # else it is an orphan
                self._delete(below)
            raise

    def write(self, below: str, content: bytes, behind: tuple[Path, int] | None = None) -> str:
        """Put an object into the bucket, and leave a copy."""
        target = files.stored(self.folder, below)
        return files.write_retrying(target, content, behind, lambda part: self._put(below, part))

    def _put(self, below: str, source: Path | bytes) -> None:
        with self._asked():
            obstore.put(
                self._store, self._prefix + below, source, chunk_size=PART, max_concurrency=2
            )
        self._kept_at = time.monotonic()

    def delete(self, below: str) -> None:
        """Delete an object and our copy; copies of others go when they are looked through."""
        path = files.stored(self.folder, below)
        self._delete(below)
        path.unlink(missing_ok=True)

    def _delete(self, key: str) -> None:
        with suppress(_NoObject), self._asked():
            obstore.delete(self._store, self._prefix + key)

    # ---- all of them -------------------------------------------------------------------------

    def images(self) -> list[str]:
        """Return the paths of all received images, a request for each thousand."""
        return [key for key, _ in self._listed("images/")]

    def _listed(self, beginning: str) -> Iterator[tuple[str, float]]:
        with self._asked():
            for chunk in obstore.list(self._store, self._prefix + beginning):
                for one in chunk:
                    yield one["path"].removeprefix(self._prefix), one["last_modified"].timestamp()

    def set_aside(self, paths: Iterable[str]) -> None:
        """Rename objects in the bucket."""
        for below in paths:
            path = files.stored(self.folder, below)
            with suppress(_NoObject), self._asked():
                target = f"{self._prefix}{ORPHANS}/{path.name}"
                obstore.rename(self._store, self._prefix + below, target)
            path.unlink(missing_ok=True)

    def orphans(self) -> list[Orphan]:
        """Return what was set aside in the bucket."""
        beginning = f"{ORPHANS}/"
        return [
            Orphan(key.removeprefix(beginning), moment) for key, moment in self._listed(beginning)
        ]

    def opened_orphan(self, name: str) -> BufferedReader:
        """Open what was set aside in the bucket."""
        return self._opened(f"{ORPHANS}/{name}")

    def delete_orphan(self, name: str) -> None:
        """Delete what was set aside in the bucket."""
        self._delete(f"{ORPHANS}/{name}")

    # ---- the place ---------------------------------------------------------------------------

    def where(self) -> str:
        """Return where orphans are."""
        return f"{self}, {self._prefix}{ORPHANS}"

    def __str__(self) -> str:
        return f"the bucket {self._settings.bucket}"

    def fault(self) -> str:
        """Return why no object could be kept in the bucket now; nothing that it writes stays."""
        if time.monotonic() - self._kept_at < PROBE_SECONDS:
            return ""
        try:
            self._probe()
        except ObjectsAway as error:
            return str(error)
        return ""

    def require(self) -> None:
        """Return when an object could be put, got, found in a list and deleted."""
        self._probe()
        for _ in self._listed("probe/"):
            break

    def _probe(self) -> None:
        key, content = f"probe/{secrets.token_hex(8)}", secrets.token_bytes(32)
        self._put(key, content)
        try:
            with self._asked():
                found = bytes(obstore.get(self._store, self._prefix + key).bytes())
            if found != content:
                raise ObjectsAway(f"{self}: found another object than was put there")
        except _NoObject:
            raise ObjectsAway(f"{self}: an object that was put there is not there") from None
        finally:
            self._delete(key)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Say in our words what a request came to.

        Raises
        ------
        _NoObject
            The bucket has no such object.
        ObjectsAway
            The server does not answer, or refuses.
        """
        until, why = self._away
        if time.monotonic() < until:  # a page asks for many objects, and each could take long
            raise ObjectsAway(why)
        try:
            yield
        except FileNotFoundError as error:
            if _ABSENT not in str(error):
                raise _NoObject("no such object") from None
            raise self._out_of_reach("there is no such bucket") from None
        except BaseError as error:
            raise self._out_of_reach(_said(error)) from None

    def _out_of_reach(self, why: str) -> ObjectsAway:
        self._kept_at = float("-inf")
        said = f"{self}: {why}"
        if why == SILENT:
            self._away = (time.monotonic() + REST_SECONDS, said)
        return ObjectsAway(said)


def _said(error: BaseError) -> str:
    """Return what a request came to, without the name of the object."""
    text = str(error)
    code = _CODE.search(text) or _STATUS.search(text)
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        answer = f"the answer {code[1]}" if code else "the access refused"
        return f"found {answer}, required: access to read, write, list and delete"
    if code:
        return f"found the answer {code[1]}, required: success"
    if "certificate" in text:
        return "its certificate is not of an authority that is known here, or not of its name"
    return SILENT


def _require(file: IO[bytes], digest: Digest) -> None:
    file.seek(0 if digest.size is None else max(0, file.tell() - digest.size))
    found = file_digest(cast(BufferedReader, file), sha256).hexdigest()
    if found != digest.sha256:
        raise ThoracleError(
            f"an object in the bucket was changed: its digest is {found}, required: {digest.sha256}"
        )


@lru_cache
def of(folder: Path, settings: ObjectStore) -> Bucket:
    """Return the bucket of some settings, always the same one.

    Raises
    ------
    SettingsError
        A file that they name cannot be read.
    """
    return Bucket(folder, settings)


def _store(settings: ObjectStore) -> S3Store:
    client: dict[str, Any] = {
        "allow_http": settings.endpoint.startswith("http:"),
        "connect_timeout": timedelta(seconds=min(5.0, settings.timeout_seconds)),
        "timeout": timedelta(seconds=settings.timeout_seconds),
    }
    try:
        if settings.ca_file is not None:
            client["root_certificate"] = settings.ca_file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"objects.ca_file: {settings.ca_file}: {error.strerror}, required: a PEM file"
        ) from error
    options: dict[str, Any] = {
        "region": settings.region,
        "access_key_id": settings.access_key,
        "secret_access_key": _secret(settings),
        # Other servers than AWS have mostly one name for all buckets.
        "virtual_hosted_style_request": not settings.endpoint,
        "client_options": client,
        "retry_config": {
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=settings.timeout_seconds),
        },
    }
    if settings.endpoint:
        options["endpoint"] = settings.endpoint
    try:
        return S3Store(settings.bucket, **options)
    except BaseError as error:
        raise SettingsError(f"objects: {_said(error)}") from None


def _secret(settings: ObjectStore) -> str:
    kind, _, name = (settings.secret or "").partition(":")
    try:
        if kind == "file":
            require_private("objects.secret", Path(name))
        value = Path(name).read_text("utf-8") if kind == "file" else os.environ.get(name, "")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"objects.secret: {settings.secret} cannot be read: {type(error).__name__}"
        ) from None
    if not re.fullmatch(r"[!-~]{8,256}", value := value.rstrip("\r\n")):
        found = "something else" if value else "nothing"
        raise SettingsError(
            f"objects.secret: {settings.secret}: found {found}, required: the secret of a key"
        )
    return value
