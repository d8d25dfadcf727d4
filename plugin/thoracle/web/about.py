"""Pages about the program: its health, and the model card."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from thoracle import __version__
from thoracle.classify import bundle
from thoracle.store import people
from thoracle.web.access import Person, anyone
from thoracle.web.site import render, site_of

router = APIRouter()


@router.get("/healthz")
def health(request: Request) -> Response:
    """Say whether the database answers; for load balancers, so without a log-in."""
    try:
        with site_of(request).database.connect() as connection:
            people.anybody(connection)
    except SQLAlchemyError:
        return JSONResponse({"status": "database does not answer", "version": __version__}, 503)
    return JSONResponse({"status": "ok", "version": __version__})


@router.get("/model-card")
def model_card(request: Request, _person: Annotated[Person, Depends(anyone)]) -> Response:
    """Show what the bundle says of itself, as it is written."""
    path = bundle.bundle_folder(site_of(request).settings.classify) / "docs" / "README.md"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = "The bundle has no docs/README.md."
    return render(request, "model_card.html", text=text)
