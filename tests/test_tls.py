"""The settings of TLS: suites, files that cannot be used, and what `check` says of certificates."""

import ssl
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certificates import DAY, NOW
from peers import require
from thoracle.cli import machine
from thoracle.errors import SettingsError
from thoracle.settings import parse, tls
from tls_peers import Names, archive, ours, server_context, theirs


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Names:
    return Names.issued(tmp_path_factory.mktemp("certificates"))


def test_only_suites_with_forward_secrecy_and_authenticated_encryption_are_offered(
    names: Names,
) -> None:
    suites = {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
    }
    for context in (tls.server_context(ours(names)), tls.client_context(theirs(names))):
        offered = {one["name"] for one in context.get_ciphers() if one["protocol"] == "TLSv1.2"}
        assert offered == suites
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED


def _damaged(names: Names, folder: Path, what: str) -> tuple[dict[str, Path], str]:
    made, key = folder / "made.pem", names.server.key_file
    match what:
        case "missing":
            return {"key_file": made}, "receive.tls.key_file: found .*made.pem: No such file"
        case "no PEM":
            made.write_bytes(b"\x30\x82")
            return {"certificate_file": made}, "receive.tls.certificate_file: found no CERTIFICATE"
        case "a damaged authority":
            made.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            return {"client_ca_file": made}, "receive.tls.client_ca_file: found .*required:"
        case "another's key":
            return {"key_file": names.client.key_file}, "found the key of another certificate"
        case "a readable key":
            made.write_bytes(key.read_bytes())
            made.chmod(0o644)
            return {"key_file": made}, "found permissions 0644 on .*at most 0640"
        case _:
            locked = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", str(key)]
            require("openssl", "openssl")
            subprocess.run([*locked, "-out", str(made)], check=True, timeout=60)
            made.chmod(0o600)
            return {"key_file": made}, "found a key with a passphrase in .*required: one without"


@pytest.mark.parametrize(
    "what",
    ["missing", "no PEM", "a damaged authority", "another's key", "a readable key", "a locked key"],
)
def test_files_that_cannot_be_used_are_named_with_what_is_required(
    names: Names, tmp_path: Path, what: str
) -> None:
    files, words = _damaged(names, tmp_path, what)
    with pytest.raises(SettingsError, match=words) as raised:
        tls.server_context(ours(names, **files))
    assert "secret" not in str(raised.value)


def findings(settings: dict[str, Any]) -> list[machine.CheckResult]:
    checked = machine.check(parse(settings))
    return [one for one in checked if "tls" in one.subject or one.subject.startswith("dest")]


def test_check_says_when_each_certificate_expires_and_calls_archives_by_tls(
    names: Names, tmp_path: Path
) -> None:
    soon = names.ca.issue("soon", not_after=NOW + 20 * DAY + timedelta(hours=1))
    with archive(server_context(names.server)) as port:
        table = {
            "data_folder": str(tmp_path),
            "receive": {"tls": ours(names).model_dump()},
            "destination": [
                {
                    "name": "pacs",
                    "ae_title": "PACS",
                    "host": "127.0.0.1",
                    "port": port,
                    "tls": theirs(names, soon).model_dump(),
                },
            ],
        }
        found = {one.subject: one for one in findings(table)}
    assert found["receive.tls"].well
    own = found["receive.tls certificate_file"]
    assert own.well
    assert names.server.fingerprint in own.text
    assert f"expires on {NOW + 365 * DAY:%Y-%m-%d}, in 36" in own.text
    late = found["destination pacs tls certificate_file"]
    assert late.well
    assert late.text.endswith("in 20 days; renew it")
    assert found["destination pacs"] == machine.CheckResult(
        "destination pacs", True, "answers C-ECHO"
    )


def test_check_calls_an_expired_certificate_and_one_of_tomorrow_faults(names: Names) -> None:
    for identity, words in ((names.expired, "expired on"), (names.future, "to be valid from")):
        files = {"certificate_file": identity.certificate_file, "key_file": identity.key_file}
        settings = {"receive": {"tls": ours(names, **files).model_dump()}}
        found = {one.subject: one for one in findings(settings)}
        assert not found["receive.tls certificate_file"].well
        assert words in found["receive.tls certificate_file"].text
    broken = {"receive": {"tls": ours(names, key_file=names.client.key_file).model_dump()}}
    (fault,) = findings(broken)[:1]
    assert not fault.well
    assert "another certificate" in fault.text
