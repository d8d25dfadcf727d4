"""Converted networks kept on disk: converting them is most of the time that a start takes.

An entry is found by a digest of all that it depends on: weights, structure and code of the network,
versions of the libraries, processor. So whatever changes makes another entry, and the old one is
removed when nobody asked for it for a while. An entry is used only when its bytes have the digest
that was written before them, and only from a folder that nobody else can write: a network from
other hands would decide results.
"""

import contextlib
import hashlib
import inspect
import logging
import os
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thoracle.settings import Classify

logger = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size
_LENGTH = struct.Struct(">Q")
_UNUSED_SECONDS = 90 * 86400.0
"""Time after which an entry that nobody read is removed."""
_SUFFIX = ".network"
_PLAIN = (bool, int, float, str, tuple)
"""Types of attributes that can decide what a network does and that no weight and no name shows."""

Content = tuple[bytes, bytes]
"""A network as OpenVINO writes it: its structure (XML) and its weights."""


def cache_folder(settings: Classify) -> Path | None:
    """Return the folder of the cache, which is made where it is missing.

    Returns
    -------
    Path or None
        That of the settings; else what systemd gives the service (CacheDirectory=), else
        ``$XDG_CACHE_HOME/thoracle`` or ``~/.cache/thoracle``. ``None``, with a warning in the log,
        when it cannot be made, is another user's, or others may write to it.
    """
    folder = settings.cache_folder or default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
    except OSError as error:
        logger.warning("converted networks are not kept: %s", error)
        return None
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        logger.warning(
            "converted networks are not kept: found %s of user %d with mode %o, required: user "
            "%d and no right to write for others (chmod 700)",
            folder, found.st_uid, stat.S_IMODE(found.st_mode), os.geteuid(),
        )  # fmt: skip
        return None
    return folder


def default_folder() -> Path:
    """Return where the cache is when the settings do not say it; see :func:`cache_folder`."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given.split(":")[0])
    given = os.environ.get("XDG_CACHE_HOME", "")
    # A path that is not absolute is to be ignored (XDG Base Directory Specification).
    return (Path(given) if given.startswith("/") else Path("~/.cache").expanduser()) / "thoracle"


def entry(folder: Path, network: nn.Module, shape: tuple[int, ...], properties: Any) -> Path:
    """Return the file of a network that OpenVINO compiles with some properties.

    Parameters
    ----------
    folder
        Of the cache.
    network
        In evaluation mode.
    shape
        Of a batch.
    properties
        What OpenVINO is asked for, and what it says of the processor.
    """
    total = hashlib.sha256()
    for library in ("openvino", "torch", "monai", "numpy"):
        total.update(f"{library} {version(library)}\n".encode())
    total.update(f"{network}\n{shape}\n{properties}\n".encode())
    for line in _structure(network):
        total.update(line.encode() + b"\n")
    for name, value in sorted(network.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return folder / f"{total.hexdigest()}{_SUFFIX}"


def _structure(network: nn.Module) -> Iterator[str]:
    """Yield the plain attributes of each module of a network, and the digests of their code."""
    sources: set[str | None] = {str(Path(__file__).with_name("compiled.py"))}  # how it is converted
    for name, module in network.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, _PLAIN)}
        yield f"{name} {type(module).__qualname__} {sorted(plain.items())}"
        sources.add(inspect.getsourcefile(type(module)))
    for source in sorted(filter(None, sources)):
        yield hashlib.sha256(Path(source).read_bytes()).hexdigest()


def read(path: Path) -> Content | None:
    """Return the network of an entry; ``None`` when there is none or its bytes have changed."""
    try:
        kept = path.read_bytes()
        os.utime(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("a converted network cannot be read: %s", error)
        return None
    digest, content = kept[:_DIGEST_BYTES], kept[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        logger.warning("%s: found other bytes than were written; it is converted again", path)
        return None
    (length,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + length
    return content[_LENGTH.size : end], content[end:]


def write(path: Path, content: Content) -> None:
    """Keep a network as an entry, whole or not at all, and remove what nobody asks for.

    What fails is logged: the network runs without.
    """
    structure, weights = content
    body = _LENGTH.pack(len(structure)) + structure + weights
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(body).digest() + body)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink()
            raise
        _remove_unused(path.parent)
    except OSError as error:
        logger.warning("a converted network is not kept: %s", error)


def _remove_unused(folder: Path) -> None:
    before = time.time() - _UNUSED_SECONDS
    for path in [*folder.glob(f"*{_SUFFIX}"), *folder.glob("*.tmp")]:
        # Another process may have removed it in between.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()
