"""Read a study's table (``salt-lab table STUDY --format csv``) on standard input and fail unless it is whole and good enough.

    salt-lab table experiments/quickstart.yaml --format csv | python benchmarks/check_demo.py --rows 6 --least-ap 20

Exit code 0 where there are ``--rows`` cells (six: three hosts, with and without SALT), every seed that was asked for is done, and no AP
is below ``--least-ap`` percent; else 1, with a line for each thing that is wrong.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterable, Mapping

#: Columns of the table that are read here.
NEEDED = ("cell_key", "state", "seeds_done", "seeds_asked", "AP")


def problems(rows: Iterable[Mapping[str, str]], number: int, least_ap: float) -> list[str]:
    """Everything that is wrong with the table, a sentence each; empty where it is whole.

    Args:
        rows: the table, a mapping of column to text for each cell.
        number: how many cells there must be.
        least_ap: lowest AP that passes, percent.
    """
    rows = list(rows)
    found = [] if len(rows) == number else [f"the table has {len(rows)} cells, not {number}"]
    for row in rows:
        name = ", ".join(f"{key}={value}" for key, value in list(row.items())[: list(row).index("cell_key")])
        if row["seeds_done"] != row["seeds_asked"]:
            found.append(f"{name}: {row['seeds_done']} of {row['seeds_asked']} trials done ({row['state']})")
        elif not _number(row["AP"]) >= least_ap:
            found.append(f"{name}: AP {row['AP'] or 'missing'}, wanted at least {least_ap:g}")
    return found


def _number(text: str) -> float:
    return float(text) if text else math.nan


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fail unless the table on standard input is whole and every AP high enough.")
    parser.add_argument("--rows", type=int, required=True, help="cells that the table must have")
    parser.add_argument("--least-ap", type=float, required=True, help="lowest AP that passes, percent")
    wanted = parser.parse_args()
    reader = csv.DictReader(sys.stdin)
    if missing := [name for name in NEEDED if name not in (reader.fieldnames or ())]:
        print(f"check_demo: no column {', '.join(missing)}: is this `salt-lab table ... --format csv`?", file=sys.stderr)
        return 1
    rows = list(reader)
    found = problems(rows, wanted.rows, wanted.least_ap)
    for text in found:
        print(f"check_demo: {text}", file=sys.stderr)
    if not found:
        print(f"check_demo: {len(rows)} cells, all done, lowest AP {min(_number(row['AP']) for row in rows):.1f}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
