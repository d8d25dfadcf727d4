"""What goes with a release: a bill of materials that names all, and a signature that holds.

`make release` itself builds the wheel twice, and checks the bill of materials by its schema.
"""

import subprocess
from importlib.metadata import metadata
from pathlib import Path

import sbom
from peers import require
from release import sign
from thoracle.classify.bundle import SHIPPED_DIGEST


def test_a_signature_holds_for_the_digests_that_were_signed_alone(tmp_path: Path) -> None:
    minisign = require("minisign", "minisign")
    key, public, sums = (tmp_path / name for name in ("key", "key.pub", "SHA256SUMS"))
    make = [minisign, "-G", "-W", "-p", str(public), "-s", str(key)]
    subprocess.run(make, check=True, capture_output=True)
    sums.write_text("0" * 64 + "  thoracle.whl\n", encoding="utf-8")
    sign(sums, str(key), "thoracle.whl, commit 1")
    verify = [minisign, "-V", "-p", str(public), "-m", str(sums)]
    assert "commit 1" in subprocess.check_output(verify, text=True)
    sums.write_text("1" * 64 + "  thoracle.whl\n", encoding="utf-8")
    assert subprocess.run(verify, check=False, capture_output=True).returncode != 0


def test_what_a_distribution_needs_is_named_with_its_extras() -> None:
    names = ("thoracle", "pwdlib", "argon2-cffi", "pyarrow", "pytest")
    found = {name: dict(metadata(name).json) for name in names}
    needs = sbom.dependencies(found)
    assert needs["thoracle"] == {"pwdlib", "pyarrow"}  # pyarrow by an extra; pytest by none
    assert needs["pwdlib"] == {"argon2-cffi"}  # by the extra that we ask for


def test_a_licence_is_told_as_the_metadata_have_it() -> None:
    assert sbom.licence({"license_expression": "MIT", "license": "other"}) == "MIT"
    classifiers = ["License :: OSI Approved", "License :: OSI Approved :: BSD License"]
    assert sbom.licence({"classifier": classifiers, "license": "BSD"}) == "BSD License"
    assert sbom.licence({"license": "Copyright\nand a whole text"}) == "Copyright"
    assert sbom.licence({}) == "not stated"


def test_what_no_package_index_knows_is_in_the_bill_of_materials_too() -> None:
    scripts = {one.name: one for one in sbom.scripts()}
    assert set(scripts) == {"htmx.org", "htmx-ext-sse"}
    assert all(one.hashes for one in scripts.values())
    assert [one.value for one in sbom.model().properties] == [SHIPPED_DIGEST]
