"""The pages of the problem types: GET /problems and /problems/{slug}, and ``docs/errors.md``.

All three are written from the classes in `service.http.problem_types`. The type of a problem document leads to its page
(RFC 9457, sec. 3.1.1). ``python -m service.http.problems > docs/errors.md`` writes the page of the documentation.
"""

from __future__ import annotations

from html import escape

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from service.errors import ServiceError
from service.http.page import HEADERS
from service.http.problem_types import PROBLEM_TYPES
from service.wire.problem_documents import PROBLEM_TYPE

router = APIRouter(include_in_schema=False)
_METHODS = ["GET", "HEAD"]
_INTRODUCTION = (
    f"Every call that fails is answered with a problem document (RFC 9457) of the type `{PROBLEM_TYPE}`. Its `detail` "
    "says what was expected, what came, and what to do. Its `type` leads to a page of the server, `/problems/` and the "
    "name of the problem; compare only this last part, as a proxy may put a prefix before it. Other fields carry the "
    "facts of the `detail`. The errors of streams carry the same documents."
)


@router.api_route("/problems", methods=_METHODS)
async def list_problems() -> HTMLResponse:
    """Show the list of all problem types."""
    items = "".join(
        f'<li><a href="problems/{kind.slug}">{kind.slug}</a> ({kind.status}): {escape(kind.title)}</li>\n'
        for kind in PROBLEM_TYPES
    )
    return _page("Problems", f"<p>{_html(_INTRODUCTION)}</p>\n<ul>\n{items}</ul>")


@router.api_route("/problems/{slug}", methods=_METHODS)
async def show_problem(slug: str) -> HTMLResponse:
    """Show the page of one problem type."""
    for kind in PROBLEM_TYPES:
        if kind.slug == slug:
            return _page(kind.title, _description(kind))
    raise HTTPException(404)


def _description(kind: type[ServiceError]) -> str:
    rows = [
        ("Name", f"<code>{kind.slug}</code>"),
        ("Status", str(kind.status)),
        ("Meaning", _html(kind.meaning)),
        ("What to do", _html(kind.advice)),
        *((f"Field <code>{name}</code>", _html(meaning)) for name, meaning in kind.fields.items()),
    ]
    items = "".join(f"<dt>{term}</dt>\n<dd>{text}</dd>\n" for term, text in rows)
    return f'<dl>\n{items}</dl>\n<p><a href="../problems">All problems</a></p>'


def _page(title: str, content: str) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)} - posewright</title>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{content}\n</main>\n</body>\n</html>\n",
        headers=HEADERS,
    )


def _html(markdown: str) -> str:
    """Write plain text with `code` in backticks as HTML."""
    parts = escape(markdown).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def markdown() -> str:
    """Write the page of the documentation."""
    sections = [
        "<!-- Written by `python -m service.http.problems > docs/errors.md`; edit the classes in service instead. -->",
        "# Errors",
        _INTRODUCTION,
        "\n".join(f"- [{kind.slug}](#{kind.slug}) ({kind.status}): {kind.title}" for kind in PROBLEM_TYPES),
    ]
    for kind in PROBLEM_TYPES:
        sections += [
            f"## {kind.slug}",
            f"**{kind.status} {kind.title}.** {kind.meaning}",
            f"*What to do:* {kind.advice}",
        ]
        if kind.fields:
            sections.append("\n".join(f"- `{name}`: {meaning}" for name, meaning in kind.fields.items()))
    return "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
