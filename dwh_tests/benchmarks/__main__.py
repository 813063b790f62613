"""`python -m dwh_tests.benchmarks [names] [--size full|toy] [--runs N] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dwh_tests.benchmarks.harness import Settings, measure
from dwh_tests.benchmarks.registry import BENCHMARKS
from dwh_tests.benchmarks.report import as_json, machine, table


def main() -> int:
    """Run what is asked for. The exit code is 1 when a contender failed, never for a ratio."""
    options = _options()
    settings = Settings(
        size=options.size,
        runs=options.runs or (3 if options.size == "full" else 1),
        only=tuple(options.only or ()),
        profile=options.profile,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    facts = machine()
    print(", ".join(f"{key} {value}" for key, value in facts.items() if key != "versions"))
    print(", ".join(f"{name} {found or 'missing'}" for name, found in facts["versions"].items()), flush=True)
    outcomes = []
    for name in options.names or BENCHMARKS:
        settings.say(name)
        outcomes.append(measure(BENCHMARKS[name], settings))
        print("\n" + table(outcomes[-1]), flush=True)
        if options.json:
            # After each, so that an interrupted run has something to show.
            options.json.write_text(json.dumps(as_json(outcomes, facts), indent=2) + "\n")
    return int(any(row.status == "failed" for outcome in outcomes for row in outcome.rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dwh_tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"which: {', '.join(BENCHMARKS)}; default: all"
    )
    parser.add_argument("--size", choices=["full", "toy"], default="full")
    parser.add_argument("--runs", type=int, help="rounds; 3 by default, 1 at toy size")
    parser.add_argument("--only", nargs="+", metavar="contender", help="measure these contenders only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep everything that was seen")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="profile each run into this folder")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.profile:
        options.profile.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
