"""Gateway and pages as two users: what each may do below the data folder, and what it may not."""

import json
import os
import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from browsing import Site
from gateway import Gateway
from ledger import eventually, rows
from pacs import Pacs, free_port
from postgres import Server, server
from processes import User
from test_proof import ALWAYS, OBJECTS
from test_web_study import IMAGE, judge
from thoracle.errors import SettingsError, ThoracleError
from thoracle.settings import parse
from thoracle.store import files, rights, sqlite
from thoracle.store.database import existing, open_database
from ward import PERSONS, Ward, of_study

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can start processes of two other users"
)

GATEWAY, PAGES, GROUP = 20001, 20002, 20003

# ---- what is where -------------------------------------------------------------------------------

EXPECTED = [
    (r"", GATEWAY, 0o2750),
    (r"lock|retention\.lock|audit-key\.pem", GATEWAY, 0o600),
    (r"audit-(anchors|timestamps)\.jsonl|audit-verified\.json", GATEWAY, 0o640),
    (r"(incoming|messages|orphans)", GATEWAY, 0o2700),
    (r"images(/[0-9a-f]{2})?|results(/\d{2})?", GATEWAY, 0o2750),
    (r"messages/[0-9a-f]{2}", GATEWAY, 0o2750),
    (r"messages/[0-9a-f]{2}/[0-9a-f]+\.json", GATEWAY, 0o640),
    (r"images/[0-9a-f]{2}/[0-9a-f]{32}\.dcm|results/\d{2}/[0-9.]+\.dcm", GATEWAY, 0o640),
    (r"database|cache|pages", GATEWAY, 0o2770),
    (r"database/thoracle\.sqlite", GATEWAY, 0o660),
    (r"database/thoracle\.sqlite-(wal|shm)", None, 0o660),
    (r"cache/pictures(/[0-9a-f]{2})?", PAGES, 0o2770),
    (r"cache/pictures/[0-9a-f]{2}/[0-9a-f]{64}\.png", PAGES, 0o600),
    (r"pages/web-\d+\.lock", PAGES, 0o640),
    (r"pages/audit-verified\.json", PAGES, 0o660),
]
"""Path below the data folder, owner (``None``: either), mode. The group is that of both; of what is
for the owner alone and older than the group, the owner's."""


def unexpected(folder: Path) -> list[str]:
    """Return what in a data folder has not the rights that it should have."""
    found = []
    for path in [folder, *folder.rglob("*")]:
        below, status = str(path.relative_to(folder)).removeprefix("."), path.lstat()
        is_ = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
        groups = {GROUP, *[status.st_uid] * (is_[2] == 0o600)}
        expected = [
            (owner or status.st_uid, mode)
            for pattern, owner, mode in EXPECTED
            if re.fullmatch(pattern, below)
        ]
        if is_[::2] not in expected or is_[1] not in groups:
            found.append(f"{below}: {is_[0]}:{is_[1]} {is_[2]:04o}")
    return found


ATTEMPTS = """
import fcntl, json, os, sys
folder = sys.argv[1]
image, result = sys.argv[2:4]
def tried(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"
def locked(path):
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
os.chdir(folder)
print(json.dumps({name: tried(action) for name, action in {
    "read image": lambda: open(image, "rb").read(),
    "read result": lambda: open(result, "rb").read(),
    "read anchors": lambda: open("audit-anchors.jsonl").read(),
    "write database": lambda: open("database/thoracle.sqlite", "r+b").close(),
    "read key": lambda: open("audit-key.pem").read(),
    "exchange key": lambda: os.replace("pages/audit-verified.json", "audit-key.pem"),
    "unlink key": lambda: os.unlink("audit-key.pem"),
    "read messages": lambda: os.listdir("messages"),
    "read incoming": lambda: os.listdir("incoming"),
    "unlink image": lambda: os.unlink(image),
    "write image": lambda: open(image, "r+b"),
    "rename image": lambda: os.rename(image, "pages/image"),
    "add image": lambda: open("images/00/" + "0" * 32 + ".dcm", "w"),
    "unlink result": lambda: os.unlink(result),
    "write result": lambda: open(result, "r+b"),
    "unlink anchors": lambda: os.unlink("audit-anchors.jsonl"),
    "write anchors": lambda: open("audit-anchors.jsonl", "a"),
    "exchange cache": lambda: os.rename("cache", "pages/cache"),
    "exchange database": lambda: os.rename("database", "pages/database"),
    "add file": lambda: open("probe", "w"),
    "widen folder": lambda: os.chmod(".", 0o2770),
    "hold lock": lambda: locked("lock"),
    "read secret": lambda: open("../secret").read(),
    "write settings": lambda: open("../thoracle.toml", "a"),
    "exchange settings": lambda: os.unlink("../thoracle.toml"),
}.items()}))
"""
ALLOWED = {"read image", "read result", "read anchors", "write database"}


# ---- a ward of two users -------------------------------------------------------------------------


@contextmanager
def machine() -> Iterator[Path]:
    """Yield a folder that other users can enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="thoracle-two-users-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def user(folder: Path, uid: int) -> User:
    """Return a user with a home below a folder."""
    home = folder / f"home-{uid}"
    if not home.exists():
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
    return User(uid, (uid, GROUP), home)


def share(gateway: Gateway) -> None:
    """Set the group of the data folder."""
    text = gateway.config.read_text().replace(f'data_folder_group = "{GROUP}"\n', "")
    gateway.config.write_text(f'data_folder_group = "{GROUP}"\n{text}')


def two_users(folder: Path, archive: Pacs, database: dict[str, str] | None = None) -> Gateway:
    """Return a gateway of one user whose pages are another's; not started."""
    hook = {"name": "hook", "url": "http://127.0.0.1:9/", "secret": f"file:{folder / 'secret'}"}
    gateway = Gateway(
        folder,
        archive,
        lists={"webhook": [hook]},
        report={"sc": ALWAYS, "pr": ALWAYS},
        web={"port": free_port()},
        **({"database": database} if database else {}),
    )
    share(gateway)
    gateway.config.chmod(0o640)
    os.chown(gateway.config, 0, GROUP)
    gateway.data_folder.mkdir(mode=0o700)
    secret = folder / "secret"
    secret.write_text("token\n")
    secret.chmod(0o600)
    for path in (gateway.data_folder, secret):
        os.chown(path, GATEWAY, GATEWAY)
    gateway.user = user(folder, GATEWAY)
    return gateway


def site_of(gateway: Gateway, uid: int = PAGES) -> Site:
    """Return the pages of a gateway that runs, as the other user; not started."""
    site = Site(gateway.folder, config=gateway.config, persons=PERSONS)
    site.user = user(gateway.folder, uid)
    return site


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    with server() as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def here(request: pytest.FixtureRequest) -> Iterator[Ward]:
    database = None
    if request.param == "postgresql":
        database = {"url": request.getfixturevalue("postgresql").create()}
    with (
        machine() as folder,
        Pacs("ARCHIVE", OBJECTS) as archive,
        two_users(folder, archive, database) as gateway,
        site_of(gateway) as site,
    ):
        ward = Ward(gateway, archive, site)
        ward.studies = {"plain": ward.send(*of_study(1, PatientID="P7"))}
        yield ward


def thoracle(who: User | None, ward: Ward, *arguments: str) -> str:
    """Run a command as a user; return what it printed."""
    assert who is not None
    done = who.run("-m", "thoracle", *arguments, "--config", str(ward.gateway.config))
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def test_a_study_is_listed_opened_with_pictures_and_judged(here: Ward) -> None:
    study = here.studies["plain"]
    with here.site.client("chief") as client:
        assert study in client.get("/").text
        pictures = IMAGE.findall(client.get(f"/study/{study}").text)
        assert pictures
        for path in pictures:
            assert client.get(path.replace("&amp;", "&")).headers["content-type"] == "image/png"
        assert judge(client, study).status_code == 303
        assert client.get("/dashboard").status_code == 200
        assert client.get("/alarms").status_code == 200
        assert client.get("/audit").status_code == 200
    assert [row["opinion"] for row in rows(here.gateway, "SELECT opinion FROM verdict")] == [
        "agree"
    ]


def test_what_the_pages_ask_for_the_gateway_does(here: Ward) -> None:
    study = here.studies["plain"]
    with here.site.client("chief") as client:
        assert client.post(f"/study/{study}/reanalyse").status_code == 303
    statement = "SELECT * FROM analysis WHERE study_instance_uid = ? AND state = 'done'"
    assert eventually(lambda: len(rows(here.gateway, statement, study)) == 2)


def test_each_user_can_do_its_part_and_no_more(here: Ward) -> None:
    folder, study = here.gateway.data_folder, here.studies["plain"]
    with here.site.client("chief") as client:
        for path in IMAGE.findall(client.get(f"/study/{study}").text):
            client.get(path.replace("&amp;", "&"))
        assert client.post("/audit/verification", data={"whole": "true"}).status_code == 303
        assert client.get("/api/audit/verification").json()["state"] == "well"
    assert unexpected(folder) == []
    stored = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.relative_to(folder).parts[0] for path in stored} >= {
        "images", "results", "cache", "pages", "audit-anchors.jsonl", "audit-key.pem",
    }  # fmt: skip
    image, result = (
        next(str(path.relative_to(folder)) for path in (folder / name).rglob("*.dcm"))
        for name in ("images", "results")
    )
    pages = here.site.user
    assert pages is not None
    done = pages.run("-c", ATTEMPTS, str(folder), image, result)
    said = json.loads(done.stdout)
    is_sqlite = here.gateway.database_url is None
    if not is_sqlite:
        assert said.pop("write database") == "FileNotFoundError"
    assert {name for name, became in said.items() if became == "done"} == ALLOWED & set(said)
    assert set(said.values()) == {"done", "PermissionError"}


def test_the_pages_change_no_setting_and_say_by_whom_it_is_done(here: Ward) -> None:
    with here.site.client("chief") as client:
        page = client.get("/setup").text
        assert "The pages run as a user of their own (data_folder_group)" in page
        assert f"thoracle check --config {here.gateway.config}" in page
        answer = client.post("/setup/rule/add", data={"digest": "", "name": "r"})
        assert answer.status_code == 409
        tried = client.post("/setup/test/webhook/hook").text
        assert "cannot be read: PermissionError" in tried


def test_commands_find_the_database_and_the_pages_have_no_key(here: Ward) -> None:
    gateway, pages = here.gateway.user, here.site.user
    assert "1 complete" in thoracle(gateway, here, "status") or "done" in thoracle(
        gateway, here, "status"
    )
    assert "OK: " in thoracle(gateway, here, "audit", "verify")
    checked = thoracle(gateway, here, "check")
    assert re.search(r"OK +data_folder: .*: Thoracle is running in it", checked)
    assert re.search(r"OK +web\.port: .* is in use by the running service", checked)
    assert "-----BEGIN PUBLIC KEY-----" in thoracle(gateway, here, "audit", "key")
    said = thoracle(pages, here, "audit", "key")
    assert f"audit-key.pem: found owner {GATEWAY}, required: {PAGES}, who runs this" in said
    assert "audit-verified.part: found no permission for user" in thoracle(
        pages, here, "audit", "verify"
    )


def test_the_gateway_deletes_old_pictures_and_follows_no_link_of_the_pages(here: Ward) -> None:
    folder, study = here.gateway.data_folder, here.studies["plain"]
    with here.site.client("chief") as client:
        for path in IMAGE.findall(client.get(f"/study/{study}").text):
            client.get(path.replace("&amp;", "&"))
    pictures = folder / rights.PICTURES
    made, images = list(pictures.glob("*/*.png")), list((folder / "images").rglob("*.dcm"))
    assert made
    assert images
    (pictures / "zz").symlink_to(images[0].parent)
    for path in (*made, images[0]):
        os.utime(path, (0, 0))
    gone = thoracle(here.gateway.user, here, "retention", "run")
    assert "deleted: " in gone
    assert not any(path.exists() for path in made)
    assert images[0].exists()
    (pictures / "zz").unlink()


# ---- from one form to the other ------------------------------------------------------------------


def test_a_data_folder_changes_from_one_user_to_two_and_back() -> None:
    with machine() as folder, Pacs("ARCHIVE", OBJECTS) as archive:
        gateway = two_users(folder, archive)
        of_one, of_two = sqlite.places(gateway.data_folder)
        shared = gateway.config.read_text()
        single = shared.replace("data_folder_group", "# data_folder_group")
        gateway.config.write_text(single)
        with gateway, site_of(gateway, GATEWAY) as site:
            ward = Ward(gateway, archive, site)
            study = ward.send(*of_study(1, PatientID="P7"))
            assert (of_one.exists(), of_two.exists()) == (True, False)
            assert stat.S_IMODE(gateway.data_folder.stat().st_mode) == 0o700
            gateway.terminate()

            gateway.config.write_text(shared)
            said = refused(gateway.start)
            assert "found pages at work (process" in said
            assert "required: none while the rights of the folder change" in said
            assert of_one.exists()
            site.stop()
            site.database.dispose()  # has it open, too
            stranger = User(PAGES, (PAGES,), user(folder, PAGES).home)
            site.user = stranger
            gateway.config.chmod(0o644)  # else it would not come so far
            assert f"who is not in {GROUP}, required: a member" in refused(site.start)
            site.user = user(folder, PAGES)
            assert f"found {gateway.data_folder} closed to user {PAGES}" in refused(site.start)

            gateway.start()
            assert (of_one.exists(), of_two.exists()) == (False, True)
            assert unexpected(gateway.data_folder) == []
            site.start()
            with site.client("chief") as client:
                assert study in client.get("/").text
                for path in IMAGE.findall(client.get(f"/study/{study}").text):
                    client.get(path.replace("&amp;", "&"))
            gateway.terminate()
            site.stop()
            site.database.dispose()

            gateway.config.write_text(single)
            gateway.start()
            assert (of_one.exists(), of_two.exists()) == (True, False)
            assert stat.S_IMODE(gateway.data_folder.stat().st_mode) == 0o700
            assert not (gateway.data_folder / "pages").exists()
            assert not list((gateway.data_folder / "cache").iterdir())
            assert "OK: " in thoracle(gateway.user, ward, "audit", "verify")
            assert [row["study_instance_uid"] for row in rows(gateway, "SELECT * FROM study")] == [
                study
            ]
            site.user = gateway.user
            site.start()  # for the end of the block


def refused(start: Callable[[], None]) -> str:
    """Return what is said by a start that fails."""
    with pytest.raises(RuntimeError) as raised:
        start()
    assert "Traceback" not in str(raised.value)
    return str(raised.value)


def test_a_database_that_somebody_has_open_is_not_moved(tmp_path: Path) -> None:
    source, target = tmp_path / "thoracle.sqlite", tmp_path / "moved.sqlite"
    with closing(sqlite3.connect(source)) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("CREATE TABLE one (number INTEGER)")
        made.execute("INSERT INTO one VALUES (7)")
        made.commit()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            sqlite.move(source, target)
        assert not target.exists()
    sqlite.move(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["moved.sqlite"]
    with closing(sqlite3.connect(target)) as moved:
        assert moved.execute("SELECT number FROM one").fetchall() == [(7,)]


def test_wider_rights_are_mended_with_a_word_and_another_owner_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(rights.logger, "warning", lambda text, *of: said.append(text % of))
    settings = parse({"data_folder": str(tmp_path / "data"), "data_folder_group": str(GROUP)})
    settings.data_folder.mkdir(mode=0o700)
    rights.keep(settings)
    assert said == []
    images = settings.data_folder / "images"
    images.chmod(0o2777)
    settings.data_folder.chmod(0o2755)
    rights.keep(settings)
    assert f"found permissions 2777 on {images}; they are now 2750" in "\n".join(said)
    assert stat.S_IMODE(images.stat().st_mode) == stat.S_IMODE(images.parent.stat().st_mode)
    cache = settings.data_folder / "cache"
    os.chown(cache, PAGES, GROUP)
    with pytest.raises(SettingsError, match=rf"found owner {PAGES} of {cache}, required: root"):
        rights.keep(settings)


def test_a_database_that_was_restored_to_the_other_place_is_moved_and_two_are_refused(
    tmp_path: Path,
) -> None:
    settings = parse({"data_folder": str(tmp_path / "data"), "data_folder_group": str(GROUP)})
    settings.data_folder.mkdir(mode=0o700)
    rights.keep(settings)
    of_one, of_two = sqlite.places(settings.data_folder)
    open_database(sqlite.url(settings.data_folder)).dispose()
    assert of_one.exists()
    of_one.chmod(0o600)
    existing(settings).dispose()  # found where it is
    rights.keep(settings)
    assert (of_one.exists(), of_two.exists()) == (False, True)
    assert (of_two.stat().st_gid, stat.S_IMODE(of_two.stat().st_mode)) == (GROUP, 0o660)
    existing(settings).dispose()
    shutil.copy(of_two, of_one)
    with pytest.raises(SettingsError, match="found two databases, "):
        rights.keep(settings)


def test_a_path_in_a_row_leads_to_no_other_file(tmp_path: Path) -> None:
    assert files.stored(tmp_path, "images/ab/x.dcm") == tmp_path / "images/ab/x.dcm"
    for path in ("audit-key.pem", "/etc/passwd", "images/../audit-key.pem", "cache/x", "", "."):
        with pytest.raises(ThoracleError, match="required: one in images, results, messages"):
            files.stored(tmp_path, path)
