"""A report as one HTML file: pictures inlined, nothing loaded from elsewhere, no script."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 66rem; background: #fff;
  color: #1d2430; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.9rem; }
h2 { margin: 2.75rem 0 .5rem; padding-top: .9rem; border-top: 1px solid #dde2ea;
  font-size: 1.25rem; }
p { margin: .4rem 0 .9rem; max-width: 46rem; color: #465064; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 1rem 0; }
dt { color: #5b6577; }
dd { margin: 0; }
table { border-collapse: collapse; margin: .75rem 0 1.25rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem 1.4rem .22rem 0; text-align: left; border-bottom: 1px solid #eceff4; }
th { color: #5b6577; font-weight: 600; font-size: .88rem; }
td.number, th.number { text-align: right; }
.met { color: #14663a; font-weight: 600; }
.missed { color: #a32020; font-weight: 600; }
.rows { display: grid; grid-template-columns: max-content max-content; gap: .3rem .9rem;
  align-items: center; margin: .75rem 0 1.4rem; }
.rows span { font-size: .88rem; color: #465064; text-align: right; }
.rows .head { color: #5b6577; display: flex; font-size: .8rem; }
.rows .head b { font-weight: 400; text-align: center; }
.rows .space { height: .5rem; grid-column: 1 / 3; }
img { display: block; max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
.bare { display: grid; gap: .3rem; margin: .75rem 0 1.4rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1.25rem; }
"""


@dataclass(frozen=True)
class Picture:
    """An image file and what it shows, for those who do not see it; width in CSS pixels."""

    content: bytes
    alt: str
    width: int
    media_type: str = "image/svg+xml"

    def html(self) -> str:
        """An img element with its content inlined."""
        data = base64.b64encode(self.content).decode()
        kind = ' class="pixels"' if self.media_type == "image/png" else ""
        return (
            f'<img{kind} width="{self.width}" alt="{escape(self.alt)}" '
            f'src="data:{self.media_type};base64,{data}">'
        )


@dataclass(frozen=True)
class Table:
    """Cells as text; the columns whose index is in `numbers` are aligned to the right."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: frozenset[int] = frozenset()

    def html(self) -> str:
        """A table element; a cell that says whether a goal is met is coloured."""
        head = "".join(self._cell("th", i, text) for i, text in enumerate(self.head))
        body = "".join(
            f"<tr>{''.join(self._cell('td', i, text) for i, text in enumerate(row))}</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cell(self, element: str, column: int, text: str) -> str:
        kinds = {"met": "met", "missed": "missed"}
        kind = "number" if column in self.numbers else kinds.get(text, "")
        attribute = f' class="{kind}"' if kind else ""
        return f"<{element}{attribute}>{escape(text)}</{element}>"


@dataclass(frozen=True)
class Rows:
    """Strips of observations under each other, each with a label or all without, of one width.

    `head` names the columns. A row None is a gap.
    """

    rows: Sequence[tuple[str, Picture] | None]
    head: tuple[str, ...] = ()

    def html(self) -> str:
        """A grid of labels and images."""
        parts = []
        shown = [row for row in self.rows if row is not None]
        if not any(label for label, _ in shown):
            return f'<div class="bare">{"".join(picture.html() for _, picture in shown)}</div>'
        width = shown[0][1].width
        if self.head:
            share = f"width:{width / len(self.head):.2f}px"
            names = "".join(f'<b style="{share}">{escape(name)}</b>' for name in self.head)
            parts.append(f'<span></span><div class="head">{names}</div>')
        for row in self.rows:
            if row is None:
                parts.append('<div class="space"></div>')
            else:
                parts.append(f"<span>{escape(row[0])}</span>{row[1].html()}")
        return f'<div class="rows">{"".join(parts)}</div>'


@dataclass(frozen=True)
class Charts:
    """Pictures beside each other where there is room."""

    pictures: Sequence[Picture]

    def html(self) -> str:
        """A row that wraps."""
        return f'<div class="charts">{"".join(picture.html() for picture in self.pictures)}</div>'


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph on what is to be seen, and what is to be seen."""

    title: str
    text: str
    parts: Sequence[Table | Rows | Charts]

    def html(self) -> str:
        """A section element."""
        text = f"<p>{escape(self.text)}</p>" if self.text else ""
        parts = "".join(part.html() for part in self.parts)
        return f"<section><h2>{escape(self.title)}</h2>{text}{parts}</section>"


def page(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> bytes:
    """The whole file, UTF-8; `facts` are names and values below the title."""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    body = "\n".join(section.html() for section in sections)
    document = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{_STYLE}</style></head>
<body><header><h1>{escape(title)}</h1><dl>{listed}</dl></header>
<main>
{body}
</main></body></html>
"""
    return document.encode()
