"""Orthanc as an archive: a process of its own on the loopback address, with DICOM and DICOMweb.

Unlike the double in ``pacs.py`` it is somebody else's idea of the standard, and it keeps what it
has on disk: it can be killed and started again on the same storage.
"""

import base64
import json
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Self

from ledger import eventually
from pacs import free_port
from peers import require, require_file

DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc:
    """An Orthanc that runs inside the block, with nothing in it at first.

    Parameters
    ----------
    folder
        Its storage, configuration and log go below.
    modalities
        AE titles and ports of the loopback address that it reports to: it answers Storage
        Commitment and C-FIND to these alone. They can be added until it is started.
    users
        Names and passwords; without any its REST API and DICOMweb are open.
    script
        Lua that it runs.
    """

    def __init__(
        self,
        folder: Path,
        modalities: dict[str, int] | None = None,
        users: dict[str, str] | None = None,
        ae_title: str = "ORTHANC",
        script: str = "",
    ) -> None:
        self.folder = folder
        self.modalities = dict(modalities or {})
        self.users = dict(users or {})
        self.ae_title = ae_title
        self.script = script
        self.port = free_port()
        self.http_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def dicomweb(self) -> str:
        """The DICOMweb root."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    @property
    def log(self) -> Path:
        """What it has written of itself."""
        return self.folder / "orthanc.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and return when its REST API answers."""
        program = require("Orthanc", "orthanc")
        settings = {
            "StorageDirectory": str(self.folder / "orthanc"),
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "DicomAlwaysAllowStore": True,
            "DicomModalities": {
                name.lower(): [name, "127.0.0.1", port] for name, port in self.modalities.items()
            },
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": bool(self.users),
            "RegisteredUsers": self.users,
            "Plugins": [str(require_file(DICOMWEB, "orthanc-dicomweb"))],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        if self.script:
            (self.folder / "script.lua").write_text(self.script)
            settings["LuaScripts"] = [str(self.folder / "script.lua")]
        config = self.folder / "orthanc.json"
        config.write_text(json.dumps(settings))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [program, str(config)], stdout=log, stderr=log, cwd=self.folder
            )
        eventually(self.is_up, 30)

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        """End the process as a power failure would, short of the disk."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def get(self, path: str) -> bytes:
        """Return what its REST API answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}")
        for user in list(self.users.items())[:1]:
            credentials = base64.b64encode(":".join(user).encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
        return content

    def instances(self) -> list[str]:
        """Return its identifiers of all instances."""
        found: list[str] = json.loads(self.get("/instances"))
        return found

    def sop_instance_uids(self) -> list[str]:
        """Return the SOP Instance UIDs of all instances, sorted."""
        found = json.loads(self.get("/instances?expand"))
        return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in found)

    def is_up(self) -> bool:
        """Return whether its REST API answers."""
        try:
            return bool(self.get("/system"))
        except OSError:
            return False
