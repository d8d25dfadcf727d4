"""What a message may be: its fragments in order, of a size, and going on.

pynetdicom keeps a command set in memory however long it is, and waits for ever for a command whose
data set has come first.
"""

import time
from typing import Any

COMMAND, LAST = 1, 2
"""Bits of a Message Control Header (PS3.8 Annex E.2)."""
LARGEST_COMMAND = 65536
"""Bytes; the longest that the standard knows are of some hundred."""
LARGEST_DATA_SET = 16 * 1024 * 1024
"""Bytes of one that is kept in memory: identifiers, workitems, answers of storage commitment."""
PATIENCE = 8.0
"""Seconds for which a message may bring as little as it likes."""
SLOWEST = 1000
"""Bytes a second that it has to bring then. A pause of any length that the settings allow is one
PDU; a trickle is many."""
TRICKLE = 4
"""PDUs in which too little comes."""


class BadMessage(Exception):
    """The association has to be aborted; the text says why."""


class Messages:
    """Looks at the fragments of one association's messages before they are taken."""

    def __init__(self, assoc: Any) -> None:
        self._assoc = assoc
        self._context: int | None = None
        """Of the command set, when that is complete."""
        self._command = self._data_set = 0
        self._fragments = self._bytes = 0
        self._began = 0.0

    def check(self, context: int, data: bytes) -> None:
        """Raise BadMessage when a PDV (its control header and value) is out of order."""
        if not data:
            raise BadMessage("a PDV without a Message Control Header")
        if context not in self._assoc._accepted_cx:
            raise BadMessage(f"a PDV of presentation context {context}, which is not accepted")
        if data[0] & COMMAND:
            self._check_command(context, data)
        elif context != self._context:
            raise BadMessage("a data set without its command, or of another context")
        elif self._in_memory():
            self._data_set += len(data)
            if self._data_set > LARGEST_DATA_SET:
                raise BadMessage(f"a data set of more than {LARGEST_DATA_SET} bytes")
        self.go_on(len(data))

    def _check_command(self, context: int, data: bytes) -> None:
        if self._context is not None:
            raise BadMessage("a command within a data set")
        self._command += len(data)
        if self._command > LARGEST_COMMAND:
            raise BadMessage(f"a command set of more than {LARGEST_COMMAND} bytes")
        if data[0] & LAST:
            self._context = context

    def _in_memory(self) -> bool:
        message = self._assoc.dimse.message
        return message is None or message._data_set_file is None

    def go_on(self, size: int) -> None:
        """Count a fragment; raise BadMessage when the message trickles."""
        moment = time.monotonic()
        if not self._fragments:
            self._began = moment
        self._fragments += 1
        self._bytes += size
        seconds = moment - self._began
        if seconds < PATIENCE:
            return
        if self._fragments >= TRICKLE and self._bytes < SLOWEST * seconds:
            raise BadMessage(f"a message that brought {self._bytes} bytes in {seconds:.0f} seconds")
        self._fragments = self._bytes = 0  # what was fast enough saves up nothing

    def end(self) -> None:
        """Begin anew: a message is complete."""
        self._context = None
        self._command = self._data_set = self._fragments = self._bytes = 0
