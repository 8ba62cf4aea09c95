"""Escaped SVG and tables from the standard library alone.

Everything that comes in is text and is escaped here, in one place (`escape`); nothing else writes markup. A picture has to be
readable wherever it lands: in a notebook of either theme, in an exported page, as a file of its own. So what belongs to the
page (text, lines) takes the page's own colour, ``currentColor``; the few colours that carry a meaning are variables that the
style sheet sets by theme, each with a value in between for places that strip style sheets. The style sheet's class is its own
hash: two pictures on one page either share its rules or have nothing to do with each other. No ids, no scripts, no fonts
from elsewhere.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .lettering import cells, clean, cut, pad

__all__ = ["Markup", "Table", "element", "escape", "html", "picture", "text_table"]

FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'Noto Sans',sans-serif"
MONOSPACED = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
LARGEST = 150_000
"""Characters of a picture that goes into a page as an image besides."""
STORIES = 6
"""Colours that tell stories apart, without red beside green."""
RIMMED = "h"
"""The class of letters that lines may cross."""
SHRUNK = 0.78
"""The share of its width to which a picture may shrink."""
_LIGHT = {
    "paper": "#ffffff", "ink": "#1f2328", "topic": "#0b6bcb", "warn": "#c62f1d", "on": "#ffffff",
    "s0": "#0b6bcb", "s1": "#b8500b", "s2": "#0a7a5c", "s3": "#9a3f8f", "s4": "#806300", "s5": "#4d5a6b",
}  # fmt: skip
_DARK = {
    "paper": "#15181c", "ink": "#e6e8eb", "topic": "#6cb6ff", "warn": "#ff8474", "on": "#10151a",
    "s0": "#6cb6ff", "s1": "#ffa35c", "s2": "#45d0a4", "s3": "#ec9fe0", "s4": "#e5c453", "s5": "#b4c0ce",
}  # fmt: skip
_ESCAPES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", ord("'"): "&#39;"}


class Markup(str):
    """Text that is markup already: `element` and `html` take it as it is."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """The text as markup that shows it, on one line, in an element or an attribute."""
    return text if isinstance(text, Markup) else Markup(clean(text).translate(_ESCAPES))


def element(tag: str, attributes: Mapping[str, str | float | None] | None = None, *children: str) -> Markup:
    """An element; attributes of ``None`` are left out, and ``_`` in their names stands for ``-``."""
    listed = "".join(f' {name.replace("_", "-")}="{_value(value)}"' for name, value in (attributes or {}).items() if value is not None)
    if not children:
        return Markup(f"<{tag}{listed}/>")
    return Markup(f"<{tag}{listed}>{''.join(map(escape, children))}</{tag}>")


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else number(value) if abs(value) >= 10 else f"{round(value, 2):g}"


def number(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def paint(*, fill: str | None = None, stroke: str | None = None) -> dict[str, str | float | None]:
    """The attributes that colour something: by a name of the palette, ``"ink"`` for the page's own colour, or ``"none"``.

    Twice each: as an attribute for programs that know no variables, as a style with the variable for all others.
    """
    plain: dict[str, str | float | None] = {}
    styles: list[str] = []
    for what, colour in (("fill", fill), ("stroke", stroke)):
        if colour is None:
            continue
        if colour in ("ink", "none"):
            plain[what] = "currentColor" if colour == "ink" else colour
        else:
            plain[what] = _LIGHT[colour]
            styles.append(f"{what}:var(--rxbus-{colour},{_LIGHT[colour]})")
    if styles:
        plain["style"] = ";".join(styles)
    return plain


def _sheet() -> tuple[str, str]:
    """The name of the class, and the style sheet."""

    def variables(colours: Mapping[str, str]) -> str:
        return ";".join(f"--rxbus-{name}:{value}" for name, value in colours.items() if name != "ink")

    light, dark = variables(_LIGHT), variables(_DARK)
    rules = (
        f"@{{{light}}}",
        f"@:root{{color:{_LIGHT['ink']};background:{_LIGHT['paper']}}}",
        f"@media(prefers-color-scheme:dark){{@{{{dark}}}@:root{{color:{_DARK['ink']};background:{_DARK['paper']}}}}}",
        # what a page says about itself goes before what the system prefers
        f"{_under('[data-jp-theme-light=true]', '.vscode-light', '[data-theme=light]', '.light')}{{{light}}}",
        f"{_under('[data-jp-theme-light=false]', '.vscode-dark', '[data-theme=dark]', '.dark', 'html[theme=dark]')}{{{dark}}}",
        "@ text{white-space:pre;unicode-bidi:isolate}",
        # letters that lines may cross have a rim in the page's colour, as far as that is known; where it isn't, none
        f"@ .{RIMMED}{{paint-order:stroke;stroke-width:4px;stroke-linejoin:round;"
        "stroke:var(--jp-layout-color0,var(--vscode-editor-background,var(--rxbus-paper)))}",
        "div@@@{font-size:13px;line-height:1.45;overflow-x:auto;padding:2px 0 8px;color:inherit}",
        "@@@ table{border-collapse:collapse;border:0;margin:10px 0 0;font-size:12.5px;font-variant-numeric:tabular-nums;width:auto}",
        "@@@ tr,@@@ tbody tr{background:none}",
        "@@@ th,@@@ td{border:0;border-bottom:1px solid rgba(128,128,128,.25);padding:4px 0 4px 22px;text-align:right;background:none;"
        "white-space:nowrap;vertical-align:middle;max-width:none;color:inherit;unicode-bidi:isolate}",
        "@@@ th{font-weight:500;opacity:.72;border-bottom-color:rgba(128,128,128,.6)}",
        "@@@ th:first-child,@@@ td:first-child{padding-left:0}",
        "@@@ td:first-child{font-weight:600}",
        # no name, whatever it is written in, pushes the numbers out of sight
        "@@@ .l{text-align:left;max-width:34em;overflow:hidden;text-overflow:ellipsis}",
        f"@@@ .w{{color:var(--rxbus-warn,{_LIGHT['warn']});font-weight:600}}",
        "@@@ .z{opacity:.4}",
        "@@@ .n{opacity:.72}",
        "@@@ p{margin:0}",
        "@@@ .i{display:block}",
        "@@@ .o{display:none}",
        "@@@ svg{vertical-align:middle}",
        "@@@ pre{margin:8px 0 0;padding:8px 10px;background:rgba(128,128,128,.12);border-radius:4px;white-space:pre-wrap;"
        f"font:12px/1.45 {MONOSPACED}}}",
    )
    text = "".join(rules)
    name = f"rxbus-{zlib.crc32(text.encode()):08x}"
    return name, text.replace("@media", "\0").replace("@", f".{name}").replace("\0", "@media")


def _under(*hosts: str) -> str:
    return ",".join(f"{host} @" for host in hosts)


CLASS, _SHEET = _sheet()


def style() -> Markup:
    """The style sheet as an element; a page with several is none the worse."""
    return Markup(f"<style>{_SHEET}</style>")


# -- pictures


def text(x: float, y: float, content: str, **attributes: str | float | None) -> Markup:
    """A line of text that begins (or, by ``text_anchor``, ends) at x, its base line at y."""
    return element("text", {"x": x, "y": y, **attributes}, content)


def group(children: Iterable[str], **attributes: str | float | None) -> Markup:
    """Elements that share attributes; nothing if there are none."""
    inner = Markup("".join(map(escape, children)))
    return element("g", attributes, inner) if inner else inner


def picture(width: float, height: float, title: str, children: Iterable[str], *, styled: bool = True) -> Markup:
    """A picture of that size in pixels, complete as a file, in a page and for who can't see it."""
    size = f"{number(width)} {number(height)}"
    attributes: dict[str, str | float | None] = {
        "xmlns": "http://www.w3.org/2000/svg",
        "class": CLASS,
        "width": width,
        "height": height,
        "viewBox": f"0 0 {size}",
        "role": "img",
        "aria-label": title,
        "font-family": FONT,
        "font-size": 13,
        "fill": "currentColor",
        # in a narrow place it shrinks as long as it can be read, and is scrolled then
        "style": f"max-width:max(100%,{SHRUNK * width:.0f}px);height:auto",
    }
    inner = [element("title", None, title), *([style()] if styled else []), *children]
    return element("svg", attributes, *inner)


def inline(svg: Markup) -> Markup:
    """A picture in a block of a page, also where that is stripped of style sheets and drawings.

    Notebooks that aren't trusted, and code hosts, do so. Where the style sheet is in force the drawing itself is shown, in the
    page's colours. Where it isn't, that is hidden, or what is left of it, and the same picture is shown as an image.
    """
    if len(svg) > LARGEST:
        other = element("p", {"class": "o"}, "a large picture: run the notebook, or trust it, to see it")
    else:
        file = svg.replace("</title>", f"</title>{style()}", 1).encode()
        source = Markup("data:image/svg+xml;base64," + b64encode(file).decode())  # as it is: text from outside would be cut
        other = element("img", {"class": "o", "alt": "", "src": source})
    return Markup(element("div", {"class": "i", "hidden": "hidden"}, svg) + other)


def html(*children: str) -> Markup:
    """A block of a page that scrolls sideways when it is wide, with the style sheet."""
    return element("div", {"class": CLASS}, style(), *children)


# -- tables


class Table(NamedTuple):
    """Rows under a head; numbers stand right (those with a point to a tenth), and what is zero is pale."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    warn: Sequence[int] = ()
    """The columns in which anything but zero is a warning."""
    more: int = 0
    """How many rows were left out."""

    @property
    def left(self) -> set[int]:
        """The columns of text."""
        return {n for n in range(len(self.head)) if n == 0 or any(isinstance(row[n], str) and row[n] != "" for row in self.rows)}


WIDEST = 60
"""Cells of one cell of a table."""


def _shown(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if value < 99.95 else f"{value:,.0f}"


def html_table(table: Table) -> Markup:
    """As markup."""
    left = table.left
    head = [element("th", {"class": "l" if n in left else None}, name or " ") for n, name in enumerate(table.head)]
    lines = [element("tr", None, *head)]
    for row in table.rows:
        line: list[Markup] = []
        for n, value in enumerate(row):
            kind = "l" if n in left else "z" if value == 0 else "w" if n in table.warn else None
            shown = value if isinstance(value, Markup) else cut(clean(_shown(value)), WIDEST)
            line.append(element("td", {"class": kind}, shown or Markup("&#160;")))
        lines.append(element("tr", None, *line))
    if table.more:
        lines.append(element("tr", None, element("td", {"class": "l n", "colspan": len(table.head)}, _rest(table))))
    return element("table", None, element("thead", None, lines[0]), element("tbody", None, Markup("".join(lines[1:]))))


def _rest(table: Table) -> str:
    return f"… and {table.more:,} more"


def text_table(table: Table, *, widest: int | None = None) -> str:
    """In plain text, columns aligned by cells; markup has no place in it."""
    left = table.left
    rows = [[clean(_shown(value)) for value in row] for row in (table.head, *table.rows)]
    if widest is not None:
        rows = [[cut(cell, widest) for cell in row] for row in rows]
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(pad(cell, widths[n], right=n not in left) for n, cell in enumerate(row)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths).rstrip())
    return "\n".join([*lines, _rest(table)] if table.more else lines)
