"""The README: its examples run and print what it says, and it has what users look for."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


class TestExamples:
    """The fenced blocks, in order, in one namespace; a ``text`` block is what the block before it prints."""

    def test_examples_print_what_the_readme_says(self) -> None:
        """Every python block runs, and prints exactly the text block that follows it, or nothing."""
        namespace: dict[str, object] = {}
        expected: list[str] = []
        printed: list[str] = []
        for number, (kind, text) in enumerate(BLOCKS):
            if kind == "python":
                following = BLOCKS[number + 1] if number + 1 < len(BLOCKS) else ("", "")
                expected.append(following[1] if following[0] == "text" else "")
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile(text, f"README block {number}", "exec"), namespace)
                printed.append(out.getvalue())
        assert expected == printed
        assert len([text for text in expected if text]) >= 4

    def test_first_example_is_ten_lines_that_begin_with_a_decorator(self) -> None:
        """A newcomer sees ten lines, and the first of them is the idea."""
        lines = [line for line in BLOCKS[1][1].splitlines() if line]
        assert lines[0].startswith("@bus.on(")
        assert len(BLOCKS[1][1].splitlines()) <= 10


class TestContents:
    """What must stand on the page."""

    def test_both_commands_are_there(self) -> None:
        """The commands to try and to test rxbus are given to the letter."""
        assert "pip install -e . && python -m rxbus\n" in README
        assert 'pip install -e ".[test]" && python -m pytest\n' in README

    def test_change_log_is_the_last_section(self) -> None:
        """Who looks for the changes finds them at the end."""
        assert "Changes" == re.findall(r"^## (.*)$", README, flags=re.MULTILINE)[-1]

    def test_four_ways_to_chain(self) -> None:
        """The table of chaining has its four rows."""
        section = README.split("## Four ways to chain agents")[1].split("**Compose")[0]
        assert 4 == len([line for line in section.splitlines() if line.startswith("| `")])

    def test_linked_files_exist(self) -> None:
        """Every relative link leads somewhere."""
        links = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
        assert [] == [link for link in links if not (ROOT / link).exists()]
        assert links
