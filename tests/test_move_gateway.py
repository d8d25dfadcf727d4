"""A gateway at work before and after its rows were moved to PostgreSQL, and back."""

from pathlib import Path
from typing import Any

import processes
from aging import asked
from browsing import Site
from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from test_silence import refused_start
from test_web_study import judge
from thoracle.store import anchors
from thoracle.store.move import Direction

FORTH, BACK = Direction.TO_POSTGRESQL, Direction.TO_SQLITE
PERSONS = {"reader": ["reader"]}


# ---- a hospital that moves -------------------------------------------------------------------


def test_a_gateway_goes_on_with_what_waits_after_the_move_and_after_the_way_back(
    url: str, tmp_path: Path
) -> None:
    key = tmp_path / "erasure.key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    tables: dict[str, Any] = {"web": {"port": free_port()}, "erasure": {"key_file": str(key)}}
    with Pacs() as pacs:
        embedded = Gateway(tmp_path, pacs, **tables)
        first = chest(PatientID="P1", PatientName="Doe^Jane", AccessionNumber="A1")
        with embedded, Site(tmp_path, config=embedded.config, persons=PERSONS) as site:
            deliver(embedded, pacs, first)
            with site.client("reader") as reader:
                uid = str(first.StudyInstanceUID)
                assert judge(reader, uid, opinion="agree").status_code == 303
            second = leave_waiting(embedded, pacs, PatientID="P2", AccessionNumber="A2")
            embedded.kill()  # with rows in the write-ahead log, and work under way
        kept = (embedded.data_folder / anchors.ANCHORS_FILE).read_text()
        without = embedded.config.read_text()

        served = Gateway(tmp_path, pacs, **tables, database={"url": url})
        said = asked(served, "move", FORTH)
        assert "study: 2 rows" in said
        assert "nothing was changed" in said
        said = asked(served, "move", FORTH, "--execute")
        assert "each table was read again and is the same" in said
        assert "audit: OK" in said
        assert not (served.data_folder / "thoracle.sqlite").exists()
        go_on(served, pacs, second, "A2", kept)
        erased(served)
        third = waits_again(served, pacs)

        other = tmp_path / "other.toml"
        other.write_text(without)
        refused(other, "no database (thoracle.sqlite), but thoracle-moved-", "is [database] missi")
        kept = (served.data_folder / anchors.ANCHORS_FILE).read_text()
        with_url = served.config.read_text()
        said = asked(served, "move", BACK, "--execute")
        assert "take [database] out of the configuration" in said
        assert "rows were moved to" in refused_start(served)
        back = Gateway(tmp_path, pacs, **tables)
        go_on(back, pacs, third, "A3", kept)
        other.write_text(with_url)
        refused(other, f"rows were moved to {back.data_folder.resolve()}")


def deliver(gateway: Gateway, pacs: Pacs, image: Any) -> None:
    """Have a study read and its results delivered."""
    assert send(gateway.port, image).status == 0x0000
    concluded(gateway, str(image.StudyInstanceUID))
    eventually(lambda: pacs.reports_on(str(image.StudyInstanceUID)))
    eventually(lambda: delivered(gateway))


def leave_waiting(gateway: Gateway, pacs: Pacs, **attributes: str) -> str:
    """Have a study read while the archive is away; return it when its results wait."""
    pacs.stop()
    image = chest(**attributes)
    assert send(gateway.port, image).status == 0x0000
    concluded(gateway, str(image.StudyInstanceUID))
    waiting = "SELECT 1 FROM outbox WHERE state = 'waiting' AND attempts > 0"
    eventually(lambda: rows(gateway, waiting))
    return str(image.StudyInstanceUID)


def delivered(gateway: Gateway) -> bool:
    return not rows(gateway, "SELECT 1 FROM outbox WHERE state <> 'delivered'")


def go_on(gateway: Gateway, pacs: Pacs, waiting: str, number: str, kept: str) -> None:
    """Start on the other database: what waited arrives, once, and all that was there is."""
    pacs.start()
    config = gateway.config
    with gateway, Site(gateway.folder, config=config, persons={}) as site:
        eventually(lambda: pacs.reports_on(waiting))
        eventually(lambda: delivered(gateway))
        assert len(pacs.reports_on(waiting)) == 1
        with site.client("reader") as reader:
            listed = reader.get("/")
            assert waiting in listed.text
            found = reader.get("/", params={"text": number})
            assert waiting in found.text
            assert "Doe^" not in found.text
        deliver(gateway, pacs, chest())  # what is new, too
        assert gateway.terminate() == 0
    assert (gateway.data_folder / anchors.ANCHORS_FILE).read_text().startswith(kept)
    assert asked(gateway, "audit", "verify").startswith("OK: ")
    why = "SELECT 1 FROM workflow_status WHERE status = 'ERROR'"
    assert rows(gateway, why) == []


def erased(gateway: Gateway) -> None:
    """Erase the first patient; the copies of the database that have it yet are named."""
    patient = ("--patient", "P1", "--reason", "asked")
    said = asked(gateway, "erase", *patient, "--execute", "--without-notice")
    assert "erased as erased-" in said
    assert "thoracle-moved-" in said
    assert asked(gateway, "audit", "verify").startswith("OK: ")


def waits_again(gateway: Gateway, pacs: Pacs) -> str:
    """Have one more study wait, with a patient whose ID another has."""
    with gateway:
        waiting = leave_waiting(gateway, pacs, PatientID="P3", AccessionNumber="A3")
        assert gateway.terminate() == 0
    return waiting


def refused(config: Path, *said: str) -> None:
    """Nothing starts with a configuration of the database before."""
    for command in ("web", "status", "serve"):
        done = processes.run(command, "--config", str(config))
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    for one in said:
        assert one in " ".join(done.stderr.split())
