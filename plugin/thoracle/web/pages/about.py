"""What is said about the program itself: its health, and the model card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Request
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import FileResponse, JSONResponse, Response

from thoracle import __version__
from thoracle.accounts import rows as people
from thoracle.classify import bundle
from thoracle.web.session.access import Person, anyone
from thoracle.web.site import render, site_of

router = APIRouter()
programs = APIRouter(tags=["service"])

# ---- modelcard -----------------------------------------------------------------------------------
# The model card: what the bundle's docs/ say, made from Markdown without any HTML of its own.

CARD: Final = "README.md"
_PICTURES: Final = {".png": "image/png"}


# ---- about ---------------------------------------------------------------------------------------
# What is said about the program itself: its health.


class HealthAnswer(BaseModel):
    """Whether the service can answer."""

    status: str
    version: str


@programs.get(
    "/healthz",
    response_model=HealthAnswer,
    responses={503: {"model": HealthAnswer, "description": "The database does not answer."}},
)
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
    """Show the model card."""
    return _page(request, CARD)


@router.get("/model-card/{name}")
def part(request: Request, name: str, _person: Annotated[Person, Depends(anyone)]) -> Response:
    """Show what the model card links to or pictures: a file right beside it, nothing else."""
    path = _folder(request) / name
    if path.suffix == ".md":
        return _page(request, name)
    if path.suffix not in _PICTURES or path not in _files(request):
        raise HTTPException(404, "there is no such page")
    return FileResponse(path, media_type=_PICTURES[path.suffix])


def _folder(request: Request) -> Path:
    return bundle.bundle_folder(site_of(request).settings.classify) / "docs"


def _files(request: Request) -> set[Path]:
    folder = _folder(request)
    return {path for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()


def _page(request: Request, name: str) -> Response:
    path = _folder(request) / name
    if path in _files(request):
        text = path.read_text(encoding="utf-8", errors="replace")
    elif name == CARD:
        text = "The bundle in use has no docs/README.md."
    else:
        raise HTTPException(404, "there is no such page")
    return render(request, "model_card.html", card=html(text), is_card=name == CARD)


def html(text: str) -> Markup:
    """Return a Markdown text as HTML: tags in it are shown as text, and no style is set."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    tokens = parser.parse(text)
    _adapt(tokens)
    # What is not escaped here was made by the renderer itself.
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704 - see above


def _table_open(_renderer: object, *_rest: object) -> str:
    return '<div class="scroll" role="region" tabindex="0" aria-label="Table">\n<table>\n'


def _table_close(_renderer: object, *_rest: object) -> str:
    return "</table>\n</div>\n"


def _adapt(tokens: Sequence[Token]) -> None:
    """Have the pages and pictures beside the card found; drop styles."""
    for token in tokens:
        token.attrs.pop("style", None)  # alignment: the policy of the pages allows no styles
        for name in ("href", "src"):
            target = str(token.attrs.get(name, ""))
            if target and not target.startswith(("https://", "http://", "#", "/")):
                token.attrs[name] = f"/model-card/{target}"
        if token.type == "image":
            token.attrs["loading"] = "lazy"
        _adapt(token.children or ())
