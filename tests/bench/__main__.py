"""``python -m tests.bench [--rounds N] [--only B1 B2] [--json FILE]``: the benchmark, side by side with its baselines.

Each contender runs in a process of its own, all of one row once a round, so that a slow moment of the machine hits them alike.
What counts are the ratios within a round; their minimum, median and maximum are printed beside the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.peers import Peer, installed

WORKS = ("one", "eight", "chain")
GROUPS = ("synchronous", "threads", "event loop")


@dataclass(frozen=True)
class Check:
    """One figure of a contender, alone or as a ratio to the same figure of a baseline, and what it has to reach."""

    title: str
    ours: str
    figure: str
    target: float
    theirs: str | None = None
    at_most: bool = False
    unit: str = "times"


@dataclass(frozen=True)
class Row:
    """One work of the benchmark."""

    key: str
    title: str
    checks: tuple[Check, ...]
    besides: tuple[str, ...] = ()
    """Contenders whose figures are shown without having to reach anything."""

    @property
    def contenders(self) -> list[str]:
        """All that take part, once each."""
        named = [name for check in self.checks for name in (check.ours, check.theirs) if name]
        return list(dict.fromkeys([*named, *self.besides]))


POOL = "RxPY Subject + observe_on(pool)"
HOP = "bare SimpleQueue hop"
ROWS = (
    Row(
        "B1",
        "one subscriber, end to end",
        (Check(POOL, "rxbus_one", "rate", 12, "rxpy_one"), Check(HOP, "rxbus_one", "rate", 0.12, "hop")),
    ),
    Row(
        "B2",
        "8 subscribers, deliveries",
        (Check(POOL, "rxbus_eight", "rate", 40, "rxpy_eight"), Check(HOP, "rxbus_eight", "rate", 0.25, "hop")),
    ),
    Row(
        "B3",
        "chain of three topics",
        (Check(POOL, "rxbus_chain", "rate", 15, "rxpy_chain"), Check(HOP, "rxbus_chain", "rate", 0.045, "hop")),
    ),
    Row(
        "B4",
        "latency, one event at a time",
        (
            Check("ThreadPoolExecutor.submit, p50", "rxbus_latency", "p50", 1.0, "executor_latency", at_most=True),
            Check("ThreadPoolExecutor.submit, p99", "rxbus_latency", "p99", 1.5, "executor_latency", at_most=True),
        ),
    ),
    Row("B5", "publish beside a neighbour asleep", (Check("no second subscription", "rxbus_neighbour", "ratio", 1.1, at_most=True),)),
    Row(
        "B6",
        "memory of events",
        (
            Check("one queued event", "rxbus_queued", "bytes", 300, at_most=True, unit="bytes"),
            Check("growth over 1,000,000 events", "rxbus_queued", "growth", 20e6, at_most=True, unit="bytes"),
        ),
    ),
    Row(
        "B7",
        "10,000 topics, one subscriber each",
        (
            Check("one topic", "rxbus_topics", "bytes", 3_600, at_most=True, unit="bytes"),
            Check("one busy topic (B1)", "rxbus_topics", "rate", 0.4, "rxbus_one"),
        ),
    ),
    Row("B8", "publish beside 1,000 patterns", (Check("no patterns", "rxbus_wildcards", "ratio", 0.97),)),
    Row("B9", "coroutine handlers, end to end", (Check("asyncio.Queue hop", "rxbus_coroutine", "rate", 0.3, "asyncio_hop"),)),
    Row(
        "B10",
        "p99 beside 100 handlers asleep",
        (
            Check("while they sleep", "rxbus_sleepers", "asleep", 0.010, at_most=True, unit="s"),
            Check("while they fall asleep", "rxbus_sleepers", "falling", 0.100, at_most=True, unit="s"),
        ),
    ),
    Row(
        "B11",
        "ten times the size, cost of each",
        (
            Check("dispose, 16,000 subscribers", "rxbus_linear", "dispose", 1.5, at_most=True),
            Check("release of 100,000 queued events", "rxbus_linear", "release", 1.5, at_most=True),
            Check("drain, backlog of 800,000", "rxbus_linear", "drain", 1.5, at_most=True),
            Check("10,000 topics made, used, forgotten", "rxbus_linear", "topics", 1.5, at_most=True),
            Check("10,000 patterns made, matched, left", "rxbus_linear", "patterns", 1.5, at_most=True),
        ),
    ),
    Row("B12", "publish_many of 1,000", (Check("publish one by one", "rxbus_many", "ratio", 2.0),)),
    Row("B13", "instruments, microseconds more for each event", (), ("rxbus_instruments",)),
)


def run(name: str) -> dict[str, float]:
    """The figures of a contender, in a fresh process."""
    command = [sys.executable, "-m", "tests.bench.contenders", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"contender {name!r} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def interleaved(names: list[str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """The figures of these contenders, once a round each."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            figures[name].append(run(name))
    return figures


def measure(row: Row, rounds: int) -> dict[str, Any]:
    """All contenders of one row, interleaved."""
    figures = interleaved(row.contenders, rounds)
    return {
        "key": row.key,
        "title": row.title,
        "figures": {name: {key: spread([one[key] for one in all_of]) for key in all_of[0]} for name, all_of in figures.items()},
        "checks": [judge(check, figures) for check in row.checks],
    }


def judge(check: Check, figures: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """One check over all rounds."""
    values = [one[check.figure] for one in figures[check.ours]]
    if check.theirs is not None:
        values = [ours / one[check.figure] for ours, one in zip(values, figures[check.theirs], strict=True)]
    found = spread(values)
    reached = found["median"] <= check.target if check.at_most else found["median"] >= check.target
    return {"to": check.title, "unit": check.unit, "target": check.target, "at_most": check.at_most, "reached": reached, **found}


def machine() -> str:
    """What it ran on."""
    return f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def show(result: dict[str, Any]) -> None:
    """One row as a few lines."""
    print(f"\n{result['key']}  {result['title']}")
    for name, figures in result["figures"].items():
        for key, found in figures.items():
            print(f"    {name + ' ' + key:<28}{found['median']:>14,.6g}   ({found['min']:,.6g} to {found['max']:,.6g})")
    for check in result["checks"]:
        sign = "<=" if check["at_most"] else ">="
        print(
            f"  {'reached' if check['reached'] else 'MISSED ':<8}{check['to']:<36}{check['median']:>12,.3g} {check['unit']}"
            f"   ({check['min']:,.3g} to {check['max']:,.3g})   target {sign} {check['target']:,g}",
            flush=True,
        )


OURS = (
    Peer("rxbus, ImmediateScheduler", "rxbus_inline", "synchronous", "all guarantees, but a slow handler delays the publisher"),
    Peer("rxbus", "rxbus", "threads", "all guarantees"),
    Peer("rxbus, coroutine handlers", "rxbus_coroutines", "event loop", "all guarantees"),
    Peer("RxPY, observe_on(pool)", "rxpy", "threads", "a failing subscriber is dead without a word; the queue has no bound"),
)
"""For this table their second name is what their contenders begin with."""


def measure_peers(rounds: int) -> list[dict[str, Any]]:
    """rxbus, plain RxPY and the other libraries that are installed: rates of one subscriber, of eight, and of a chain."""
    rows = [(peer, f"{peer.name} {peer.version}", peer.contenders) for peer in installed()]
    rows += [(peer, peer.name, tuple(f"{peer.package}_{work}" for work in WORKS)) for peer in OURS]
    results: list[dict[str, Any]] = [{"name": name, "group": peer.group, "note": peer.note} for peer, name, _ in rows]
    for number, work in enumerate(WORKS):
        figures = interleaved([contenders[number] for _, _, contenders in rows], rounds)
        for result, (_, _, contenders) in zip(results, rows, strict=True):
            result[work] = spread([one["rate"] for one in figures[contenders[number]]])
    return sorted(results, key=lambda result: (GROUPS.index(result["group"]), -result["one"]["median"]))


def show_peers(results: list[dict[str, Any]]) -> None:
    """A table, one group after the other."""
    print(f"\n{'events/s, medians':<34}{'one subscriber':>16}{'8, deliveries':>16}{'chain of three':>16}")
    for group in GROUPS:
        print(f"  {group}")
        for result in results:
            if result["group"] == group:
                print(f"    {result['name']:<30}" + "".join(f"{result[work]['median']:>16,.0f}" for work in WORKS), flush=True)


def main() -> int:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions, at least 5 for figures that mean something")
    parser.add_argument("--only", nargs="*", help="keys such as B1, or peers")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    print(f"rxbus benchmark: {machine()}, {options.rounds} rounds")
    results: list[dict[str, Any]] = []
    for row in ROWS:
        if not options.only or row.key in options.only:
            results.append(measure(row, options.rounds))
            show(results[-1])
    peers: list[dict[str, Any]] = []
    if not options.only or "peers" in options.only:
        peers = measure_peers(options.rounds)
        show_peers(peers)
    if options.json:
        found = {"machine": machine(), "rounds": options.rounds, "results": results, "peers": peers}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
