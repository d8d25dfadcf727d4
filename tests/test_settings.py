"""Faults in a configuration are named with setting, value found and value required."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from thoracle import settings
from thoracle.errors import SettingsError
from thoracle.settings import Settings, faults
from thoracle.settings.template import template


def test_the_template_is_a_configuration_with_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "thoracle.toml"
    path.write_text(template())
    loaded = settings.load(path)
    assert loaded.model_copy(update={"data_folder": Settings().data_folder}) == Settings()


def test_each_default_of_the_template_means_the_default() -> None:
    """Uncommented, a line changes nothing; an unset value stands as an empty text."""
    lines, inside = [], True
    for line in template().splitlines():
        if line.startswith(("[", "# [")):
            inside = line.startswith("[")  # a table that is wholly commented out has no defaults
        if inside and (line.startswith("[") or (" = " in line and not line.endswith('= ""'))):
            lines.append(line.removeprefix("# "))
    assert settings.parse(tomllib.loads("\n".join(lines))) == Settings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[receive]\nport = 70000", "receive.port: found 70000, required: at most 65535"),
        ("[receive]\nprot = 104", "receive.prot: unknown setting, found 104; did you mean port?"),
        (
            "[recieve]\nport = 104",
            "recieve: unknown setting, found {'port': 104}; did you mean receive?",
        ),
        ("reserve_megabytes = 9", "unknown setting, found 9; did you mean it in [receive]?"),
        ('[receive]\nport = "x"', "receive.port: found 'x', required: a whole number"),
        ("[receive]\nae_title = 7", "receive.ae_title: found 7, required: a text in quotation"),
        ("[report]\nsc = ['all']", "report.sc 1: found 'all', required: 'positive', 'indeter"),
        (
            "[[destination]]\nname='a'\nurl='http://h'\n[[destination]]\nname='b'\nhots='h'",
            "destination \"b\".hots: unknown setting, found 'h'; did you mean host?",
        ),
        ("[[hl7]]\nhost = 'h'", "hl7 1.name: found nothing, required: a value"),
        ("[[hl7]]\nname = 'The RIS'", "required: 1 to 32 of a-z, 0-9, - and _"),
        ('[receive]\nae_title = "TOO LONG AN AE TITLE"', "receive.ae_title: found 'TOO LONG"),
        ('[receive]\nae_title = "BACK\\\\SLASH"', "receive.ae_title: found"),
        ('[receive]\nhost = "0.0.0.0"', "receive.calling_ae_titles: found none while"),
        ('[web]\nhost = "0.0.0.0"', "web: found host 0.0.0.0 without certificate_file"),
        ("[decode]\ntimeout_seconds = 0", "decode.timeout_seconds: found 0, required: "),
        ('[classify]\nbundle = "x"', "classify: found a bundle without a digest"),
        (
            "[[destination]]\nname = 'a'",
            'destination "a": found none of them, required: ae_title',
        ),
        (
            "[[destination]]\nname = 'a'\nae_title = 'A'",
            "found ae_title, required: ae_title, host and port, or url alone",
        ),
        (
            "[[destination]]\nname = 'a'\nurl = 'http://h/dicom-web'\ntoken = 'env:T'",
            "found credentials or tls with http://h/dicom-web, required: an https url",
        ),
        (
            "[[destination]]\nname = 'a'\nurl = 'https://h/dicom-web'\nusername = 'u'",
            "found one of username and password, required: both",
        ),
        (
            "[[destination]]\nname = 'a'\nurl = 'https://h/dicom-web'\ntoken = 'secret'",
            'destination "a".token: found a text that is not shown, required: file:PATH',
        ),
        (
            "[web]\ntrusted_hosts = ['https://pages.example']",
            "web: found 'https://pages.example' in trusted_hosts, required: a name",
        ),
        (
            "[web]\ntrusted_hosts = ['pages.example:8443']",
            "web: found 'pages.example:8443' in trusted_hosts, required: a name",
        ),
        (
            "[web]\nproxy_addresses = ['proxy.example']",
            "web: found 'proxy.example' in proxy_addresses, required: an IP address",
        ),
        (
            "[web]\nproxy_addresses = ['192.0.2.0/24']",
            "web: found '192.0.2.0/24' in proxy_addresses, required: an IP address",
        ),
        ("nonsense", "thoracle.toml: "),
    ],
)
def test_a_fault_names_setting_value_and_requirement(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "thoracle.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        settings.load(path)
    assert expected in str(caught.value)


def test_a_pattern_is_never_shown_as_it_is_written() -> None:
    schema = json.dumps(Settings.model_json_schema())
    written = {
        json.loads(f'"{one}"') for one in re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', schema)
    }
    assert written - faults._PATTERNS.keys() == set()


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        settings.parse({"receive": {"port": 0}, "select": {"minimum_rows_columns": 1}, "x": 1})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("name", ["pages.example", "192.0.2.7", "[2001:db8::7]", "localhost"])
def test_names_as_browsers_send_them_are_trusted(name: str) -> None:
    web = {"trusted_hosts": [name], "proxy_addresses": ["192.0.2.1", "2001:db8::1"]}
    assert settings.parse({"web": web}).web.trusted_hosts == (name,)


def test_two_destinations_of_one_name_are_refused() -> None:
    one = {"name": "a", "ae_title": "A", "host": "h", "port": 104}
    with pytest.raises(SettingsError, match="found a twice"):
        settings.parse({"destination": [one, one]})


def test_relative_folders_are_taken_from_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "thoracle.toml"
    path.write_text('data_folder = "here"')
    assert settings.load(path).data_folder == tmp_path / "here"


def test_files_named_in_inner_tables_are_taken_from_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "thoracle.toml"
    path.write_text(
        "[[destination]]\nname = 'a'\nurl = 'https://h/dicom-web'\ntoken = 'file:token'\n"
        "[destination.tls]\nca_file = 'ca.pem'\n"
    )
    (destination,) = settings.load(path).destination
    assert destination.tls is not None
    assert destination.tls.ca_file == tmp_path / "ca.pem"
    assert destination.token == f"file:{tmp_path / 'token'}"


def test_a_missing_file_is_named_once_with_what_is_required(tmp_path: Path) -> None:
    path = tmp_path / "thoracle.toml"

    with pytest.raises(SettingsError) as raised:
        settings.load(path)

    assert str(raised.value) == (
        f"{path}: No such file or directory; required: a configuration file that can be read"
    )
