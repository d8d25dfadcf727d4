"""Log lines: one JSON object each, with UIDs, never names or IDs of patients.

The audit table is the record of what happened; the log is for the person who mends the machine.
"""

import json
import logging
import sys
import warnings
from datetime import UTC, datetime

import pydicom.config


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)  # control characters arrive escaped


def configure(level: str) -> None:
    """Send this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These quote data elements, and with them patients, in what they log and warn about.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    for library in ("pydicom", "pynetdicom", "highdicom", "PIL"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom|pynetdicom|highdicom")
    # dicomweb_client tells of every search, with its UIDs.
    for library in ("alembic", "dicomweb_client"):
        logging.getLogger(library).setLevel(logging.WARNING)
