"""The artefacts of a release: a reproducible wheel, its SBOM, and the digests of both.

The wheel is built twice, in two folders, from the files of the last commit and at its time; if two
builds differ there is no release.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import sbom

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip"]


def git(*arguments: str) -> str:
    """Return what git says of this checkout."""
    return subprocess.check_output(["git", "-C", str(ROOT), *arguments], text=True).strip()


def commit_time() -> int:
    """Return when the last commit was made, seconds since 1970."""
    return int(git("log", "-1", "--format=%ct"))


def built(folder: Path) -> Path:
    """Build the wheel of the last commit in an empty folder; return its path.

    Modes of files are those that git knows: the umask of a checkout must not count.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    archive = folder / "source.tar"
    git("-c", "tar.umask=0022", "archive", f"--output={archive}", "HEAD")
    subprocess.run(["tar", "-xpf", str(archive), "-C", str(source)], check=True)
    command = [*PIP, "wheel", "--quiet", "--no-deps", "--no-cache-dir", str(source)]
    command += ["--build-constraint", str(ROOT / "constraints.txt"), "--wheel-dir", str(folder)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(commit_time())}
    subprocess.run(command, env=environment, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reproduced(out: Path) -> Path:
    """Build the wheel twice and put it into a folder in place of others; return its path.

    Raises
    ------
    SystemExit
        The two builds differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        first, second = (built(Path(folder, name)) for name in ("one", "another"))
        digests = sha256(first), sha256(second)
        if digests[0] != digests[1]:
            sys.exit(f"found wheels {digests[0]} and {digests[1]}, required: the same twice")
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob("*.whl"):
            old.unlink()
        return Path(shutil.copy(first, out))


def release(out: Path, key: str) -> None:
    """Add to a wheel what goes with it: constraints, SBOM, digests, with a key a signature.

    Raises
    ------
    SystemExit
        There are changes that the last commit has not.
    """
    if changed := git("status", "--porcelain", "--untracked-files=no"):
        sys.exit(f"found changes that are not committed, required: none:\n{changed}")
    shutil.rmtree(out, ignore_errors=True)
    wheel = reproduced(out)
    shutil.copy(ROOT / "constraints.txt", out)
    bom = out / f"{wheel.name.split('-py3')[0]}.cdx.json"
    bom.write_text(sbom.document(wheel, commit_time()), encoding="utf-8")
    count = len(json.loads(bom.read_text(encoding="utf-8"))["components"])
    print(f"{bom.name}: {count} components, {bom.stat().st_size:,} bytes")
    sums = out / "SHA256SUMS"
    names = sorted(path.name for path in out.iterdir())
    lines = [f"{sha256(out / name)}  {name}\n" for name in names]
    sums.write_text("".join(lines), encoding="utf-8")
    if not key:
        print("not signed: no MINISIGN_KEY was given (docs/security/releases.md)")
        return
    sign(sums, key, f"{wheel.name}, commit {git('rev-parse', 'HEAD')}")


def sign(sums: Path, key: str, comment: str) -> None:
    """Sign the digests, and with them all files that they name, and a comment."""
    subprocess.run(["minisign", "-S", "-s", key, "-t", comment, "-m", str(sums)], check=True)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="Folder; a release empties it.")
    parser.add_argument("--wheel-only", action="store_true")
    parser.add_argument(
        "--minisign-key", default="", help="Secret key; without it nothing is signed."
    )
    arguments = parser.parse_args()
    if arguments.wheel_only:
        wheel = reproduced(arguments.out)
        print(f"{wheel.name}, built twice: {sha256(wheel)}")
    else:
        release(arguments.out, arguments.minisign_key)


if __name__ == "__main__":
    main()
