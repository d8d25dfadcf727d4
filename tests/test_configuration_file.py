"""The configuration file as a program changes it: comments and permissions are kept."""

import os
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from thoracle.errors import SettingsError
from thoracle.settings import document
from thoracle.settings.document import ConfigurationFile, FileChanged

TEXT = """\
# Configuration of the radiology
data_folder = "data"

[receive]  # our listener
# who may call
calling_ae_titles = ["PACS", "CR1"]  # both wards
port = 11112

[[destination]]
# the archive
name = "pacs"  # as in the contract
ae_title = "PACS"
host = "192.0.2.10"
port = 11112

[destination.tls]
ca_file = "ca.pem"

# the research archive
[[destination]]
name = "research"
url = "https://research.example/dicomweb"
token = "file:token"

# what goes there
[[rule]]
name = "all"
when = "true"
send = ["research"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "thoracle.toml"
    found.write_text(TEXT)
    found.chmod(0o640)
    return found


def test_only_what_was_changed_differs(path: Path) -> None:
    former = document.read(path)
    change = {"port": 104, "kinds": ["sr"], "tls": {"fingerprint": "ab" * 32}}
    found = document.with_entry(former, "destination", 0, change)
    added = {"port = 104", 'kinds = ["sr"]', f'fingerprint = "{"ab" * 32}"'}
    before, after = former.text.splitlines(), found.text.splitlines()
    assert set(after) - set(before) == added
    assert [line for line in after if line not in added] == [
        line for number, line in enumerate(before) if (number, line) != (13, "port = 11112")
    ]
    assert after.index('fingerprint = "' + "ab" * 32 + '"') < after.index("# the research archive")
    assert found.faults() == []
    assert document.difference(former.values, found.values) == [
        {"setting": "destination.pacs.kinds", "before": None, "after": ["sr"]},
        {"setting": "destination.pacs.port", "before": 11112, "after": 104},
        {"setting": "destination.pacs.tls.fingerprint", "before": None, "after": "ab" * 32},
    ]


def test_an_entry_is_added_and_removed_and_the_comments_about_others_stay(path: Path) -> None:
    former = document.read(path)
    new = {"name": "ris", "host": "192.0.2.20", "port": 2575, "tls": {"ca_file": "ca.pem"}}
    found = document.with_entry(former, "hl7", None, new)
    assert found.values["hl7"] == [new]
    assert found.text.startswith(TEXT)
    less = document.without_entry(document.without_entry(found, "hl7", 0), "destination", 1)
    assert [one["name"] for one in less.values["destination"]] == ["pacs"]
    assert "# what goes there\n[[rule]]" in less.text
    (gone,) = [
        one
        for one in document.difference(former.values, less.values)
        if one["setting"].endswith("token")
    ]
    assert gone == {"setting": "destination.research.token", "before": "not shown", "after": None}


def test_a_table_is_changed_and_made(path: Path) -> None:
    found = document.read(path)
    found = document.with_table(found, "receive", {"calling_ae_titles": ["PACS"], "port": None})
    found = document.with_table(found, "ups", {"query_ae_titles": ["WS"]})
    assert 'calling_ae_titles = ["PACS"]  # both wards' in found.text
    assert (found.values["receive"], found.values["ups"]) == (
        {"calling_ae_titles": ["PACS"]},
        {"query_ae_titles": ["WS"]},
    )


def test_a_condition_of_several_lines_stays_readable(path: Path) -> None:
    when = 'Modality == "DX"\n&& result.outcome == "positive"'
    found = document.with_entry(document.read(path), "rule", 0, {"when": when})
    assert f'when = """{when}"""' in found.text


@pytest.mark.parametrize(
    "text",
    [
        'destination = [{name = "a", ae_title = "A", host = "h", port = 1}]  # inline\n',
        'receive.port = 104\nreceive.host = "127.0.0.1"\n',
        "[receive.budget]\nnesting = 60\n[web]\nport = 1\n[receive]\nport = 104\n",
        "# nothing\n",
        "[receive]\r\nport = 104\r\n# end\r\n",
    ],
    ids=["inline", "dotted", "out of order", "empty", "CRLF"],
)
def test_other_ways_of_writing_are_changed_or_refused_and_never_spoilt(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "other.toml"
    path.write_bytes(text.encode())
    former = document.read(path)
    new: dict[str, Any] = {"name": "b", "ae_title": "B", "host": "h", "port": 2}

    def changes() -> Iterator[Callable[[], ConfigurationFile]]:
        yield partial(document.with_entry, former, "destination", None, new)
        yield partial(document.with_table, former, "receive", {"calling_ae_titles": ["A"]})
        yield partial(document.with_table, former, "receive", {"port": 105})

    for change in changes():
        try:
            found = change()
        except SettingsError:  # "required: a change by hand"
            continue
        assert tomllib.loads(found.text) == found.values
        assert len(document.difference(former.values, found.values)) in (1, 4)


def test_faults_name_setting_value_and_what_is_required(path: Path) -> None:
    found = document.with_entry(document.read(path), "destination", 0, {"port": "many"})
    (fault,) = found.faults()
    assert fault.path == ("destination", 0, "port")
    assert fault.text == "destination \"pacs\".port: found 'many', required: a whole number"


def test_a_file_is_replaced_with_its_permissions_and_the_former_one_kept(path: Path) -> None:
    former = document.read(path)
    found = document.with_table(former, "receive", {"port": 104})
    kept = document.write(former, found)
    assert kept.read_text() == TEXT
    assert path.read_text() == found.text
    for one in (kept, path):
        assert one.stat().st_mode & 0o777 == 0o640
    assert sorted(path.parent.iterdir()) == [path, kept]
    assert document.read(path).settings().receive.port == 104


def test_what_somebody_wrote_meanwhile_is_not_overwritten(path: Path) -> None:
    former = document.read(path)
    found = document.with_table(former, "receive", {"port": 104})
    path.write_text(TEXT + "# by hand\n")
    with pytest.raises(FileChanged, match=r"found digest .*, required: .* Nothing was written"):
        document.write(former, found)
    assert path.read_text().endswith("# by hand\n")
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_a_link(path: Path) -> None:
    link = path.with_name("link.toml")
    link.symlink_to(path)
    former = document.read(link)
    document.write(former, document.with_table(former, "receive", {"port": 104}))
    assert link.is_symlink()
    assert document.read(path).values["receive"]["port"] == 104


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_whoever_may_not_write_is_told_why_and_what_to_do(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"thoracle-{os.getpid()}"  # one that others can reach
    folder.mkdir(mode=0o755)
    path = folder / "thoracle.toml"
    try:
        path.write_text(TEXT)
        assert document.why_read_only(path) == ""
        os.seteuid(65534)
        try:
            said = document.why_read_only(path)
            former = document.read(path)
            with pytest.raises(SettingsError, match="cannot be written: Permission denied"):
                document.write(former, document.with_table(former, "receive", {"port": 104}))
        finally:
            os.seteuid(0)
        assert said.startswith(f"{path} cannot be written by user nobody.")
        assert f"ReadWritePaths={folder}" in said
    finally:
        path.unlink()
        folder.rmdir()
