#!/usr/bin/env python3
"""The README's table of what a GPU showed, from a result of `run.sh`.

    python3 table.py ../../../results/gpu/2026-12-01-h200.json

Of each kernel it has the shape that took longest, in bf16 where the kernel was measured in that.
"""
import json
import sys
from pathlib import Path

HEAD = ["kernel", "shape", "in", "ms", "GB/s", "TFLOP/s", "of the floor", "PyTorch, ms", "ratio"]


def shown_rows(rows):
    """A row of each kernel, in the order in which they were measured."""
    shown = {}
    for row in rows:
        other = shown.get(row["kernel"])
        if other is None or rank(row) > rank(other):
            shown[row["kernel"]] = row
    return list(shown.values())


def rank(row):
    return row["precision"] == "bf16", row["ms"]


def cells(row):
    shape = ", ".join(f"{name} {size:,}" for name, size in row["shape"].items())
    torch = f"{number(row['torch_ms'])} ({row['torch_variant']})" if row["torch_ms"] else ""
    share = f"{100 * row['share_of_ceiling']:.0f} %" if row["share_of_ceiling"] else ""
    rate = number(row["tflops"]) if row["tflops"] else ""
    ratio = number(row["ratio_to_torch"]) if row["ratio_to_torch"] else ""
    name, ms, gbps = f"`{row['kernel']}`", number(row["ms"]), number(row["gbps"])
    return [name, shape, row["precision"], ms, gbps, rate, share, torch, ratio]


def number(value):
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(result):
    lines = [HEAD, ["---"] * len(HEAD), *map(cells, shown_rows(result["rows"]))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main():
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    print(table(json.loads(Path(sys.argv[1]).read_text())), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
