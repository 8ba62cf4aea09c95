"""``python -m tests.bench [--rounds N] [--only B1 B2] [--json FILE]``: the benchmark, side by side with its baselines.

Each contender runs in a process of its own, all of them once a round, so that a slow moment of the machine hits them alike.
What counts are the ratios within a round; their minimum, median and maximum are printed beside the rates.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Work:
    """One row of the benchmark."""

    key: str
    title: str
    contender: str
    events: int
    baselines: tuple[tuple[str, str, float], ...]
    """Name, what it is, and the ratio of rates to reach."""


WORKS = (
    Work(
        "B1",
        "one subscriber, pool, end to end",
        "rxbus one",
        80_000,
        (("rxpy one", "Subject + observe_on(pool)", 12.0), ("hop", "SimpleQueue hop", 0.12)),
    ),
    Work(
        "B2",
        "one publisher, 8 subscribers, deliveries",
        "rxbus eight",
        80_000,
        (("rxpy eight", "Subject + observe_on(pool)", 40.0), ("hop", "SimpleQueue hop", 0.25)),
    ),
    Work(
        "B3",
        "chain of three topics",
        "rxbus chain",
        24_000,
        (("rxpy chain", "3 Subjects + observe_on(pool)", 15.0), ("hop", "SimpleQueue hop", 0.045)),
    ),
)
NEIGHBOUR = Work("B5", "publish cost beside a neighbour that sleeps 1 ms an event", "rxbus neighbour", 20_000, ())
NEIGHBOUR_TARGET = 1.1


def run(name: str, events: int) -> float:
    """The seconds that a contender took, in a fresh process; raises if it didn't handle every event."""
    command = [sys.executable, "-m", "tests.bench.contenders", name, str(events)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"contender {name!r} failed:\n{done.stderr}")
    result = json.loads(done.stdout)
    if result["handled"] != events:
        raise RuntimeError(f"contender {name!r} handled {result['handled']} of {events} events")
    return float(result["seconds"])


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def measure(work: Work, rounds: int) -> dict[str, Any]:
    """All contenders of one work, interleaved."""
    names = [work.contender, *(name for name, _, _ in work.baselines)]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = names[number % len(names) :] + names[: number % len(names)]
        for name in turn:
            rates[name].append(work.events / run(name, work.events))
    ratios = {
        name: {
            "baseline": title,
            "target": target,
            **spread([ours / theirs for ours, theirs in zip(rates[work.contender], rates[name], strict=True)]),
        }
        for name, title, target in work.baselines
    }
    return {"work": asdict(work), "rates": {name: spread(values) for name, values in rates.items()}, "ratios": ratios}


def measure_neighbour(rounds: int) -> dict[str, Any]:
    """B5, whose contender measures both sides in one process."""
    ratios = [run(NEIGHBOUR.contender, NEIGHBOUR.events) for _ in range(rounds)]
    ratio = {"baseline": "no second subscription", "target": NEIGHBOUR_TARGET, **spread(ratios)}
    return {"work": asdict(NEIGHBOUR), "rates": {}, "ratios": {"alone": ratio}}


def machine() -> str:
    """What it ran on."""
    return f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def print_result(result: dict[str, Any]) -> None:
    """One work as a few lines of a table."""
    work = result["work"]
    print(f"\n{work['key']}  {work['title']}  ({work['events']:,} events)")
    for name, rate in result["rates"].items():
        print(f"    {name:<14}{rate['median']:>12,.0f}/s   ({rate['min']:,.0f} to {rate['max']:,.0f})")
    for ratio in result["ratios"].values():
        cost = work["key"] == "B5"
        reached = ratio["median"] <= ratio["target"] if cost else ratio["median"] >= ratio["target"]
        print(
            f"    to {ratio['baseline']:<32}{ratio['median']:>8.3g} times   ({ratio['min']:.3g} to {ratio['max']:.3g})"
            f"   target {'<=' if cost else '>='} {ratio['target']:g}: {'reached' if reached else 'MISSED'}"
        )


def main() -> int:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions, at least 5 for figures that mean something")
    parser.add_argument("--only", nargs="*", help="keys such as B1")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    print(f"rxbus benchmark: {machine()}, {options.rounds} rounds")
    results: list[dict[str, Any]] = []
    for work in (*WORKS, NEIGHBOUR):
        if options.only and work.key not in options.only:
            continue
        results.append(measure_neighbour(options.rounds) if work is NEIGHBOUR else measure(work, options.rounds))
        print_result(results[-1])
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
