"""Escaped markup, readable on light and dark pages, of the standard library alone."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxbus import drawing
from rxbus.drawing import (
    CLASS,
    Markup,
    Table,
    element,
    escape,
    group,
    html,
    html_table,
    inline,
    number,
    paint,
    picture,
    style,
    text,
    text_table,
)
from rxbus.lettering import cells, clean

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
HOSTILE = ["</svg><script>alert(1)</script>", '" onload="alert(1)', "' x='", "&amp;<![CDATA[x]]>", "-->", "\x00\x1b", "\ud800", "\u202e"]
SVG = "{http://www.w3.org/2000/svg}"


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """As the WCAG has it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


class TestEscape:
    """Text never becomes markup."""

    @given(ANY_TEXT)
    def test_text_comes_back(self, content: str) -> None:
        """Any text is legal in an element and in an attribute, and a reader gets it as it was cleaned."""
        read = ElementTree.fromstring(element("a", {"b": content}, content, element("c")))
        assert clean(content) == (read.text or "") == read.attrib["b"]
        assert ["c"] == [child.tag for child in read]

    @pytest.mark.parametrize("content", HOSTILE, ids=ascii)
    def test_hostile_text_in_a_picture(self, content: str) -> None:
        """A picture with it has the elements that it would have anyway."""
        drawn = picture(10, 10, content, [text(0, 0, content)])
        assert ["title", "style", "text"] == [child.tag.removeprefix(SVG) for child in ElementTree.fromstring(drawn)]
        assert "<script" not in drawn

    def test_markup_is_taken_as_it_is(self) -> None:
        """What was escaped isn't escaped again."""
        assert "&lt;" == escape(escape("<"))
        assert "<b>&lt;</b>" == element("b", None, escape("<"))

    def test_empty_group(self) -> None:
        """Nothing is nothing."""
        assert "" == group([], fill="none")

    @pytest.mark.parametrize(("written", "value"), [("0", -0.01), ("0", 0.04), ("1.5", 1.5), ("2", 2.0), ("-3.1", -3.14)])
    def test_numbers_are_short(self, written: str, value: float) -> None:
        """A tenth of a pixel is enough, and there is no minus nought."""
        assert written == number(value)

    def test_small_attributes_keep_their_figures(self) -> None:
        """An opacity of five hundredths is that."""
        assert '<a fill-opacity="0.05"/>' == element("a", {"fill_opacity": 0.05})


class TestPicture:
    """Readable wherever it lands."""

    DRAWN = picture(120.0, 40.5, "a title", [text(0, 0, "x")])

    def test_is_a_file_of_its_own(self) -> None:
        """It has a name space, a size, and says what it is to who can't see it."""
        root = ElementTree.fromstring(self.DRAWN)
        assert f"{SVG}svg" == root.tag
        assert ("120", "40.5", "0 0 120 40.5") == (root.attrib["width"], root.attrib["height"], root.attrib["viewBox"])
        assert ("img", "a title") == (root.attrib["role"], root.attrib["aria-label"])
        assert "a title" == root.findtext(f"{SVG}title")

    def test_nothing_from_elsewhere(self) -> None:
        """No script, no link, no font and no image from elsewhere."""
        assert [] == re.findall(r"script|href|@import|url\(|@font-face|<image|\son\w+=", self.DRAWN)

    def test_shrinks_only_so_far(self) -> None:
        """A narrow page may make it smaller, but not illegible."""
        assert "max-width:max(100%,94px);height:auto" == ElementTree.fromstring(self.DRAWN).attrib["style"]

    def test_no_ids(self) -> None:
        """Nothing that two pictures on one page could both claim."""
        assert [] == re.findall(r"\sid=", self.DRAWN)

    def test_rules_stay_in_the_picture(self) -> None:
        """Each rule of the style sheet asks for the class, whose name is that of these rules."""
        sheet = drawing.style().removeprefix("<style>").removesuffix("</style>")
        rules = re.findall(r"(?:^|[{}])([^{}]+)\{", sheet.replace("@media(prefers-color-scheme:dark)", ""))
        assert rules
        assert [] == [one for rule in rules for one in rule.split(",") if f".{CLASS}" not in one]

    @pytest.mark.parametrize(
        "host", ["[data-jp-theme-light=true]", "[data-jp-theme-light=false]", ".vscode-dark", "[data-theme=dark]", ".dark"]
    )
    def test_follows_the_theme_of_its_page(self, host: str) -> None:
        """What the page says of itself counts, and the system's preference otherwise."""
        assert f"{host} .{CLASS}" in self.DRAWN
        assert "@media(prefers-color-scheme:dark)" in self.DRAWN

    @pytest.mark.parametrize("theme", [drawing._LIGHT, drawing._DARK], ids=["light", "dark"])
    def test_contrast(self, theme: dict[str, str]) -> None:
        """Every colour can be read on the page, and the letters in a marble on it."""
        poor = {name: colour for name, colour in theme.items() if name not in ("paper", "on") and contrast(colour, theme["paper"]) < 4.5}
        assert {} == poor
        assert [] == [n for n in range(drawing.STORIES) if contrast(theme[f"s{n}"], theme["on"]) < 4.5]

    def test_letters_of_one_width(self) -> None:
        """A traceback has them wherever it is shown, so that its carets stand where they belong."""
        assert re.search(r" pre\{[^}]*font:[^}]*,monospace\}", style())

    def test_contrast_without_a_style_sheet(self) -> None:
        """Where style sheets are stripped, the colours can be seen on a dark page too."""
        assert [] == [
            name for name, colour in drawing._LIGHT.items() if name not in ("paper", "on", "ink") and contrast(colour, "#111111") < 2.6
        ]

    def test_paint_has_a_way_out(self) -> None:
        """A colour is an attribute too, and its variable has a value in reserve."""
        painted = paint(fill="warn", stroke="ink")
        assert drawing._LIGHT["warn"] == painted["fill"]
        assert f"fill:var(--rxbus-warn,{drawing._LIGHT['warn']})" == painted["style"]
        assert "currentColor" == painted["stroke"]


class TestTable:
    """Tables as markup and as text."""

    TABLE = Table(("name", "events", "failed"), [("用户", 1200, 0), ("b<i>", 3, 2)], warn=(2,), more=5)

    def test_html(self) -> None:
        """Numbers right, text left, what is wrong marked, zeros pale, the rest counted."""
        rows = ElementTree.fromstring(html_table(self.TABLE)).findall("tbody/tr")
        assert [("l", "用户"), (None, "1,200"), ("z", "0")] == [(cell.get("class"), cell.text) for cell in rows[0]]
        assert [("l", "b<i>"), (None, "3"), ("w", "2")] == [(cell.get("class"), cell.text) for cell in rows[1]]
        assert ["… and 5 more"] == [cell.text for cell in rows[2]]

    def test_width_of_texts(self) -> None:
        """A text of whatever letters has a width at which it ends."""
        assert re.search(r"\.l\{[^}]*max-width:34em;overflow:hidden;text-overflow:ellipsis", style())

    def test_text(self) -> None:
        """Columns stand under each other, wide characters or not."""
        assert [
            "name  events  failed",
            "----  ------  ------",
            "用户   1,200       0",
            "b<i>       3       2",
            "… and 5 more",
        ] == text_table(self.TABLE).splitlines()

    @given(st.lists(st.tuples(ANY_TEXT, st.integers(0, 10**9)), max_size=5))
    def test_any_names(self, rows: list[tuple[str, int]]) -> None:
        """Whatever names there are, the markup is well formed and the text has a line a row."""
        table = Table(("name", "n"), rows)
        assert len(rows) == len(ElementTree.fromstring(html(html_table(table))).findall("table/tbody/tr"))
        lines = text_table(table, widest=20).splitlines()
        assert len(rows) + 2 == len(lines)
        assert max(map(cells, lines)) <= 20 + 2 + 13

    def test_markup_in_a_cell(self) -> None:
        """A drawing in a cell is drawn, text isn't."""
        drawn = html_table(Table(("a", "b"), [("<i>", Markup("<i/>"))]))
        assert ["i"] == [child.tag for child in ElementTree.fromstring(drawn).iter() if child.tag == "i"]

    def test_decimals(self) -> None:
        """A rate has a tenth while it is small."""
        assert "0.5" in text_table(Table(("a", "b"), [("x", 0.5)]))
        assert "1,234\n" in text_table(Table(("a", "b"), [("x", 1234.5), ("y", 1.0)])) + "\n"


class TestInline:
    """A picture in a page that may be stripped."""

    PICTURE = picture(40, 20, "a <picture>", [text(1, 10, "said")], styled=False)

    def test_shown_once_each_way(self) -> None:
        """With the style sheet the drawing is shown, and without it the image; the drawing's words are hidden then."""
        root = ElementTree.fromstring(f"<body>{html(inline(self.PICTURE))}</body>")
        drawing, image = root.find(".//div[@hidden]"), root.find(".//img")
        assert drawing is not None
        assert image is not None
        assert ("i", "o") == (drawing.get("class"), image.get("class"))
        assert "said" in "".join(drawing.itertext())
        sheet = root.findtext(".//style") or ""
        assert ".i{display:block}" in sheet
        assert ".o{display:none}" in sheet

    def test_the_image_is_the_same_picture(self) -> None:
        """Complete: with its own style sheet."""
        source = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', inline(self.PICTURE))[0]
        image = ElementTree.fromstring(base64.b64decode(source))
        assert "said" == image.findtext("{http://www.w3.org/2000/svg}text")
        assert image.find("{http://www.w3.org/2000/svg}style") is not None

    def test_a_large_one_is_there_once(self) -> None:
        """Beyond a limit there are words in place of the image."""
        large = picture(40, 20, "large", [text(1, 10, str(n)) for n in range(6000)], styled=False)
        assert len(inline(large)) < len(large) + 500
        assert "<img" not in inline(large)
