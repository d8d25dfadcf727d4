"""Which pinned distributions have a published advisory: pip-audit asks PyPI, else OSV.

Where neither can be reached this says so and ends well: that is no fault of a change.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
SECONDS = 180
"""For all questions to one source."""
SOURCES = {"PyPI": ["--vulnerability-service", "pypi"], "OSV": ["--vulnerability-service", "osv"]}
OPTIONS = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]


def audited(requirements: Path, source: list[str]) -> list[dict[str, Any]] | None:
    """Return name, version and advisories of each distribution; ``None`` if there are no data.

    Distributions that the source does not know are left out: pip-audit counts them as well.
    """
    command = [sys.executable, "-m", "pip_audit", *OPTIONS, "--timeout", "10", *source]
    try:
        found = subprocess.run(
            [*command, "--requirement", str(requirements)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        dependencies = json.loads(found.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError):  # it ended in a traceback
        return None
    return [one for one in dependencies if "skip_reason" not in one] or None


def reached(source: list[str], pinned: list[str]) -> bool:
    """Return whether a source knows the first of what is pinned."""
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder, "one.txt")
        one.write_text(f"{pinned[0]}\n", encoding="utf-8")
        return audited(one, source) is not None


def main() -> int:
    """Print what is known of the pinned distributions; return 1 when one has an advisory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--osv-url", help="Ask this copy of OSV alone.")
    url = parser.parse_args().osv_url
    sources = {"OSV": [*SOURCES["OSV"], "--osv-url", url]} if url else SOURCES
    pinned = CONSTRAINTS.read_text(encoding="utf-8").split()
    for name, source in sources.items():
        found = audited(CONSTRAINTS, source) if reached(source, pinned) else None
        if found is None:
            continue
        faults = [one for one in found if one["vulns"]]
        for one in faults:
            for advisory in one["vulns"]:
                mended = ", ".join(advisory["fix_versions"]) or "no release"
                print(f"{one['name']} {one['version']}: {advisory['id']}, mended in {mended}")
        print(f"advisories of {name}: {len(faults)} of {len(found)} distributions have one")
        print(f"not known there: {len(pinned) - len(found)}")
        return bool(faults)
    print(f"advisories: SKIPPED, no data of {' or '.join(sources)} can be reached from here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
