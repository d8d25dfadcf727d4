"""What is said about the program itself: its health."""

from fastapi import APIRouter, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from thoracle import __version__
from thoracle.accounts import rows as people
from thoracle.web.site import site_of

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
