"""The notebooks: each runs from top to bottom in a fresh kernel, and what it shows when it is only read is true."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
IDS = re.compile(r"\b[0-9a-f]{16}-[0-9a-f]+\b")
TIMES = re.compile(r"\b\d[\d.,]*\s?(?:ns|µs|ms|s)\b")
PATHS = re.compile(r"/\S*?ipykernel_\d+/\d+\.py|/tmp\S*")
THREADS = re.compile(r"\b\d+ workers? of\b")
# what makes pytest, which a cell runs, print other words, longer lines or colours
TASTES = (
    "CI",
    "BUILD_NUMBER",
    "COLUMNS",
    "FORCE_COLOR",
    "NO_COLOR",
    "PY_COLORS",
    "PYTEST_ADDOPTS",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD",
    "PYTEST_PLUGINS",
)
FIGURES = re.compile(r"\d[\d.,e+-]*")
IMAGE = re.compile(r'src="data:image/svg\+xml;base64,([^"]*)"')


def normalised(text: str, *, measured: bool = False) -> str:
    """The text without what is another one each time: ids, times, paths of cells, how many threads there just are.

    In cells whose tag says that they measure something only words are left: no figures, and nothing that is drawn from them.
    """
    text = IMAGE.sub(lambda found: base64.b64decode(found[1]).decode(), text)
    for pattern, word in ((IDS, "ID"), (TIMES, "TIME"), (PATHS, "PATH"), (THREADS, "WORKERS of")):
        text = pattern.sub(word, text)
    if measured:
        text = re.sub(r"<style.*?</style>|<svg.*?</svg>|<[^>]+>", " ", text, flags=re.DOTALL)
        text = re.sub(r"[▁▂▃▄▅▆▇█]+", "SPARKS", FIGURES.sub("N", text))
        text = " ".join(re.sub(r"-+", "-", text).split())
    return text


def shown(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell shows: first what it printed, letter by letter, because threads that print at once may do so in any order, line
    breaks included; then what it displayed, in all its forms."""
    measured = "measured" in cell.metadata.get("tags", ())
    outputs = cell.get("outputs", [])
    printed = normalised("".join(output.get("text", "") for output in outputs), measured=measured)
    displayed = [output for output in outputs if "data" in output]
    forms = [f"{kind}: {normalised(text, measured=measured)}" for output in displayed for kind, text in sorted(output["data"].items())]
    return ["".join(sorted(printed.replace("\n", ""))), *forms]


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels start as on a machine where nobody has set anything: on a build server pytest, for one, cuts no line."""
    for name in TASTES:
        monkeypatch.delenv(name, raising=False)


class TestNotebooks:
    """What a reader of a notebook does: read it, or run all cells."""

    def test_the_tour_is_complete(self) -> None:
        """Its parts are numbered, and the first one is where the README says."""
        assert [f"0{n}" for n in range(1, 7)] == [path.name[:2] for path in NOTEBOOKS]
        assert "01-first-bus.ipynb" == NOTEBOOKS[0].name

    # what the kernel's transport warns about is not ours to mend
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.usefixtures("plain_environment")
    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
    def test_runs_top_to_bottom(self, path: Path) -> None:
        """No cell raises, and each shows what the stored notebook shows."""
        stored = nbformat.read(path, as_version=4)
        fresh = nbformat.read(path, as_version=4)
        NotebookClient(fresh, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
        for number, (before, now) in enumerate(zip(stored.cells, fresh.cells, strict=True)):
            assert shown(before) == shown(now), f"cell {number}: {before.source[:60]}"

    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
    def test_is_stored_with_its_outputs(self, path: Path) -> None:
        """It was run as a whole, without an error, and can be read where nothing runs."""
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert list(range(1, len(cells) + 1)) == [cell.execution_count for cell in cells]
        assert sum(bool(cell.outputs) for cell in cells) >= 5
        assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]

    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
    def test_publishes_drain_in_their_cell(self, path: Path) -> None:
        """Every cell that publishes waits for what it caused, and looks at the dead letters, or the next one does."""
        sources = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        for source, following in zip(sources, [*sources[1:], ""], strict=True):
            if re.search(r"\.(a?publish(_many)?|feed)\(", source) and "def test_" not in source:
                assert re.search(r"drain\(|advance\(|async for", source), source
                assert "dead_letters" in source + following, source

    def test_would_notice(self) -> None:
        """What is another one each time is left out, and nothing else."""
        assert normalised("1.5 ms, 0.2 s: 3 events, a1b2c3d4e5f60718-1f") == "TIME, TIME: 3 events, ID"
        assert normalised("3 events") != normalised("4 events")
        assert normalised("3.5 events ▁▂ ---", measured=True) == normalised("4,000 events ▇ -", measured=True)
