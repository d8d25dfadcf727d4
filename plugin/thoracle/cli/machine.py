"""The check of a configuration against this machine, and what it names."""

import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from thoracle.accounts import openid
from thoracle.classify import bundle
from thoracle.deliver import sender as archives
from thoracle.errors import (
    BundleError,
    DataFolderInUse,
    DeliveryError,
    SettingsError,
    ThoracleError,
)
from thoracle.monitoring import reach
from thoracle.monitoring.certificates import RENEW_DAYS
from thoracle.notify.witness import SENDER as WITNESS
from thoracle.outbox.senders import NamedPeer, Sender
from thoracle.pipeline import senders
from thoracle.receive.inbox import MEGABYTE
from thoracle.routing import rank as priority
from thoracle.routing import rules
from thoracle.settings import (
    AuditRepository,
    Destination,
    Settings,
    digests,
    is_loopback,
    tls,
)
from thoracle.store import engine, lease, objects, rights, running
from thoracle.store.database import (
    described,
    engine_of,
    open_database,
    require_reach,
    sqlite_file,
    sqlite_url,
)
from thoracle.store.lease import GatewayRow
from thoracle.store.running import RunningProcess


class CheckLevel(StrEnum):
    """What a line of ``thoracle check`` begins with."""

    OK = "OK"
    WARN = "WARN"
    """It works, and somebody should look at it."""
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of ``thoracle check``."""

    subject: str
    well: bool
    text: str
    """What was found and, when not well, what is required."""
    warned: bool = False
    """It is well, and somebody should look at it."""

    @property
    def level(self) -> CheckLevel:
        """Return what its line begins with."""
        if not self.well:
            return CheckLevel.FAULT
        return CheckLevel.WARN if self.warned else CheckLevel.OK


def check(settings: Settings) -> Iterator[CheckResult]:
    """Yield what this machine says to a configuration that is valid in itself."""
    yield _bundle(settings)
    yield _runtime(settings)
    yield _data_folder(settings)
    yield from _stores(settings)
    gateways = _gateways(settings)
    yield from _others(settings, gateways)
    yield _disk(settings)
    if settings.gateway.role != "read":
        ours = (settings.receive.host, settings.receive.port)
        process = running.holder(settings.data_folder, running.GATEWAY)
        yield _port("receive.port", *ours, process or _here(settings, gateways))
    yield from _tls(settings)
    yield from _pages(settings)
    if not settings.destination:
        yield CheckResult(
            "destination", False, "none configured; at least one is required to get the results"
        )
    for destination in settings.destination:
        yield _destination(destination, settings)
    yield from _rules(settings)
    yield from _ranks(settings)
    yield from _receivers(settings)
    for repository in settings.audit_repository:
        yield _repository(repository)
    for one in settings.workflow_manager:
        name = f"workflow_manager {one.name}"
        yield _echo(name, partial(reach.manager, one, settings))
    for station in settings.subscriber:
        name = f"subscriber {station.ae_title}"
        yield _echo(name, partial(reach.subscriber, station, settings))


def _rules(settings: Settings) -> Iterator[CheckResult]:
    faults, doubtful = list(rules.faults(settings)), list(rules.warnings(settings))
    yield from _conditions("rule", faults, doubtful)
    for rule in settings.rule:
        if rule.name not in {name for name, _ in (*faults, *doubtful)}:
            yield CheckResult(f"rule {rule.name}", True, "valid, and all names in it exist")


def _ranks(settings: Settings) -> Iterator[CheckResult]:
    faults, doubtful = list(priority.faults(settings)), list(priority.warnings(settings))
    yield from _conditions("rank", faults, doubtful)
    for rank in settings.rank:
        if rank.name not in {name for name, _ in (*faults, *doubtful)}:
            text = f"moves a study up by {rank.head_start_minutes} minutes"
            yield CheckResult(f"rank {rank.name}", True, text)


def _conditions(
    table: str, faults: Sequence[tuple[str, str]], doubtful: Sequence[tuple[str, str]]
) -> Iterator[CheckResult]:
    yield from (CheckResult(f"{table} {name}", False, text) for name, text in faults)
    for name, text in doubtful:
        yield CheckResult(f"{table} {name}", True, text, warned=True)


def _bundle(settings: Settings) -> CheckResult:
    try:
        identity = bundle.identify(settings.classify)
    except BundleError as error:
        return CheckResult("classify.bundle", False, str(error))
    return CheckResult(
        "classify.bundle",
        True,
        f"{identity.name} {identity.version}, finds {identity.finding.name} "
        f"({identity.finding.key}), digest {identity.digest}",
    )


def _runtime(settings: Settings) -> CheckResult:
    try:
        chosen = bundle.runtime_of(settings.classify)
    except SettingsError as error:
        return CheckResult("classify.runtime", False, str(error).removeprefix("classify.runtime: "))
    return CheckResult(
        "classify.runtime", True, f"{bundle.described_runtime(chosen)} runs the networks"
    )


def _data_folder(settings: Settings) -> CheckResult:
    shared = bool(settings.data_folder_group)
    try:
        with engine.lock(settings.data_folder):
            if settings.data_folder_group:
                rights.require_group(settings)
            if settings.database.url or not sqlite_file(settings).parent.exists():
                return CheckResult("data_folder", True, f"{settings.data_folder}: can be written")
            open_database(sqlite_url(settings.data_folder, shared=shared)).dispose()
    except DataFolderInUse:
        return CheckResult(
            "data_folder", True, f"{settings.data_folder}: Thoracle is running in it"
        )
    except (ThoracleError, OSError) as error:
        return CheckResult("data_folder", False, str(error))
    return CheckResult("data_folder", True, f"{settings.data_folder}: database opens")


def _stores(settings: Settings) -> Iterator[CheckResult]:
    """Say what is known of servers that keep rows and objects."""
    if settings.database.url:
        yield _database(settings)
    if settings.objects.bucket:
        yield _objects(settings)


def _database(settings: Settings) -> CheckResult:
    """Say what a PostgreSQL server is, without a change to it: the gateway makes the tables."""
    try:
        return CheckResult("database", True, described(settings))
    except ThoracleError as error:
        return CheckResult("database", False, str(error))


def _objects(settings: Settings) -> CheckResult:
    """Say whether the bucket takes, gives, lists and deletes an object."""
    began = time.perf_counter()
    try:
        kept = objects.of(settings)
        kept.require()
    except ThoracleError as error:
        return CheckResult("objects", False, str(error).removeprefix("objects: "))
    took = (time.perf_counter() - began) * 1000
    place = settings.objects.endpoint or f"AWS {settings.objects.region}"
    text = f"{kept} at {place}: an object was put, read, listed and deleted in {took:.0f} ms"
    return CheckResult("objects", True, text)


def _gateways(settings: Settings) -> list[GatewayRow]:
    """Return the gateways that share the database; none when it cannot be asked."""
    if not settings.gateway.one_of_several:
        return []
    try:
        database = engine_of(settings)
        require_reach(database)
    except ThoracleError:  # the line of the database says why
        return []
    found = lease.rows(database)
    database.dispose()
    return found


def _others(settings: Settings, gateways: Sequence[GatewayRow]) -> Iterator[CheckResult]:
    """Say which gateways are at work or gone, and whether their settings are those of here."""
    ours = digests.shared(settings)
    for number, one in enumerate(gateways):
        text, differs = one.said(leads=number == 0), one.settings_digest != ours
        if differs and not one.is_gone:
            text += "; its settings differ from these (docs/several-machines.md)"
        warned = one.is_gone or differs or bool(one.fault)
        yield CheckResult(f"gateway {one.name}", True, text, warned=warned)


def _here(settings: Settings, gateways: Sequence[GatewayRow]) -> RunningProcess | None:
    """Return the one of several gateways that runs on this machine with this configuration."""
    for one in gateways:
        if not one.is_gone and one.name == lease.named(settings) and one.listens:
            return RunningProcess(one.pid, one.listens)
    return None


def _disk(settings: Settings) -> CheckResult:
    folder = settings.data_folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free // MEGABYTE
    reserve = settings.receive.reserve_megabytes
    text = f"{free} MB free, receive.reserve_megabytes is {reserve}"
    if free < 2 * reserve:
        return CheckResult("disk", False, f"{text}; required: twice the reserve")
    return CheckResult("disk", True, text)


def _port(subject: str, host: str, port: int, process: RunningProcess | None) -> CheckResult:
    """Say whether an address can be listened on, or a process of this data folder does."""
    where = f"{host}:{port}"
    reach = "this machine only" if is_loopback(host) else "other machines can connect"
    if process is not None and process.listens == where:
        text = f"{where} is in use by the running service (process {process.pid}), {reach}"
        return CheckResult(subject, True, text)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            return CheckResult(subject, False, f"{where}: {reason}; required: a free port")
    if process is not None:
        text = f"{where} is free; the service listens on {process.listens} until it is restarted"
        return CheckResult(subject, True, text, warned=True)
    return CheckResult(subject, True, f"{where} is free, {reach}")


def _pages(settings: Settings) -> Iterator[CheckResult]:
    web = settings.web
    process = running.holder(settings.pages_folder, running.lock_of_pages(settings))
    yield _port("web.port", web.host, web.port, process)
    if web.certificate_file is not None and web.key_file is not None:
        load = partial(tls.pages_context, web.certificate_file, web.key_file)
        yield from _tls_files("web", load, {"certificate_file": web.certificate_file})
    if web.oidc is not None:
        try:
            openid.require_libraries()
            openid.Provider(web.oidc).begin("https://thoracle.example/login/callback")
        except ThoracleError as error:
            yield CheckResult("web.oidc", False, str(error))
            return
        yield CheckResult(
            "web.oidc", True, f"{web.oidc.issuer} answers, and its configuration fits"
        )


def _tls(settings: Settings) -> Iterator[CheckResult]:
    if (ours := settings.receive.tls) is not None:
        files = {"certificate_file": ours.certificate_file, "client_ca_file": ours.client_ca_file}
        yield from _tls_files("receive.tls", lambda: tls.server_context(ours), files)
    called = [(f"destination {one.name}", one.tls) for one in settings.destination]
    called += [(f"hl7 {one.name}", one.tls) for one in settings.hl7]
    called += [(f"audit_repository {one.name}", one.tls) for one in settings.audit_repository]
    called += [(f"workflow_manager {one.name}", one.tls) for one in settings.workflow_manager]
    called += [(f"subscriber {one.ae_title}", one.tls) for one in settings.subscriber]
    for who, theirs in called:
        if theirs is not None:
            named = {"ca_file": theirs.ca_file, "certificate_file": theirs.certificate_file}
            files = {name: path for name, path in named.items() if path is not None}
            yield from _tls_files(f"{who} tls", partial(tls.client_context, theirs), files)


def _tls_files(
    subject: str, load: Callable[[], object], files: dict[str, Path]
) -> Iterator[CheckResult]:
    try:
        load()
        found = {name: tls.certificates(name, path) for name, path in files.items()}
    except SettingsError as error:
        yield CheckResult(subject, False, str(error))
        return
    yield CheckResult(subject, True, "its files are valid, and the key matches the certificate")
    for name, certificates in found.items():
        for one in certificates:
            yield _validity(f"{subject} {name}", one, datetime.now(UTC))


def _validity(subject: str, one: tls.Certificate, now: datetime) -> CheckResult:
    who = f"{one.subject}, SHA-256 {one.fingerprint},"
    if now < one.not_before:
        text = f"{who} found to be valid from {one.not_before:%Y-%m-%d} on, required: now"
        return CheckResult(subject, False, text)
    if now > one.not_after:
        text = f"{who} expired on {one.not_after:%Y-%m-%d}, required: a certificate valid now"
        return CheckResult(subject, False, text)
    days = (one.not_after - now).days
    text = f"{who} expires on {one.not_after:%Y-%m-%d}, in {days} days"
    if days < RENEW_DAYS:
        return CheckResult(subject, True, f"{text}; renew it", warned=True)
    return CheckResult(subject, True, text)


def _destination(destination: Destination, settings: Settings) -> CheckResult:
    subject = f"destination {destination.name}"
    try:
        answer = archives.reach(destination, settings)
    except DeliveryError as error:
        what = "C-ECHO: " if destination.url is None else ""
        return CheckResult(subject, False, f"{what}{error}")
    callers = settings.receive.calling_ae_titles
    reports = destination.url is None and destination.proof == "commitment"
    if reports and callers and destination.ae_title not in callers:
        text = (
            f"found {destination.ae_title} not in receive.calling_ae_titles, required: that it "
            "may call to report on a Storage Commitment; or set proof to query"
        )
        return CheckResult(subject, False, text)
    return CheckResult(subject, True, answer)


def _echo(subject: str, ask: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(subject, True, ask())
    except DeliveryError as error:
        return CheckResult(subject, False, f"C-ECHO: {error}")


def _receivers(settings: Settings) -> Iterator[CheckResult]:
    for sender, peer in senders.peers(settings):
        if sender.compose is not None or sender is WITNESS:
            yield _receiver(sender, peer, settings)


def _receiver(sender: Sender[Any], peer: NamedPeer, settings: Settings) -> CheckResult:
    subject = f"{sender.table} {peer.name}"
    try:
        return CheckResult(subject, True, sender.reach(peer, settings, None))
    except DeliveryError as error:
        return CheckResult(subject, False, str(error))


def _repository(one: AuditRepository) -> CheckResult:
    try:
        return CheckResult(f"audit_repository {one.name}", True, reach.repository(one))
    except DeliveryError as error:
        return CheckResult(f"audit_repository {one.name}", False, str(error))
