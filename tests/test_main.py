"""The main job, run as a user runs it: as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

HOSTILE = "'; DROP TABLE users; --\n[EMAIL] forged\x1b[31m <script>alert(1)</script> %s {0} \udcff 数 " + "long " * 200


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """``python -m rxbus`` with these arguments."""
    command = [sys.executable, "-m", "rxbus", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, env={**os.environ, **environment})


def lines_of(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """What it printed, if it went well."""
    assert 0 == done.returncode, done.stderr.decode()
    assert "" == done.stderr.decode()
    return done.stdout.decode("utf-8").splitlines()


def timeline(lines: list[str]) -> list[tuple[str, str, str, str]]:
    """Thread, agent, event and cause of each row, in order."""
    start = lines.index("Timeline") + 2
    rows = lines[start : lines.index("", start)]
    found = [re.fullmatch(r"\d+ ms +(\S+) +(\S+) +(\S+) +(\S+)", row) for row in rows]
    return [match.groups() for match in found if match]  # type: ignore[misc]


class TestMainJob:
    """The scenario, its order, its causality, and its one failure."""

    def test_agents_say_what_they_did(self) -> None:
        """Each agent's line is there, to the letter."""
        lines = lines_of(run("What is the company revenue?"))
        assert "[AUDIT] User user-123 asked: What is the company revenue?" in lines
        assert 2 == lines.count("[NOTIFY] Processing query from session sess-456")
        assert "[EMAIL] Sending summary: Research result for: What is the company revenue?" in lines
        assert 1 == len([line for line in lines if line.startswith("[EMAIL]")])

    def test_failure_is_contained_and_reported(self) -> None:
        """Research fails on the second query: one error line and one dead letter with subscriber and topic."""
        lines = lines_of(run())
        errors = [line for line in lines if line.startswith("[ERROR]")]
        assert 1 == len(errors)
        assert "research" in errors[0]
        assert "user.query" in errors[0]
        start = lines.index("Dead letters")
        letters = [line for line in lines[start + 1 : lines.index("", start)] if not line.startswith(" ")]
        assert 1 == len(letters)
        assert letters[0].startswith("research gave up ")

    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_help(self, option: str) -> None:
        """It is no query."""
        (usage, *_) = lines_of(run(option))
        assert "usage: python -m rxbus [query ...]" == usage

    @pytest.mark.skipif(os.name != "posix", reason="needs a shell")
    def test_a_reader_that_has_read_enough(self) -> None:
        """``| head`` is no error of anybody's."""
        done = subprocess.run(
            ["bash", "-c", '"$0" -m rxbus | head -n 1', sys.executable], capture_output=True, timeout=60, check=False, text=True
        )
        assert (1, "") == (done.stdout.count("\n"), done.stderr)

    def test_notifier_finishes_before_the_slow_auditor(self) -> None:
        """The auditor delays nobody: both notifications and the email come before its first line."""
        agents = [agent for _, agent, _, _ in timeline(lines_of(run()))]
        assert ["audit", "audit"] == agents[-2:]
        assert {agent: agents[:-2].count(agent) for agent in agents[:-2]} == {"notify": 2, "research": 1, "email": 1}

    def test_causal_ids_lead_from_query_to_email(self) -> None:
        """The email handled a child of the query that the researcher handled."""
        rows = timeline(lines_of(run()))
        [(query, cause_of_query)] = [(event, cause) for _, agent, event, cause in rows if agent == "research"]
        [(completion, cause)] = [(event, cause) for _, agent, event, cause in rows if agent == "email"]
        assert query == cause
        assert query != completion
        assert "-" == cause_of_query

    def test_agents_run_on_threads_of_their_own(self) -> None:
        """The auditor's thread is not the notifier's."""
        rows = timeline(lines_of(run()))
        threads = {agent: thread for thread, agent, _, _ in rows}
        assert threads["audit"] != threads["notify"]

    def test_ends_with_topology_and_statistics(self) -> None:
        """The last sections are those of the graph and of the counters, and the counters add up."""
        lines = lines_of(run())
        assert lines.index("Timeline") < lines.index("Dead letters") < lines.index("Topology") < lines.index("Statistics")
        assert "    └─ research ──▶ research.complete" in lines
        [row] = [line.split() for line in lines[lines.index("Statistics") :] if line.startswith("research ")]
        assert ["research", "2", "1", "1", "0", "0", "0"] == row

    def test_hostile_query_stays_one_harmless_line(self) -> None:
        """Control characters are shown as escapes, so a query can't forge a line or drive the terminal."""
        done = run(HOSTILE)
        lines = lines_of(done)
        assert b"\x1b" not in done.stdout
        assert 1 == len([line for line in lines if line.startswith("[EMAIL]")])
        [audit] = [line for line in lines if line.startswith("[AUDIT] User user-123 asked: ';")]
        assert "DROP TABLE users; --\\n[EMAIL] forged\\x1b[31m <script>alert(1)</script> %s {0} \\udcff 数 long" in audit
        assert 1 == len([line for line in lines if line.startswith("research gave up ")])

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_a_narrow_terminal_is_no_error(self, encoding: str) -> None:
        """What the terminal can't show is escaped."""
        done = run("数は?", PYTHONIOENCODING=encoding)
        assert 0 == done.returncode, done.stderr
        assert b"\\u6570" in done.stdout

    def test_shows_only_public_names(self) -> None:
        """The program is written as a user would write it."""
        from pathlib import Path

        import rxbus.__main__

        source = Path(rxbus.__main__.__file__).read_text(encoding="utf-8")
        assert [] == re.findall(r"(?:bus|event|letter|delivery|subscription)\._\w+", source)
        assert [] == re.findall(r"from rxbus\.\w+|from \.", source)
