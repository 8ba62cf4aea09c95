"""Every notebook runs from top to bottom in a fresh kernel."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


class TestNotebooks:
    """What a reader of a notebook does: run all cells."""

    def test_there_are_notebooks(self) -> None:
        """The first notebook is where the README says."""
        assert "01-first-bus.ipynb" == NOTEBOOKS[0].name

    # what the kernel's transport warns about is not ours to mend
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
    def test_runs_top_to_bottom(self, path: Path) -> None:
        """No cell raises, and each prints what the stored notebook shows."""
        stored = nbformat.read(path, as_version=4)
        fresh = nbformat.read(path, as_version=4)
        NotebookClient(fresh, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
        assert [_printed(cell) for cell in stored.cells] == [_printed(cell) for cell in fresh.cells]


def _printed(cell: nbformat.NotebookNode) -> str:
    """What a cell printed, letter by letter: threads that print at once may do so in any order, line breaks included."""
    text = "".join(output.get("text", "") for output in cell.get("outputs", []))
    return "".join(sorted(text.replace("\n", "")))
