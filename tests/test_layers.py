"""The house: a module imports only from below."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rxbus

PACKAGE = Path(rxbus.__file__).parent

# ground to roof; within a row, too, a module imports only from those to its left
LAYERS = (
    ("errors", "arguments", "lettering", "drawing", "card", "display"),
    ("ordering", "tracks", "packing", "layered", "chart", "outline", "timescale", "marks", "plan", "strip", "diagram"),
    ("pattern", "event", "lanes", "outcome", "statistics", "instrument"),
    (
        "alarm",
        "mailbox",
        "timers",
        "workers",
        "schedulers",
        "strand_scheduler",
        "waits",
        "strand",
        "inlet",
        "intake",
        "group",
        "loops",
        "async_strand",
    ),
    ("recovery", "host", "step", "fuse", "request", "subscription", "observer", "subject", "topic", "observed"),
    ("handler", "results", "consumer", "event_stream", "crew", "concurrency", "dead_letters"),
    ("graph", "registry", "shutdown", "publishing", "consuming", "bus"),
    ("joining", "boxes", "mapping", "operators", "marbles", "recording"),
    ("__init__", "__main__"),
)
WINGS = ("instruments", "notebook", "testing")
"""Packages of the topmost layer but the roof: nothing in the rows above imports them, nor does one of them another."""
RANK = {name: rank for rank, name in enumerate(name for row in LAYERS for name in row)}
OPTIONAL = ("IPython", "nats", "opentelemetry", "numpy", "hypothesis", "pytest")


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(path: Path) -> set[str]:
    """The modules of rxbus that a module imports, inside functions too, but not for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(inner) for node in ast.walk(tree) if _is_for_types_only(node) for inner in ast.walk(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            inside = path.parent != PACKAGE  # a module of a wing: what it imports from its own package isn't looked at
            if inside and node.level == 1:
                continue
            if node.level == (2 if inside else 1):
                found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
            elif node.module and node.module.split(".")[0] == "rxbus":
                found |= {"__init__"} if node.module == "rxbus" else {node.module.split(".")[1]}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("rxbus.")}
    return found


LOCKS = ("lock", "guard", "closer", "changed", "turn")


def _is_lock(node: ast.With) -> bool:
    return any(ast.unparse(item.context_expr).endswith(LOCKS) for item in node.items)


def _ends_in_condition(node: ast.AST) -> bool:
    """Whether it compiles to a jump from a condition back to the top of a loop."""
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp):
        return any(generator.ifs for generator in node.generators)
    if isinstance(node, ast.While) and not isinstance(node.test, ast.Constant):
        return True
    if not isinstance(node, ast.For | ast.While):
        return False
    last = node.body[-1]
    return (isinstance(last, ast.If) and not last.orelse) or any(isinstance(inner, ast.Continue) for inner in ast.walk(node))


def unguarded(tree: ast.AST) -> list[str]:
    """Loops under a lock that end in a condition; what stands in a function of its own doesn't count."""
    found: list[str] = []

    def look(node: ast.AST, *, locked: bool) -> None:
        if locked and _ends_in_condition(node):
            found.append(ast.unparse(node).splitlines()[0])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.GeneratorExp):
            locked = False
        locked = locked or (isinstance(node, ast.With) and _is_lock(node))
        for child in ast.iter_child_nodes(node):
            look(child, locked=locked)

    look(tree, locked=False)
    return found


class TestLocks:
    """Where Ctrl-C would leave with a lock held: CPython 3.12 and 3.13 don't guard the jump from a condition to the top of its loop."""

    @pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
    def test_no_loop_under_a_lock_ends_in_a_condition(self, path: Path) -> None:
        """It is a function of its own, or `filter`."""
        assert [] == unguarded(ast.parse(path.read_text(encoding="utf-8")))

    @pytest.mark.parametrize(
        ("body", "count"),
        [
            ("[x for x in y if x]", 1),
            ("while x: y()", 1),
            ("for x in y:\n  if x: z()", 1),
            ("list(x for x in y if x)", 0),
            ("[x for x in y]", 0),
        ],
    )
    def test_would_notice(self, body: str, count: int) -> None:
        """It sees such a loop, and lets others be."""
        lines = body.replace("\n", "\n  ")
        assert count == len(unguarded(ast.parse(f"with self._lock:\n  {lines}")))
        assert [] == unguarded(ast.parse(body))


class TestLayers:
    """Imports go downward only."""

    def test_every_module_has_its_place(self) -> None:
        """No module stands outside the house, and no room is empty."""
        assert set(RANK) == {path.stem for path in PACKAGE.glob("*.py")}
        assert set(WINGS) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

    def test_imports_go_downward_only(self) -> None:
        """Whatever a module imports from rxbus has a lower rank."""
        upward = [
            f"{path.stem} imports {name}"
            for path in sorted(PACKAGE.glob("*.py"))
            for name in sorted(imported(path))
            if RANK.get(name, len(RANK)) >= RANK[path.stem]
        ]
        assert [] == upward

    def test_wings_stand_on_the_house_alone(self) -> None:
        """A module of a wing imports neither the roof nor another wing."""
        allowed = set(RANK) - {"__init__", "__main__"}
        outside = [
            f"{wing}/{path.stem} imports {name}"
            for wing in WINGS
            for path in sorted((PACKAGE / wing).glob("*.py"))
            for name in sorted(imported(path) - allowed)
        ]
        assert [] == outside

    def test_the_check_sees_imports(self) -> None:
        """The reader of imports finds those that are known to be there."""
        assert {"errors", "arguments"} <= imported(PACKAGE / "pattern.py")
        assert "event" not in imported(PACKAGE / "errors.py")
        assert {"event", "errors"} <= imported(PACKAGE / "instruments" / "otel.py")


class TestPublicNames:
    """What `from rxbus import ...` offers."""

    def test_all_is_what_there_is(self) -> None:
        """Every name of ``__all__`` exists, once, in order."""
        assert sorted(set(rxbus.__all__)) == sorted(rxbus.__all__)
        assert [] == [name for name in rxbus.__all__ if not hasattr(rxbus, name)]

    def test_public_names_have_docstrings(self) -> None:
        """Every public class, and every public method and property of one, says what it means."""
        missing: list[str] = []
        for name in rxbus.__all__:
            thing = getattr(rxbus, name)
            if not (thing.__doc__ or "").strip():
                missing.append(name)
            if isinstance(thing, type):
                for key, member in vars(thing).items():
                    documented = callable(member) or isinstance(member, property)
                    if not key.startswith("_") and documented and not (member.__doc__ or "").strip():
                        missing.append(f"{name}.{key}")
        assert [] == missing

    def test_importing_brings_no_optional_package(self) -> None:
        """``import rxbus`` needs reactivex and typing-extensions only."""
        code = f"import sys, rxbus; print([m for m in {OPTIONAL!r} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert "[]" == done.stdout.strip()

    def test_importing_brings_nothing_that_draws(self) -> None:
        """What makes pictures is imported when one is made."""
        code = "import sys, rxbus; print([m for m in ('drawing', 'lettering', 'chart', 'diagram') if f'rxbus.{m}' in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert "[]" == done.stdout.strip()
