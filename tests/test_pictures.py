"""The pictures that the README shows are what a run of the main job draws."""

from __future__ import annotations

from xml.etree import ElementTree

from .pictures import GRAPH, MARBLES, marbles, run_main_job


class TestPictures:
    """``python -m tests.pictures`` makes them anew."""

    def test_stored_pictures_are_true(self) -> None:
        """A fresh run of the main job draws both to the letter."""
        graph, witness = run_main_job()
        assert GRAPH.read_text(encoding="utf-8") == graph + "\n"
        assert MARBLES.read_text(encoding="utf-8") == marbles(witness) + "\n"

    def test_they_have_a_page_of_their_own(self) -> None:
        """On a host whose theme they can't know they bring their background along, in both themes."""
        for path in (GRAPH, MARBLES):
            drawn = path.read_text(encoding="utf-8")
            ElementTree.fromstring(drawn)
            assert 2 == drawn.count(":root{color:")
