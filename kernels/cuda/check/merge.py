#!/usr/bin/env python3
"""One result of what `run.sh` left in a folder: engine and PyTorch side by side, and beside what the machine can do.

    python3 merge.py out > results/gpu/2026-12-01-h200.json

Reads, where they are there: `device.csv` (of nvidia-smi), `built-from` (the commit), `parts.tsv` (name, exit status,
seconds and last line of each part), `bench.json` (`{"ceilings": {}, "rows": []}` of `manygate bench kernels`) and
`torch.json` (of torch_reference.py).

A row has a kernel, its shape and precision, ms (median), relative_error, bytes and flops (or gbps and tflops, which are
made of each other), and here also: what it is bound by, the share of that ceiling it reaches, PyTorch's fastest variant
of the same kernel, shape and precision, its ms, and their ratio, above 1 where the engine is faster.
"""
import csv
import datetime
import json
import sys
from pathlib import Path


def rounded(value):
    """Four digits are more than a measurement has."""
    return None if value is None else float(f"{value:.4g}")


def is_same_workload(ours, theirs):
    if ours["kernel"] != theirs["kernel"] or ours.get("precision", "f32") != theirs.get("precision", "f32"):
        return False
    a, b = ours.get("shape", {}), theirs.get("shape", {})
    common = a.keys() & b.keys()
    return a == b or bool(common) and all(a[key] == b[key] for key in common)


def least_milliseconds(row, ceilings):
    """(what bounds a row, the least time): traffic at the speed of a copy, arithmetic at that of products."""
    precision = row.get("precision", "f32")
    amounts = {"copy_gbps": ("bytes", "gbps", 1e6), f"{precision}_tflops": ("flops", "tflops", 1e9)}
    least = {}
    for ceiling, (total, rate, unit) in amounts.items():
        amount = row[total] if row.get(total) is not None else (row.get(rate) or 0) * row["ms"] * unit
        if ceilings.get(ceiling):
            least[ceiling] = amount / ceilings[ceiling] / unit
    return max(least.items(), key=lambda item: item[1], default=(None, None))


def merged_row(row, torch_rows, ceilings):
    ms = row["ms"]
    for total, rate, unit in (("bytes", "gbps", 1e6), ("flops", "tflops", 1e9)):
        if row.get(rate) is None and row.get(total) is not None:
            row = row | {rate: row[total] / ms / unit}
    bound, least = least_milliseconds(row, ceilings)
    candidates = [other for other in torch_rows if is_same_workload(row, other)]
    best = min(candidates, key=lambda other: other["ms"], default={})
    return {
        "kernel": row["kernel"],
        "shape": row.get("shape", {}),
        "precision": row.get("precision", "f32"),
        "relative_error": row.get("relative_error"),
        "ms": rounded(ms),
        "gbps": rounded(row.get("gbps")),
        "tflops": rounded(row.get("tflops")),
        "bound": bound,
        "share_of_ceiling": rounded(least and least / ms),
        "torch_ms": rounded(best.get("ms")),
        "torch_variant": best.get("variant"),
        "ratio_to_torch": rounded(best["ms"] / ms if best else None),
    }


def read_json(path):
    """What a file says; nothing of one that is not there or was cut off."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def read_rows(path, separator, names):
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [dict(zip(names, map(str.strip, row))) for row in csv.reader(file, delimiter=separator) if row]


def merge(folder):
    bench, torch = read_json(folder / "bench.json"), read_json(folder / "torch.json")
    if isinstance(bench, list):
        bench = {"rows": bench}
    # The higher of both: a ceiling is what the machine has been seen to do.
    ceilings = {}
    for side in (bench, torch):
        for name, value in (side.get("ceilings") or {}).items():
            ceilings[name] = max(value, ceilings.get(name, 0))
    torch_rows = torch.get("rows", [])
    devices = read_rows(folder / "device.csv", ",", ["name", "driver", "memory"])
    parts = read_rows(folder / "parts.tsv", "\t", ["name", "status", "seconds", "last_line"])
    built_from = folder / "built-from"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": built_from.read_text().strip() if built_from.exists() else None,
        "device": devices[0] if devices else None,
        "parts": [part | {"status": int(part["status"]), "seconds": int(part["seconds"])} for part in parts],
        "ceilings": {name: rounded(value) for name, value in sorted(ceilings.items())},
        "rows": [merged_row(row, torch_rows, ceilings) for row in bench.get("rows", [])],
        # Cases of ours without a row, and why.
        "left_out": bench.get("left_out", []),
        "torch": {key: torch.get(key) for key in ("torch", "cuda", "device", "failed")} if torch else None,
        # What only PyTorch was timed on, and its slower variants.
        "torch_rows": [row | {"ms": rounded(row["ms"])} for row in torch_rows],
    }


def main():
    if len(sys.argv) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    print(json.dumps(merge(Path(sys.argv[1])), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
