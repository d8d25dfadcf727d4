"""``/fhir``: results for other systems, FHIR R4, to be read only (docs/fhir.md)."""

import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.fhirresourcemodel import FHIRResourceModel
from fhir.resources.R4B.operationoutcome import OperationOutcome
from pydantic import ValidationError

from thoracle import __version__
from thoracle.fhir import elements, resources
from thoracle.fhir import rows as fhir_rows
from thoracle.fhir.rows import Search, Study
from thoracle.store import trail
from thoracle.web.api import fhir_search
from thoracle.web.api.fhir_search import Parameter, ResultSearch, SearchError
from thoracle.web.session.access import Person, Role, anyone, record_access, scoped
from thoracle.web.site import site_of

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/fhir+json"
FHIR_VERSION = "4.0.1"
_ISSUES = {401: "login", 403: "forbidden", 404: "not-found", 405: "not-supported"}
_METHODS = ["POST", "PUT", "PATCH", "DELETE", "GET"]

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class FhirRoute(APIRoute):
    """A route whose refusals are OperationOutcomes."""

    def get_route_handler(self) -> Handler:
        """Return the handler of FastAPI, with its exceptions told as FHIR tells them."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                _acceptable(request)
                return await handler(request)
            except SearchError as error:
                return _refusal(400, error.code, str(error))
            except HTTPException as error:
                code = _ISSUES.get(error.status_code, "processing")
                return _refusal(error.status_code, code, str(error.detail), error.headers)
            except ValidationError as error:
                # Without its inputs, which are a patient's.
                places = [(one["loc"], one["type"]) for one in error.errors(include_input=False)]
                logger.error("a resource is not valid: %s", places)
                return _refusal(500, "exception", "this resource cannot be made; see the log")

        return answer


router = APIRouter(prefix="/fhir", route_class=FhirRoute, include_in_schema=False)
Reader = Annotated[Person, Depends(scoped("fhir:read", Role.READER))]


Anybody = Annotated[Person, Depends(anyone)]
"""Who reads results or who reads the audit: no patient is shown."""


@router.get("/metadata")
def metadata(request: Request, person: Anybody) -> Response:
    """Return what this server can do."""
    return resource_answer(CapabilityStatement.model_validate(_capabilities(base_of(request))))


@router.get("/{type_}")
def search(request: Request, person: Reader, type_: str) -> Response:
    """Return a page of the resources that a search finds."""
    _known(type_)
    wanted = fhir_search.parse_result_search(type_, request.query_params.multi_items())
    with site_of(request).database.begin() as connection:
        total = fhir_rows.count(connection, wanted.search)
        found = fhir_rows.page(connection, wanted.search, wanted.count + 1) if wanted.count else []
        shown = found[: wanted.count]
        bundle = _bundle(request, wanted, total, shown, more=len(found) > wanted.count)
        record_access(connection, request, person, trail.Event.LIST_VIEWED, _asked(wanted, shown))
    return resource_answer(bundle)


@router.get("/{type_}/{id_}")
def read(request: Request, person: Reader, type_: str, id_: str) -> Response:
    """Return one resource."""
    _known(type_)
    given = [(name, value) for name, value in request.query_params.multi_items()]
    if unknown := {name for name, _ in given} - {"_format"}:
        raise SearchError(f"{sorted(unknown)[0][:64]}: not supported for a read", "not-supported")
    fhir_search.parse_result_search(type_, given)
    with site_of(request).database.begin() as connection:
        found = fhir_rows.page(connection, Search(type_, ids=((id_,),)), 1)
        resource = resources.BUILDERS[type_](found[0]) if found else None
        record_access(connection, request, person, trail.Event.STUDY_VIEWED, _seen(type_, found))
    if resource is None:
        raise HTTPException(404, f"{type_}: found none with this id, required: an existing one")
    return resource_answer(resource)


@router.api_route("/{path:path}", methods=_METHODS)
def nothing_else(request: Request, person: Anybody, path: str) -> Response:
    """Refuse what is neither a read nor a search."""
    if request.method == "GET":
        raise HTTPException(
            404, "found an unsupported interaction, required: one of /fhir/metadata"
        )
    raise HTTPException(405, f"found {request.method}, required: GET: this server is read only")


# ---- Answers -----------------------------------------------------------------------------------


def resource_answer(resource: FHIRResourceModel, status: int = 200) -> Response:
    """Return an answer that is a resource."""
    headers = {"Cache-Control": "no-store"}
    return Response(resource.model_dump_json(), status, headers, MEDIA_TYPE)


def _refusal(status: int, code: str, words: str, headers: Any = None) -> Response:
    issue = {"severity": "error", "code": code, "diagnostics": elements.text(words)}
    answer = resource_answer(OperationOutcome.model_validate({"issue": [issue]}), status)
    answer.headers.update(headers or {})
    return answer


def _acceptable(request: Request) -> None:
    accepted = request.headers.get("accept", "*/*").lower()
    if not any(one in accepted for one in ("json", "*/*", "application/*")):
        raise HTTPException(406, f"found another type in Accept, required: {MEDIA_TYPE}")


def _known(type_: str) -> None:
    if type_ not in resources.BUILDERS:
        raise HTTPException(
            404, f"{type_[:64]}: not supported, required: one of {', '.join(resources.BUILDERS)}"
        )


def base_of(request: Request) -> str:
    """Return the address of this interface."""
    return f"{str(request.base_url).rstrip('/')}/fhir"


def _bundle(
    request: Request, wanted: ResultSearch, total: int, shown: list[Study], *, more: bool
) -> Bundle:
    base, type_ = base_of(request), wanted.search.type
    given = [pair for pair in request.query_params.multi_items() if pair[0] != "_after"]
    links = [{"relation": "self", "url": str(request.url)}]
    if more:
        last = shown[-1].row
        cursor = f"{last.first_received_at}~{last.study_instance_uid}"
        query = urlencode([*given, ("_after", cursor)])
        links.append({"relation": "next", "url": f"{base}/{type_}?{query}"})
    values: dict[str, Any] = {"type": "searchset", "total": total, "link": links}
    build = resources.BUILDERS[type_]
    if shown:
        values["entry"] = [
            {
                "fullUrl": f"{base}/{type_}/{study.row.study_instance_uid}",
                "resource": build(study),
                "search": {"mode": "match"},
            }
            for study in shown
        ]
    return Bundle.model_validate(values)


def _capabilities(base: str) -> dict[str, Any]:
    return {
        "status": "active",
        "date": datetime.now(UTC).date().isoformat(),
        "kind": "instance",
        "software": {"name": "Thoracle", "version": __version__},
        "implementation": {
            "description": "Results of an AI for research, not for diagnosis; read only.",
            "url": base,
        },
        "fhirVersion": FHIR_VERSION,
        "format": [MEDIA_TYPE, "json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "description": "API token as bearer with the scope fhir:read, for AuditEvent "
                    "audit:read; or a session."
                },
                "resource": [
                    *(
                        _capability(type_, fhir_search.parameters(type_))
                        for type_ in resources.BUILDERS
                    ),
                    _capability("AuditEvent", fhir_search.AUDIT_PARAMETERS),
                ],
            }
        ],
    }


def _capability(type_: str, parameters: Sequence[Parameter]) -> dict[str, Any]:
    return {
        "type": type_,
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "no-version",
        "searchParam": [
            {"name": one.name, "type": one.type, "documentation": one.documentation}
            for one in parameters
        ],
    }


# ---- Audit -------------------------------------------------------------------------------------


def _asked(wanted: ResultSearch, shown: list[Study]) -> trail.Columns:
    """Return what the trail keeps of a search: which parameters, and whose studies were shown."""
    columns: trail.Columns = {
        "detail": {
            "type": wanted.search.type,
            "parameters": sorted(set(wanted.names)),
            "studies": [one.row.study_instance_uid for one in shown],
        }
    }
    patients = {(one.row.patient_id, one.row.issuer_of_patient_id) for one in shown}
    if len(patients) == 1:
        columns["patient_id"], columns["issuer_of_patient_id"] = patients.pop()
    return columns


def _seen(type_: str, found: list[Study]) -> trail.Columns:
    columns: trail.Columns = {"detail": {"type": type_}}
    if not found:
        columns["event_outcome"] = trail.MINOR_FAILURE
        return columns
    row = found[0].row
    return {
        **columns,
        "study_instance_uid": row.study_instance_uid,
        "patient_id": row.patient_id,
        "issuer_of_patient_id": row.issuer_of_patient_id,
        "accession_number": row.accession_number,
    }
