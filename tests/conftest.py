"""Fixtures that several files share, because a gateway takes seconds to start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from pynetdicom import _config

import processes
import schema_copy
from browser import chromium
from gateway import Gateway
from postgres import Server, as_documented, server
from workflow import Reader
from workitem_listener import SUBSCRIBERS, Listener

LONG = """
retention proof viewers postgresql broken_headers ups_performer report_validity ups_gateway
browser reading_room validity fhir why delivery corrections pipeline routes crash upgrade
web_study docker_container wire web_study_browser audit_forwarding replay peers poison
retention_postgres demo dashboard
""".split()  # noqa: SIM905 - as a list it would take a line for each name
"""Files that take minutes come first: no process is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files by what they take; the tests of a file keep their order."""
    place = {f"test_{name}": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


AS_COMMAND = (
    "test_service",
    "test_starts",
    "test_crash",
    "test_upgrade",
    "test_durability",
    "test_wire",
)
"""Files whose gateways are started as a user starts them, not forked."""


MIGRATED = (*AS_COMMAND, "test_database", "test_migrations")
"""Files whose databases are migrated to the newest schema each, not copied."""


@pytest.fixture(scope="module", autouse=True)
def _forked_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    processes.forked = request.path.stem not in AS_COMMAND
    yield
    processes.forked = False


@pytest.fixture(scope="module", autouse=True)
def _copied_schema(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.stem not in MIGRATED:
        schema_copy.install()
    yield
    schema_copy.remove()


@pytest.fixture(scope="module")
def documented_server() -> Iterator[Server]:
    """A PostgreSQL server with the role of docs/database.md."""
    with server() as one:
        role, _ = as_documented()
        one.execute(role)
        yield one


@pytest.fixture
def url(documented_server: Server) -> str:
    """The URL of a database as docs/database.md makes it: its owner is no superuser."""
    return documented_server.documented()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway without destinations that knows its callers, for tests of the listener.

    It takes objects of up to 2 MB on up to 10 associations.
    """
    receive = {
        "calling_ae_titles": ["ECHO", "SENDER", "STORESCU", "ECHOSCU"],
        "store_ae_titles": ["SENDER", "STORESCU"],
        "maximum_object_megabytes": 2,
        "maximum_associations": 10,
        "acse_timeout_seconds": 60,  # so that a place held for want of a request shows
    }
    with Gateway(tmp_path_factory.mktemp("gateway"), receive=receive) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window; each visit has a context of its own.

    Playwright keeps an event loop running as long as it lives: other files start one of their own.
    """
    with chromium() as running:
        yield running


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """A listener with workitems that two stations may subscribe to."""
    listening = Listener(tmp_path, subscriber=SUBSCRIBERS)
    yield listening
    listening.stop()


@pytest.fixture
def reader(listener: Listener) -> Iterator[Reader]:
    """A reader of the listener's workitems, on an association."""
    with Reader(listener.port) as one:
        yield one


def _settings_of_pynetdicom() -> Iterator[None]:
    before = {name: value for name, value in vars(_config).items() if name.isupper()}
    yield
    for name, value in before.items():
        setattr(_config, name, value)


# A listener of ours that runs in a test's own process sets them for good, and an archive of the
# next file would find every object empty. Twice: a fixture of a module may set them, too.
_after_each_file = pytest.fixture(scope="module", autouse=True)(_settings_of_pynetdicom)
_after_each_test = pytest.fixture(autouse=True)(_settings_of_pynetdicom)
