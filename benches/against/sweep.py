#!/usr/bin/env python3
"""The speed of every architecture on this machine, beside PyTorch and ONNX Runtime where these have it.

    cargo build --release
    python benches/against/sweep.py --python path/to/venv/bin/python --out results/cpu/machine.json

For each architecture: steps of training at 512 and 4,096 rows with all cores, and predictions of 1, 16, 256 and 4,096
rows with one. Each is run once, the engines in turn; both forms of networks side by side are asked of PyTorch, and the
better one counts. What `--out` already holds is not measured again, unless the machine was not quiet.

    python benches/against/sweep.py --table results/cpu/machine.json

prints a record as Markdown.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from compare import HERE, MANYGATE, QUIET, Failure, preloaded, processor, run

TRAIN_BATCHES = [512, 4096]
INFER_BATCHES = [1, 16, 256, 4096]
FORMS = ["separate", "together"]
# Models that the other engines have.
PEERS = ["shared_bottom", "mmoe", "ple", "esmm", "dcn_v2", "star", "pepnet", "hinet", "adasparse", "m2m", "dffm"]


# Measuring


class Sweep:
    def __init__(self, args):
        self.args = args
        self.path = Path(args.out)
        self.record = json.loads(self.path.read_text()) if self.path.exists() else {"version": 1, "runs": {}}

    def measure(self, key, command, environment):
        """Runs `command`, which prints a JSON object, unless the record has a quiet run called `key`."""
        runs = self.record["runs"]
        if key in runs and (runs[key].get("others_cores") or 0) <= QUIET:
            return
        try:
            result = run([str(word) for word in command], environment, 60 + 60 * self.args.seconds)
        except Failure as failure:
            print(f"{key}: {failure}", file=sys.stderr)
            return
        if key in runs and (runs[key]["others_cores"] or 0) < (result["others_cores"] or 0):
            return
        runs[key] = result | {"date": time.strftime("%Y-%m-%d")}
        self.path.write_text(json.dumps(self.record, indent=1, sort_keys=True) + "\n")
        print(f"{key}: {self.brief(result)}", file=sys.stderr)

    @staticmethod
    def brief(result):
        speed = result.get("samples_per_second")
        found = f"{speed:.0f} samples/s" if speed else f"{len(result['latencies'])} latencies"
        return f"{found}, others' cores {result['others_cores'] or 0:.2f}"

    def training(self, name):
        args = self.args
        for batch in TRAIN_BATCHES:
            common = ["--model", name, "--batch", batch, "--threads", os.cpu_count(), "--seconds", args.seconds]
            ours = [args.manygate, "bench", "train", *common, "--json"]
            self.measure(f"train/{name}/{batch}/manygate", ours, dict(os.environ))
            for form in FORMS if name in PEERS else []:
                theirs = [args.python, HERE / "pytorch.py", *common, "--experts", form]
                self.measure(f"train/{name}/{batch}/PyTorch, {form}", theirs, preloaded(args.preload))

    def predictions(self, name):
        args, batches = self.args, ",".join(map(str, INFER_BATCHES))
        common = ["--model", name, "--batch", batches, "--threads", 1, "--seconds", args.seconds]
        ours = [args.manygate, "bench", "infer", *common, "--json"]
        self.measure(f"infer/{name}/manygate", ours, dict(os.environ))
        if name in PEERS:
            theirs = [args.python, HERE / "onnx_runtime.py", *common]
            self.measure(f"infer/{name}/others", theirs, preloaded(args.preload))

    def all(self):
        self.record["machine"] = {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "preload": [Path(library).name for library in self.args.preload],
        }
        # Those that have something beside them first: a sweep that is ended early keeps what it has.
        names = sorted(self.args.models or architectures(self.args.manygate), key=lambda name: name not in PEERS)
        for part in self.training, self.predictions:
            for name in names:
                part(name)


def architectures(manygate):
    done = subprocess.run([manygate, "models", "--json"], capture_output=True, text=True, check=True)
    return [model["name"] for model in json.loads(done.stdout)["models"]]


# The tables


def number(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def marked(text, *runs):
    """The text, with a sign behind where one of its runs was not quiet."""
    return text + "~" * any((r.get("others_cores") or 0) > QUIET for r in runs)


def table(heads, rows):
    line = lambda cells: f"| {' | '.join(cells)} |"
    return [line(heads), line(["---"] + ["--:"] * (len(heads) - 1)), *(line(row) for row in rows)]


def training_cells(runs, name, batch):
    """Samples a second, times the floor, PyTorch's samples a second, ratio."""
    ours = runs.get(f"train/{name}/{batch}/manygate")
    if ours is None:
        return [""] * 4
    theirs = [run for form in FORMS if (run := runs.get(f"train/{name}/{batch}/PyTorch, {form}"))]
    best = max(theirs, key=lambda run: run["samples_per_second"], default=None)
    speed = ours["samples_per_second"]
    cells = [marked(number(speed), ours), number(ours["step_ms"] / ours["floor_ms"], 2)]
    if best is None:
        return [*cells, "", ""]
    ratio = speed / best["samples_per_second"]
    return [*cells, marked(number(best["samples_per_second"]), *theirs), f"**{number(ratio, 2)}**"]


def inference_cells(runs, name, batch):
    """p50, p99, the fastest other engine's p50, ratio."""
    ours, theirs = runs.get(f"infer/{name}/manygate"), runs.get(f"infer/{name}/others")
    if ours is None:
        return [""] * 4
    mine = next(latency for latency in ours["latencies"] if latency["batch"] == batch)
    cells = [marked(number(mine["p50_us"]), ours), number(mine["p99_us"])]
    if theirs is None:
        return [*cells, "", ""]
    best = min((each for each in theirs["latencies"] if each["batch"] == batch), key=lambda each: each["p50_us"])
    sign = "ᴾ" if best["engine"].startswith("PyTorch") else ""
    ratio = best["p50_us"] / mine["p50_us"]
    return [*cells, marked(number(best["p50_us"]) + sign, theirs), f"**{number(ratio, 2)}**"]


def markdown(record):
    runs, machine = record["runs"], record["machine"]
    names = lambda part: sorted({key.split("/")[1] for key in runs if key.startswith(part)})
    dates = sorted({run["date"] for run in runs.values()})
    isa = sorted({run["isa"] for run in runs.values()})
    engines = sorted({e for run in runs.values() for e in run.get("engines", [run.get("engine")]) if e})
    preload = " with " + ", ".join(machine["preload"]) if machine["preload"] else ""
    rows = lambda part, cells, batches: [
        [name, *(cell for batch in batches for cell in cells(runs, name, batch))] for name in names(part)
    ]
    heads = lambda columns, batches: ["model", *(f"{batch:,}: {column}" for batch in batches for column in columns)]
    return "\n".join([
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(isa)}), {machine['system']}; "
        f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; {', '.join(engines)}{preload}.",
        "",
        "### Training",
        "",
        f"Samples a second by batch, {machine['cores']} threads, f32; times the floor that the machine sets; PyTorch's "
        "better form; the ratio, above 1 where manygate is faster.",
        "",
        *table(heads(["samples/s", "× floor", "PyTorch", "ratio"], TRAIN_BATCHES),
               rows("train/", training_cells, TRAIN_BATCHES)),
        "",
        "### Predictions",
        "",
        "Microseconds by rows, one thread, f32; the fastest of ONNX Runtime and PyTorch (ᴾ), in their better form; "
        "the ratio, above 1 where manygate is faster. Of fewer than 100 predictions p99 is the slowest but few.",
        "",
        *table(heads(["p50", "p99", "others' p50", "ratio"], INFER_BATCHES),
               rows("infer/", inference_cells, INFER_BATCHES)),
        "",
        "`~`: other processes were busy meanwhile; no figure to keep.",
    ])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", help="the record, as JSON, which is added to")
    what.add_argument("--table", metavar="RECORD", help="print a record as Markdown")
    parser.add_argument("--models", nargs="+", help="architectures (default: all)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds to measure in each run (default: 3)")
    parser.add_argument("--manygate", default=str(MANYGATE), help="the command (default: target/release/manygate)")
    parser.add_argument("--python", default=sys.executable, help="a Python with the other engines (default: this one)")
    parser.add_argument("--preload", action="append", default=[], metavar="LIBRARY", help="as in compare.py")
    return parser.parse_args()


def main():
    args = arguments()
    if args.table:
        print(markdown(json.loads(Path(args.table).read_text())))
    else:
        Sweep(args).all()


if __name__ == "__main__":
    main()
