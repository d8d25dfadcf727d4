"""Codes of an authenticator app by RFC 6238, and what is kept of secrets and recovery codes."""

import base64
import re
from datetime import UTC, datetime
from pathlib import Path

import pyotp
import pytest

from browsing import Site
from factors import SECRET, equip, recovery_code
from thoracle.accounts import second_factor, totp
from thoracle.accounts.accounts import Actor

RFC_KEY = base64.b32encode(b"12345678901234567890").decode()
"""Of RFC 6238 appendix B, for SHA-1."""


@pytest.mark.parametrize(
    ("seconds", "step", "code"),
    [
        (59, 0x1, "94287082"),
        (1111111109, 0x23523EC, "07081804"),
        (1111111111, 0x23523ED, "14050471"),
        (1234567890, 0x273EF07, "89005924"),
        (2000000000, 0x3F940AA, "69279037"),
        (20000000000, 0x27BC86AA, "65353130"),
    ],
)
def test_codes_are_those_of_rfc_6238_and_count_one_step_before_and_after(
    seconds: int, step: int, code: str
) -> None:
    """Six digits are the last of the eight in appendix B."""
    six = code[-6:]

    def found(off: int) -> int | None:
        return totp.step_of(RFC_KEY, six, datetime.fromtimestamp(seconds + off, UTC))

    offsets = [off for off in (-30, 0, 30) if seconds + off >= 30]
    assert {found(off) for off in offsets} == {step}
    assert found(90) is None
    if seconds > 120:
        assert found(-90) is None


def test_an_app_reads_secret_person_and_site_from_the_picture() -> None:
    read = pyotp.parse_uri(totp.uri(SECRET, "a.lee@x", "Thoracle Ward: 1"))
    assert isinstance(read, pyotp.TOTP)
    assert (read.secret, read.name, read.issuer) == (SECRET, "a.lee@x", "Thoracle Ward: 1")
    assert (read.digits, read.interval, read.digest().name) == (6, 30, "sha1")


def test_secrets_and_recovery_codes_are_random_and_long() -> None:
    secrets = {totp.new_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert {len(base64.b32decode(one)) for one in secrets} == {20}
    codes = totp.new_recovery_codes()
    assert len(set(codes)) == len(codes) == totp.RECOVERY_CODES
    assert all(re.fullmatch(r"([a-z0-9]{5}-){2}[a-z0-9]{5}", code) for code in codes)
    assert totp.digest(codes[0]) == totp.digest(f" {codes[0].replace('-', ' ').upper()} ")


def test_what_is_removed_is_in_no_file_of_the_database(tmp_path: Path) -> None:
    site = Site(tmp_path, persons={"reader": ["reader"]})
    equip(site, "reader")
    assert SECRET in _files(site)
    with site.database.begin() as connection:
        second_factor.reset(connection, Actor("tester"), "reader")
    found = _files(site)
    assert SECRET not in found
    assert totp.digest(recovery_code("reader", 0)) not in found
    site.database.dispose()


def _files(site: Site) -> str:
    with site.database.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    folder = site.settings.data_folder
    return "".join(one.read_bytes().decode("latin-1") for one in folder.iterdir() if one.is_file())
