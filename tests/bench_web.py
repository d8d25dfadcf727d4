"""The pages under load: a list of 100,000 studies, live updates, and many open pages.

`python tests/bench_web.py` prints the section of docs/benchmarks.md. Everything is asked over
HTTP, of `thoracle web` in a process of its own.
"""

import contextlib
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from sqlalchemy import Connection, insert

from browsing import PASSWORD, Site, log_in
from thoracle.store.folding import folded
from thoracle.store.tables import study, timestamp, worklist
from thoracle.study.reading_list import set_state

STUDIES = 100_000
REPEATED = 40
OPEN_PAGES = 50
NAMES = (
    "Doe^Jane",
    "Müller^Änne",
    "Ωνάσης^Αλέξανδρος",
    "Иванов^Иван",
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "Hong^Gildong=洪^吉洞=홍^길동",
    "Haddad^Layla=حداد^ليلى",
    "O'Brien^Pat",
)
STATES = {
    "negative": 60,
    "positive": 12,
    "indeterminate": 10,
    "rejected": 8,
    "queued": 5,
    "running": 2,
    "failed": 2,
    "withdrawn": 1,
}
PROBABILITIES = {"positive": (0.72, 0.99), "indeterminate": (0.39, 0.72), "negative": (0.01, 0.39)}
"""As the shipped model decides."""
HEAD_STARTS = {"positive": 240, "indeterminate": 120, "rejected": 60, "failed": 60}
QUESTIONS = {
    "to read, by rank": "/",
    "all, by rank": "/?review=all",
    "the last page of all": f"/?review=all&page={STUDIES // 50}",
    "positive": "/?state=positive",
    "failed or withdrawn, all": "/?state=failed&state=withdrawn&review=all",
    "a name that many have": "/?text=doe&review=all",
    "an accession number": "/?text=A0012345&review=all",
    "a name that nobody has": "/?text=nobody&review=all",
    "by patient": "/?sort=patient&review=all",
    "by probability": "/?sort=probability&review=all",
    "one day": f"/?since={datetime.now(UTC):%Y-%m-%d}&review=all",
}


def fill(connection: Connection, studies: int, seed: int = 1) -> None:
    """Add studies of the last hundred days, three in ten of them still to read."""
    draw = random.Random(seed)
    now = datetime.now(UTC)
    for begin in range(0, studies, 5000):
        rows = [_row(draw, number, now) for number in range(begin, min(begin + 5000, studies))]
        connection.execute(
            insert(study),
            [
                {
                    "study_instance_uid": row["study_instance_uid"],
                    "patient_id": row["patient_id"],
                    "accession_number": row["accession_number"],
                    "generation": 1,
                    "first_received_at": row["received_at"],
                    "changed_at": row["changed_at"],
                }
                for row in rows
            ],
        )
        connection.execute(insert(worklist), rows)


def _row(draw: random.Random, number: int, now: datetime) -> dict[str, object]:
    came = now - timedelta(minutes=draw.uniform(0, 144_000))
    (state,) = draw.choices(list(STATES), list(STATES.values()))
    head_start = HEAD_STARTS.get(state, 0)
    patient_id, accession = f"P{number % 60_000:06d}", f"A{number:07d}"
    name = draw.choice(NAMES)
    is_read = draw.random() < 0.7
    judged = state in ("positive", "negative", "indeterminate")
    return {
        "study_instance_uid": f"1.2.826.0.1.3680043.10.{number}",
        "patient_name": name,
        "patient_id": patient_id,
        "accession_number": accession,
        "modality": draw.choice(("CR", "DX")),
        "study_description": "XR Thorax pa",
        "study_datetime": f"{came:%Y-%m-%dT%H:%M:%S}",
        "device": f"ROOM{number % 7}",
        "patient_sex": draw.choice(("F", "M")),
        "patient_age": f"{draw.randint(18, 94):03}Y",
        "search": folded(f"{name.replace('^', ' ').replace('=', ' ')} {patient_id} {accession}"),
        "received_at": timestamp(came),
        "ai_state": state,
        "probability": draw.uniform(*PROBABILITIES[state]) if judged else None,
        "threshold": 0.5 if judged else None,
        "bundle_version": "covid19_chest_xray 0.2.0" if judged else None,
        "urgency": 0 if draw.random() < 0.03 else 1,
        "head_start_minutes": head_start,
        "why": state if head_start else None,
        "reason_code": "NOT-FRONTAL" if state == "rejected" else None,
        "sort_key": timestamp(came - timedelta(minutes=head_start)),
        "changed_at": timestamp(came),
        "reviewed_at": timestamp(now) if is_read else None,
        "verdict": "agree" if is_read else None,
    }


def section() -> Iterator[str]:
    """Yield the section of docs/benchmarks.md."""
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-web-") as folder:
        site = Site(Path(folder))
        with site.database.begin() as connection:
            fill(connection, STUDIES)
        with site:
            yield from ("## The pages", "", f"{STUDIES:,} studies on the list, 50 on a page.", "")
            yield from ("| list, request to last byte | p50 ms | p95 ms |", "|---|---|---|")
            with site.client("reader") as client:
                for name, address in QUESTIONS.items():
                    took = sorted(_asked(client, address) for _ in range(REPEATED))
                    p95 = statistics.quantiles(took, n=20)[18]
                    yield f"| {name} | {statistics.median(took):.0f} | {p95:.0f} |"
            yield from _live(site)


def _asked(client: httpx.Client, address: str) -> float:
    began = time.perf_counter()
    answer = client.get(address)
    assert answer.status_code == 200, address
    return (time.perf_counter() - began) * 1000


def _live(site: Site) -> Iterator[str]:
    alone = _megabytes(site)
    told: list[list[float]] = [[] for _ in range(OPEN_PAGES)]
    for times in told:  # one after the other: people do not log in at the same moment
        threading.Thread(target=_page, args=(site, times), daemon=True).start()
        deadline = time.monotonic() + 30
        while not times:
            if time.monotonic() > deadline:
                raise TimeoutError("a page was not told that it is live")
            time.sleep(0.01)
    opened = _megabytes(site)
    delays = []
    for number in range(20):
        time.sleep(0.5)
        before = [len(times) for times in told]
        with site.database.begin() as connection:
            set_state(connection, f"1.2.826.0.1.3680043.10.{number}", "positive", probability=0.9)
        began = time.monotonic()
        while any(len(times) == count for times, count in zip(told, before, strict=True)):
            time.sleep(0.005)
        delays.append(max(times[-1] for times in told) - began)
    yield from ("", f"| with {OPEN_PAGES} pages open | |", "|---|---|")
    yield f"| from the commit of a result until the last page was told, p50 ms | {1e3 * statistics.median(delays):.0f} |"  # noqa: E501 - a row of a table
    yield f"| the same, longest of {len(delays)}, ms | {1e3 * max(delays):.0f} |"
    with site.client("administrator") as client:
        took = sorted(_asked(client, "/") for _ in range(REPEATED))
    yield f"| the list meanwhile, p95 ms | {statistics.quantiles(took, n=20)[18]:.0f} |"
    yield f"| memory of the process before and with them, MB | {alone:.0f}, {opened:.0f} |"


def _page(site: Site, told: list[float]) -> None:
    with httpx.Client(base_url=site.url, timeout=60) as client:
        log_in(client, "reader", PASSWORD)
        client.get("/")
        # At the end of the measurement the server ends first.
        with (
            contextlib.suppress(httpx.RemoteProtocolError),
            client.stream("GET", "/worklist/events") as stream,
        ):
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    told.append(time.monotonic())


def _megabytes(site: Site) -> float:
    assert site.process is not None
    status = Path(f"/proc/{site.process.pid}/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kilobytes.split()[1]) / 1e3


if __name__ == "__main__":
    for line in section():
        print(line, flush=True)
