"""``/fhir/AuditEvent``: the trail for systems that read FHIR (IHE ITI-81), for auditors alone."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.fhirresourcemodel import FHIRResourceModel

from thoracle.audit import search
from thoracle.audit.audit_event import audit_event
from thoracle.audit.query import event_row
from thoracle.store import trail
from thoracle.web.api import fhir_search
from thoracle.web.api.fhir import FhirRoute, base_of, resource_answer
from thoracle.web.api.fhir_search import AuditSearch, SearchError
from thoracle.web.pages import asked as asking
from thoracle.web.session.access import Person, Role, record_access, scoped
from thoracle.web.site import Site, site_of

router = APIRouter(prefix="/fhir/AuditEvent", route_class=FhirRoute, include_in_schema=False)
Auditor = Annotated[Person, Depends(scoped("audit:read", Role.AUDITOR))]

LONGEST_VALUE = 256
"""Characters of a parameter's value that the trail keeps."""


@router.get("")
def find(request: Request, person: Auditor) -> Response:
    """Return a page of the events that a search finds, the last first.

    It has no total: to count takes as long as to read them all.
    """
    wanted = fhir_search.parse_audit_search(request.query_params.multi_items())
    site = site_of(request)
    with site.database.begin() as connection:
        found = search.page(connection, wanted.search, source_of(site), wanted.count + 1)
        shown = found[: wanted.count]
        record_access(connection, request, person, trail.Event.AUDIT_READ, _asked(wanted, shown))
    more = len(found) > wanted.count > 0
    return resource_answer(_bundle(request, site, shown, more=more))


@router.get("/{id_}")
def read(request: Request, person: Auditor, id_: str) -> Response:
    """Return one event."""
    given = request.query_params.multi_items()
    if unknown := {name for name, _ in given} - {"_format"}:
        raise SearchError(f"{min(unknown)[:64]}: not supported for a read", "not-supported")
    row_id = int(id_) if id_.isascii() and id_.isdecimal() and len(id_) < 19 else -1
    site = site_of(request)
    with site.database.begin() as connection:
        found = event_row(connection, row_id)
        asking.record_one(connection, request, person, row_id, found)
    if found is None:
        raise HTTPException(404, "AuditEvent: found none with this id, required: an existing one")
    return resource_answer(_resource(site, found))


def source_of(site: Site) -> str:
    """Return what this trail is called."""
    return site.settings.receive.ae_title


def _resource(site: Site, row: dict[str, Any]) -> FHIRResourceModel:
    return audit_event(row, source_of(site), site.settings.web.site_name)


def _bundle(request: Request, site: Site, shown: list[dict[str, Any]], *, more: bool) -> Bundle:
    address = f"{base_of(request)}/AuditEvent"
    links = [{"relation": "self", "url": str(request.url)}]
    if more:
        given = [pair for pair in request.query_params.multi_items() if pair[0] != "_after"]
        query = urlencode([*given, ("_after", asking.cursor_of(shown[-1]))])
        links.append({"relation": "next", "url": f"{address}?{query}"})
    values: dict[str, Any] = {"type": "searchset", "link": links}
    if shown:
        values["entry"] = [
            {
                "fullUrl": f"{address}/{row['id']}",
                "resource": _resource(site, row),
                "search": {"mode": "match"},
            }
            for row in shown
        ]
    return Bundle.model_validate(values)


def _asked(wanted: AuditSearch, shown: list[dict[str, Any]]) -> trail.Columns:
    """Return what the trail keeps of a search: all that was asked, and whose events were shown."""
    question = [[name, value[:LONGEST_VALUE]] for name, value in wanted.given]
    columns: trail.Columns = {
        "detail": {"type": "AuditEvent", "question": question, **asking.studies_of(shown)}
    }
    patients = {
        token for name, tokens in wanted.search.terms for token in tokens if name == "patient"
    }
    if len(patients) == 1 and (patient := patients.pop()).code:
        columns["patient_id"] = patient.code[:64]
        columns["issuer_of_patient_id"] = (patient.system or "")[:64] or None
    return columns
