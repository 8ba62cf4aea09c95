"""The type checkers: pyright in strict mode is the authority, mypy agrees about the source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def check(*command: str) -> str:
    """What a checker says, with its exit code in front."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    return f"{done.returncode}\n{done.stdout}{done.stderr if done.returncode else ''}"


class TestTypes:
    """Each checker over what it is responsible for."""

    def test_pyright_strict_on_package_and_user_code(self) -> None:
        """The package is clean, and user code gets exactly the inferred types that are asserted there."""
        said = check("pyright", "--pythonpath", sys.executable)
        assert said.startswith("0\n"), said
        assert "0 errors, 0 warnings" in said

    def test_pyright_checks_the_assertions(self, tmp_path: Path) -> None:
        """A wrong assertion about a type is an error: the check can fail."""
        wrong = tmp_path / "wrong.py"
        wrong.write_text("from typing import assert_type\nimport rxbus\nassert_type(rxbus.EventBus().topic('a', int), str)\n")
        assert "assert_type" in check("pyright", "--pythonpath", sys.executable, str(wrong))

    def test_mypy_on_the_source(self) -> None:
        """mypy finds nothing in the package."""
        said = check("mypy")
        assert said.startswith("0\n"), said


class TestStyle:
    """ruff formats and lints everything."""

    def test_ruff(self) -> None:
        """Nothing to mend and nothing to format."""
        lint = check("ruff", "check", ".")
        assert lint.startswith("0\n"), lint
        layout = check("ruff", "format", "--check", ".")
        assert layout.startswith("0\n"), layout
