"""Self-contained HTML pages: no scripts, no other files, pictures embedded."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

STYLE = """
:root { color-scheme: light; }
body { background: #fff; color: #1f2937; font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  margin: 0 auto; max-width: 1080px; padding: 32px 24px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; }
h2 { border-bottom: 1px solid #e5e7eb; font-size: 20px; margin: 44px 0 12px; padding-bottom: 6px; }
h3 { font-size: 16px; margin: 28px 0 8px; }
p { margin: 8px 0; max-width: 80ch; }
.lead { font-size: 17px; }
.note { color: #4b5563; font-size: 13.5px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; margin: 12px 0; }
th, td { border-bottom: 1px solid #e5e7eb; padding: 4px 14px 4px 0; text-align: right; vertical-align: top; }
th { color: #4b5563; font-weight: 600; }
th:first-child, td:first-child, .facts td { text-align: left; }
.facts td { overflow-wrap: anywhere; }
.facts td:first-child { color: #4b5563; white-space: nowrap; }
img { height: auto; max-width: 100%; }
.beside { align-items: flex-start; display: flex; flex-wrap: wrap; gap: 12px; }
.beside img { flex: 1 1 0; min-width: 300px; }
.tiles { display: grid; gap: 20px 16px; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); }
figure { margin: 0; }
figure img { border-radius: 4px; display: block; width: 100%; }
figcaption { font-size: 13px; line-height: 1.4; margin-top: 4px; }
figcaption b { font-size: 14px; }
@media print { h2, figure, img, tr { break-inside: avoid; } }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """Join HTML parts into a page."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            f'<head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head>",
            "<body>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def heading(text: str, level: int = 2) -> str:
    """Write a heading of ``level`` 1 to 3."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """Write a paragraph; ``kind`` is ``lead``, ``note`` or nothing."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """Write a table, with the first column aligned left and the others right."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def facts(pairs: dict[str, str]) -> str:
    """Write a table of names and values."""
    rows = "\n".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in pairs.items())
    return f'<table class="facts"><tbody>\n{rows}\n</tbody></table>'


def image(content: bytes, alt: str, kind: str = "png") -> str:
    """Embed a picture, ``png`` or ``jpeg``."""
    data = base64.b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}">'


def beside(*images: str) -> str:
    """Put pictures side by side where there is room."""
    return f'<div class="beside">{"".join(images)}</div>'


def tile(content: bytes, alt: str, title: str, lines: Iterable[str]) -> str:
    """Write a JPEG for a grid, with a bold title and lines below it."""
    below = "".join(f"<br>{escape(line)}" for line in lines)
    return f"<figure>{image(content, alt, 'jpeg')}<figcaption><b>{escape(title)}</b>{below}</figcaption></figure>"


def grid(tiles: Iterable[str]) -> str:
    """Lay tiles out in rows."""
    return f'<div class="tiles">\n{"".join(tiles)}\n</div>'
