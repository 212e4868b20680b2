#!/usr/bin/env python3
"""The workload of `manygate bench train` in PyTorch, for a comparison on one machine.

    python pytorch.py --model mmoe --batch 4096 --threads 2 --seconds 5

Prints the keys of `manygate bench train --json`, those that only the other side measures as null, and a few of its
own. This is the strongest form that plain PyTorch gives: one table for all fields with sparse gradients and SparseAdam,
and the fused Adam for dense parameters. Networks that stand side by side, as experts do, are computed one after the
other or, with `--experts together`, at once. Single precision throughout.
"""
import argparse
import json
import os
import resource
import statistics
import sys
import time

import numpy as np
import torch

from layers import Separate, Together
from models import MODELS, Ranker
from workload import draw_batches

LEARNING_RATE = 1e-3
MODEL_SEED = 7
WARM_UP, FEWEST_STEPS = 4, 5


class Learner:
    """A model, its table and their optimizers; both optimizers leave the rows alone that a batch does not look up."""

    def __init__(self, model, experts):
        torch.manual_seed(MODEL_SEED)
        self.ranker = Ranker(model, {"together": Together, "separate": Separate}[experts])
        self.optimizers = [
            torch.optim.Adam(self.ranker.net.parameters(), lr=LEARNING_RATE, fused=True),
            torch.optim.SparseAdam(self.ranker.table.parameters(), lr=LEARNING_RATE),
        ]

    def step(self, batch):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self.ranker.loss(batch)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss


def measure(learner, batches, seconds):
    """Milliseconds of each step, sorted."""
    taken, times, begin = 0, [], None
    while len(times) < FEWEST_STEPS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        loss = learner.step(batches[taken % len(batches)])
        end, taken = time.perf_counter(), taken + 1
        if taken == WARM_UP:
            begin = end
        elif taken > WARM_UP:
            times.append((end - start) * 1e3)
    if not torch.isfinite(loss):
        sys.exit("pytorch.py: the loss is not finite")
    return sorted(times)


def quantile(times, share):
    return times[round((len(times) - 1) * share)]


def report(args, learner, batches, times):
    step_ms = quantile(times, 0.5)
    distinct = sorted(len(np.unique(batch["ids"].numpy())) for batch in batches)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "version": 1,
        "model": args.model,
        "batch": args.batch,
        "threads": torch.get_num_threads(),
        "samples_per_second": args.batch / step_ms * 1e3,
        "step_ms": step_ms,
        "step_ms_p10": quantile(times, 0.1),
        "step_ms_p90": quantile(times, 0.9),
        "floor_ms": None,
        "floor_parts_ms": None,
        "steps": len(times),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "isa": torch.backends.cpu.get_cpu_capability().lower(),
        "precision": "f32",
        "dense_parameters": sum(p.numel() for p in learner.ranker.net.parameters()),
        "table_values": learner.ranker.table.weight.numel(),
        "distinct_rows": statistics.median_high(distinct),
        "workspace_bytes": None,
        "machine": None,
        "experts": args.experts,
        "engine": f"PyTorch {torch.__version__}",
    }


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="mmoe")
    parser.add_argument("--batch", type=int, default=4096, help="rows a step")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one for each core")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds to measure")
    parser.add_argument("--experts", choices=["separate", "together"], default="separate")
    args = parser.parse_args()
    if args.batch < 1 or args.threads < 1 or not 0 < args.seconds < float("inf"):
        parser.error("--batch, --threads and --seconds must be above 0")
    return args


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    batches = draw_batches(args.batch)
    learner = Learner(args.model, args.experts)
    times = measure(learner, batches, args.seconds)
    print(json.dumps(report(args, learner, batches, times), indent=2))


if __name__ == "__main__":
    main()
