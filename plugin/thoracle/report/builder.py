"""The child process that builds and encodes results: headers of strangers are gone through there.

It also writes the header of an image that gets another patient.

Whatever a header makes cost without measure (a deep sequence is copied level by level) costs the
result of one study, never the service. What is asked is ours, so it may be pickled; the answer is
checked, and never unpickled.
"""

import pickle
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

from thoracle import child
from thoracle.child import Answer, Child, ChildFailed
from thoracle.errors import ReportError, ReportLimits
from thoracle.image import characters, patient
from thoracle.image.patient import Beginning
from thoracle.records import Kind
from thoracle.report.header import Instance
from thoracle.report.result_set import Made

R = TypeVar("R")

_MODULE = "thoracle.report.builder"
_BUILD, _CORRECT = "build", "correct"
_LONGEST_HEADER = 2**20
_LONGEST_ERROR = 1000
_LARGEST_RESULT = 2**30
"""Bytes of all objects of a study."""
_UID = re.compile(r"[0-9.]{1,64}")
_FIELDS = Instance._fields


class Builder:
    """The child process that builds; a context manager, started when first asked.

    Parameters
    ----------
    memory_megabytes
        Address space of the child, megabytes (``RLIMIT_AS``).
    timeout_seconds
        Time for one study, seconds.
    """

    def __init__(self, memory_megabytes: int, timeout_seconds: float) -> None:
        limits = (memory_megabytes, timeout_seconds)
        self._child = Child(_MODULE, "the builder of results", "building the result", *limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._child.__exit__(*exception)

    @property
    def pid(self) -> int | None:
        """Process id of the child, ``None`` while there is none."""
        return self._child.pid

    def start(self) -> None:
        """Start the child now: it imports for seconds, and the first study need not wait."""
        self._child.start()

    def build(self, **values: Any) -> list[Made]:
        """Return what :func:`thoracle.report.result_set.of_files` returns for these values.

        Raises
        ------
        ReportLimits
            The child died, or ran out of memory or time.
        ReportError
            The objects cannot be built.
        """
        return self._ask(_BUILD, values, _made)

    def with_patient_of(self, path: Path, model: Path, moment: datetime) -> Beginning:
        """Return what :func:`thoracle.image.patient.with_patient_of` returns.

        Raises
        ------
        ReportLimits
            The child died, or ran out of memory or time.
        ReportError
            A header cannot be taken apart, or written.
        """
        return self._ask(_CORRECT, {"path": path, "model": model, "moment": moment}, _beginning)

    def _ask(
        self, what: str, values: Mapping[str, Any], read: Callable[[dict[str, Any], Answer], R]
    ) -> R:
        def answered(answer: Answer) -> R | _Fault:
            header = answer.header(_LONGEST_HEADER)
            if "error" in header:
                return _Fault(str(header["error"])[:_LONGEST_ERROR])
            return read(header, answer)

        try:
            asked = (what, characters.assumed(), values)
            question = pickle.dumps(asked, pickle.HIGHEST_PROTOCOL)
            found = self._child.ask(question, answered)
        except ChildFailed as error:
            raise ReportLimits(str(error)) from error
        if isinstance(found, _Fault):
            raise ReportError(found)
        return found


class _Fault(str):
    """Why there is no answer."""


def _beginning(header: dict[str, Any], answer: Answer) -> Beginning:
    """Return how a corrected image begins."""
    length, offset = header["length"], header["offset"]
    if type(length) is not int or type(offset) is not int or length < 0 or offset < 0:
        raise ValueError("the header is malformed")
    if length > _LARGEST_RESULT:
        raise ValueError("the header is too large")
    return Beginning(bytes(answer.content(length)), offset)


def _made(header: dict[str, Any], answer: Answer) -> list[Made]:
    """Return the objects in an answer."""
    described = [_described(one) for one in header["made"]]
    if sum(length for _, _, length in described) > _LARGEST_RESULT:
        raise ValueError("the objects are too large")
    return [Made(kind, *named, bytes(answer.content(length))) for kind, named, length in described]


def _described(values: Mapping[str, Any]) -> tuple[Kind, Instance, int]:
    """Return kind, UIDs and length of an object that is announced."""
    named = Instance(*(values[name] for name in _FIELDS))
    length = values["length"]
    if not all(_UID.fullmatch(uid) for uid in named) or type(length) is not int or length < 0:
        raise ValueError("the object is malformed")
    return Kind(values["kind"]), named, length


# ---- in the child ----------------------------------------------------------------------------


def _respond(question: bytes, answers: BinaryIO) -> None:
    what, character_set, values = pickle.loads(question)  # noqa: S301 - our own parent wrote it
    characters.assume(character_set)
    try:
        header, contents = _WORK[what](values)
    except (MemoryError, RecursionError):
        raise MemoryError from None  # both are a limit
    except ReportError as error:
        child.write_header(answers, {"error": str(error)})
        return
    except Exception as error:  # noqa: BLE001 - the text may quote what the header says
        child.write_header(answers, {"error": f"found a fault: {type(error).__name__}"})
        return
    child.write_header(answers, header)
    for one in contents:
        answers.write(one)
    answers.flush()


def _build(values: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    from thoracle.report import result_set

    made = result_set.of_files(**values)
    described = [
        {name: getattr(one, name) for name in _FIELDS}
        | {"kind": one.kind.value, "length": len(one.content)}
        for one in made
    ]
    return {"made": described}, [one.content for one in made]


def _correct(values: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    begins = patient.with_patient_of(**values)
    return {"length": len(begins.content), "offset": begins.offset}, [begins.content]


_WORK = {_BUILD: _build, _CORRECT: _correct}


if __name__ == "__main__":
    child.serve(_respond)
