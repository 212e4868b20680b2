#!/usr/bin/env python3
"""Training speed of manygate and of PyTorch, measured in turn on this machine.

    cargo build --release
    python benches/against/compare.py --model mmoe --pairs 5 --python path/to/venv/bin/python

Each pair is one run of manygate and, right after it, one of PyTorch: a machine's speed drifts, and the two runs of a
pair meet nearly the same. Prints each pair's ratio (above 1: manygate is faster), their median and range.

Exit status: 0 when manygate is at least as fast in the median, 1 when it is slower, 2 when nothing could be measured.
"""
import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MANYGATE = HERE.parents[1] / "target" / "release" / "manygate"
# What both sides must have in common, or they did not do the same work.
SAME = ("model", "batch", "threads", "precision", "dense_parameters")
# Cores that other processes may use before a figure is doubtful: threads that meet at barriers wait for the slowest.
QUIET = 0.15
# Variables that change how fast PyTorch runs, which a result must name.
TUNING = ("OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "TORCH_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


class Failure(Exception):
    """Nothing could be measured; the message says why."""


# Running one side


def cores_busy():
    """Core-seconds that the whole machine has worked since it started; None where the system does not tell."""
    try:
        with open("/proc/stat") as stat:
            user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command, environment, time_limit):
    """The JSON object that a command prints, with `others_cores`: cores that other processes kept busy meanwhile."""
    start, busy, own = time.monotonic(), cores_busy(), children_seconds()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=time_limit)
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"not done after {time_limit:.0f} s: {' '.join(command)}") from None
    wall = time.monotonic() - start
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}\nexited with {done.returncode}:\n{done.stderr.strip()}")
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise Failure(f"{' '.join(command)}\nprinted no JSON:\n{done.stdout.strip()[:500]}") from None
    now = cores_busy()
    others = None if busy is None or now is None else (now - busy - (children_seconds() - own)) / wall
    return result | {"others_cores": others if others is None else max(others, 0.0)}


def preloaded(libraries):
    """The environment of a command under which `libraries` are put."""
    environment = dict(os.environ)
    if libraries:
        inherited = [os.environ["LD_PRELOAD"]] if os.environ.get("LD_PRELOAD") else []
        environment["LD_PRELOAD"] = ":".join(libraries + inherited)
    return environment


def measure_pairs(args):
    """[(manygate, PyTorch)], each what its command printed."""
    common = ["--model", args.model, "--batch", args.batch, "--threads", args.threads, "--seconds", args.seconds]
    common = [str(word) for word in common]
    ours = [args.manygate, "bench", "train", *common, "--json"]
    theirs = [args.python, str(HERE / "pytorch.py"), *common, "--experts", args.experts]
    environment = preloaded(args.preload)
    time_limit = 60 + 30 * args.seconds
    pairs = []
    for i in range(args.pairs):
        pair = run(ours, dict(os.environ), time_limit), run(theirs, environment, time_limit)
        for key in SAME:
            if pair[0][key] != pair[1][key]:
                raise Failure(f"not the same work: {key} is {pair[0][key]} in manygate, {pair[1][key]} in PyTorch")
        pairs.append(pair)
        print(f"pair {i + 1} of {args.pairs}: {ratio(pair):.2f}", file=sys.stderr)
    return pairs


# The results


def ratio(pair):
    ours, theirs = pair
    return ours["samples_per_second"] / theirs["samples_per_second"]


def processor():
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def version_of(manygate):
    done = subprocess.run([manygate, "--version"], capture_output=True, text=True)
    return done.stdout.strip() or "manygate, version unknown"


def summary(args, pairs):
    ratios = [ratio(pair) for pair in pairs]
    median = lambda side: statistics.median(pair[side]["samples_per_second"] for pair in pairs)
    others = [side["others_cores"] for pair in pairs for side in pair if side["others_cores"] is not None]
    return {
        "version": 1,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "engines": {"manygate": version_of(args.manygate), "pytorch": pairs[0][1]["engine"]},
        "isa": {"manygate": pairs[0][0]["isa"], "pytorch": pairs[0][1]["isa"]},
        "model": args.model,
        "batch": args.batch,
        "threads": args.threads,
        "seconds": args.seconds,
        "experts": args.experts,
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(TUNING)},
        "preload": [Path(library).name for library in args.preload],
        "samples_per_second": {"manygate": median(0), "pytorch": median(1)},
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios), "each": ratios},
        "most_others_cores": max(others, default=None),
        "pairs": [{"manygate": ours, "pytorch": theirs} for ours, theirs in pairs],
    }


def table(s):
    """The summary in Markdown, ready to be kept."""
    machine, engines, isa, ratios = s["machine"], s["engines"], s["isa"], s["ratio"]
    preload = " with " + ", ".join(s["preload"]) if s["preload"] else ""
    lines = [
        f"{s['model']}, batch {s['batch']}, {s['threads']} threads, f32, {s['seconds']:g} s a run, {s['date']}",
        "",
        f"- machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}",
        f"- {engines['manygate']} ({isa['manygate']})",
        f"- {engines['pytorch']} ({isa['pytorch']}), experts {s['experts']}{preload}",
        *(f"- {name}={value}" for name, value in s["environment"].items()),
        "",
        "| pair | manygate, samples/s | PyTorch, samples/s | ratio | step, ms | peak memory, MiB | others' cores |",
        "|-----:|--------------------:|-------------------:|------:|---------:|-----------------:|--------------:|",
    ]
    for i, (pair, each) in enumerate(zip(s["pairs"], ratios["each"])):
        a, b = pair["manygate"], pair["pytorch"]
        both = lambda form, key: " / ".join("-" if side[key] is None else form(side[key]) for side in (a, b))
        cells = [
            f"{i + 1:4}",
            f"{a['samples_per_second']:19.0f}",
            f"{b['samples_per_second']:18.0f}",
            f"{each:5.2f}",
            both("{:.0f}".format, "step_ms"),
            both(lambda size: f"{size / 2**20:.0f}", "peak_rss_bytes"),
            both("{:.2f}".format, "others_cores"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    speed = s["samples_per_second"]
    lines += [
        "",
        f"Median ratio {ratios['median']:.2f} (from {ratios['least']:.2f} to {ratios['greatest']:.2f}); "
        f"medians {speed['manygate']:.0f} and {speed['pytorch']:.0f} samples/s.",
    ]
    if (s["most_others_cores"] or 0) > QUIET:
        lines.append(
            f"Not quiet: other processes used up to {s['most_others_cores']:.2f} cores, so this is no figure to keep."
        )
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mmoe", help="a model that pytorch.py knows (default: mmoe)")
    parser.add_argument("--batch", type=int, default=4096, help="rows a step (default: 4096)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one for each core")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds to measure in each run (default: 5)")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side (default: 5)")
    parser.add_argument("--manygate", default=str(MANYGATE), help="the command (default: target/release/manygate)")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch and numpy (default: this one)")
    parser.add_argument("--experts", choices=["separate", "together"], default="separate", help="as in pytorch.py")
    parser.add_argument("--preload", action="append", default=[], metavar="LIBRARY",
                        help="for PyTorch alone, such as libtcmalloc_minimal.so.4; may be given again")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, every run included")
    args = parser.parse_args()
    if min(args.batch, args.threads, args.pairs) < 1 or not 0 < args.seconds < math.inf:
        parser.error("--batch, --threads, --pairs and --seconds must be above 0")
    if not Path(args.manygate).is_file():
        parser.error(f"{args.manygate} does not exist; build it with `cargo build --release` or name it: --manygate")
    for library in args.preload:
        if not Path(library).is_file():
            parser.error(f"--preload: {library} does not exist")
    return args


def main():
    args = arguments()
    try:
        result = summary(args, measure_pairs(args))
    except Failure as failure:
        print(f"compare.py: {failure}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2) if args.json else table(result))
    return 0 if result["ratio"]["median"] >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
