"""``python -m tests.faults``: run the fault suite, print a table, write build/faults.json."""

import argparse
import random
import sys
import time
from pathlib import Path

import msgspec

from tests.faults.suite import Outcome, quiet_clients, rows, run_row, servers

_HEAD = f"{'fault':<44} {'crash point':<20} {'events':>8} {'lost':>5} {'duplicated':>10} {'recover, s':>10}"


def main() -> int:
    """Run the rows that are asked for; 0 if nothing was lost or doubled anywhere."""
    options = _options()
    chosen = rows(options.only)
    if options.list:
        print("\n".join(f"{scenario.fault}: {point}" if point else scenario.fault for scenario, point in chosen))
        return 0
    if not chosen:
        print(f"no row contains {options.only!r}; --list shows all", file=sys.stderr)
        return 2
    seed: int = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    began = time.monotonic()
    random.Random(seed).shuffle(chosen)
    if options.one:
        chosen = list({scenario.fault: (scenario, point) for scenario, point in chosen}.values())
    print(f"seed {seed}, {options.events} events a row, {len(chosen)} rows", flush=True)
    outcomes: list[Outcome] = []
    quiet_clients()
    with servers() as on:
        print(_HEAD, flush=True)
        for scenario, point in chosen:
            # The same for a row whichever other rows are run.
            row_seed = random.Random(f"{seed} {scenario.fault} {point}").randrange(1 << 31)
            outcomes.append(run_row(on, scenario, point, row_seed, options.events))
            print(_line(outcomes[-1]), flush=True)
            for words in outcomes[-1].words:
                print(f"    {words}", flush=True)
            _write(options.json, outcomes)
    bad = [outcome for outcome in outcomes if not outcome.ok]
    skipped = [outcome for outcome in outcomes if outcome.skipped]
    print(
        f"{len(outcomes) - len(bad) - len(skipped)} rows well, {len(bad)} not, {len(skipped)} skipped;"
        f" {(time.monotonic() - began) / 60:.0f} minutes, seed {seed}"
    )
    return 1 if bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="decides kill times, order and contents; random if not given")
    parser.add_argument("--events", type=int, default=200_000, help="distinct valid events a row (default 200000)")
    parser.add_argument("--only", default="", help="only rows whose fault or crash point contains this")
    parser.add_argument("--one", action="store_true", help="of each fault one crash point, which the seed decides")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--json", type=Path, default=Path("build/faults.json"), help="where the results are written")
    return parser.parse_args()


def _line(row: Outcome) -> str:
    figures = f"{row.events:>8} {row.lost:>5} {row.duplicated:>10} {row.seconds_to_recover:>10.1f}"
    state = f"  skipped: {row.skipped}" if row.skipped else "" if row.ok else "  FAILED"
    return f"{row.fault:<44} {row.crash_point:<20} {figures}{state}  ({row.seconds:.0f} s)"


def _write(path: Path, outcomes: list[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes), indent=2))


if __name__ == "__main__":
    sys.exit(main())
