"""The mutations fit the source: run ``python -m tests.stress.mutations`` to see them caught."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .mutations import MUTATIONS, ROOT, Mutation, mutated


def exists(test: str) -> bool:
    """Whether there is a test of that node id."""
    path, *names = test.split("[")[0].split("::")
    if not (ROOT / path).is_file():
        return False
    nodes = ast.parse(Path(ROOT / path).read_text(encoding="utf-8")).body
    for name in names:
        found = [n for n in nodes if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name]
        if not found:
            return False
        nodes = found[0].body
    return True


class TestMutations:
    """What the list promises."""

    @pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
    def test_fits_the_source(self, mutation: Mutation) -> None:
        """Its snippet occurs exactly once, its replacement makes another program that compiles, and its tests exist."""
        before = ast.parse((ROOT / mutation.file).read_text(encoding="utf-8"))
        after = ast.parse(mutated(mutation))
        assert ast.dump(before) != ast.dump(after)
        assert mutation.tests
        assert [] == [test for test in mutation.tests if not exists(test)]

    def test_names_are_unique(self) -> None:
        """One can be asked for by name."""
        assert len(MUTATIONS) == len({m.name for m in MUTATIONS})
