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
from torch import nn
from torch.nn import functional as F

FIELDS, DIM, DENSE = 26, 16, 13
WIDTH = FIELDS * DIM + DENSE
VOCABULARIES = [round(10 * 1e5 ** (field / (FIELDS - 1))) for field in range(FIELDS)]
SCENARIOS = [0.4, 0.25, 0.2, 0.1, 0.05]
RATES = [0.3, 0.1, 0.05]
TASKS = len(RATES)
ZIPF_EXPONENT = 1.05
LEARNING_RATE = 1e-3
TOTAL_ROWS = 65_536
DATA_SEED, MODEL_SEED = 2024, 7
WARM_UP, FEWEST_STEPS = 4, 5


# The data


class Zipf:
    """Zipf's law over the values of a vocabulary, scattered by an affine permutation: encoders number values as they
    meet them, so popular rows are not neighbours."""

    def __init__(self, values):
        self.sums = np.cumsum(np.arange(1, values + 1, dtype=np.float64) ** -ZIPF_EXPONENT)
        self.sums /= self.sums[-1]
        # About the golden ratio, and without a common divisor, so that no two ranks meet.
        self.factor = max(1, int(values * 0.6180339887)) | 1
        while np.gcd(self.factor, values) != 1:
            self.factor += 2

    def draw(self, rng, rows):
        ranks = np.searchsorted(self.sums, rng.random(rows), side="right").clip(0, len(self.sums) - 1)
        return (ranks * self.factor + 7) % len(self.sums)


def draw_batches(rows):
    """4 to 48 different batches of `rows` rows: ids [rows, FIELDS] as rows of the one table, dense [rows, DENSE],
    scenario [rows], labels [rows, TASKS]."""
    count = min(max(TOTAL_ROWS // rows, 4), 48)
    total, rng = count * rows, np.random.default_rng(DATA_SEED)
    ids = np.empty((total, FIELDS), np.int64)
    start = 0
    for field, values in enumerate(VOCABULARIES):
        ids[:, field] = start + Zipf(values).draw(rng, total)
        start += values
    labels = (rng.random((total, TASKS)) < RATES).astype(np.float32)
    labels[:, 1] *= labels[:, 0]
    columns = {
        "ids": ids,
        "dense": rng.standard_normal((total, DENSE), dtype=np.float32),
        "scenario": rng.choice(len(SCENARIOS), total, p=SCENARIOS),
        "labels": labels,
    }
    cut = lambda part: {name: torch.from_numpy(column[part].copy()) for name, column in columns.items()}
    return [cut(slice(i * rows, (i + 1) * rows)) for i in range(count)]


# The layers


def perceptron(width, units):
    layers = []
    for out in units:
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    return nn.Sequential(*layers)


class Separate(nn.Module):
    """`n` multilayer perceptrons, one after the other: x [B, width] for all of them, or [n, B, width] one each, to
    [n, B, units[-1]]."""

    def __init__(self, n, width, units, shared_input):
        super().__init__()
        self.shared_input = shared_input
        self.each = nn.ModuleList(perceptron(width, units) for _ in range(n))

    def forward(self, x):
        inputs = [x] * len(self.each) if self.shared_input else x.unbind(0)
        return torch.stack([f(x) for f, x in zip(self.each, inputs)])


class Together(nn.Module):
    """As [`Separate`], computed at once: a first layer with a shared input is one wide product, others are batched."""

    def __init__(self, n, width, units, shared_input):
        super().__init__()
        self.n, self.first = n, None
        if shared_input:
            self.first = nn.Linear(width, n * units[0])
            width, units = units[0], units[1:]
        widths = [width, *units]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(n, a, b) * (2 / a) ** 0.5) for a, b in zip(widths, widths[1:])
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n, 1, b)) for b in units)

    def forward(self, x):
        if self.first is not None:
            x = F.relu(self.first(x)).view(len(x), self.n, -1).transpose(0, 1)
        for weight, bias in zip(self.weights, self.biases):
            x = F.relu(torch.baddbmm(bias, x, weight))
        return x


class Towers(nn.Module):
    """A tower a task and its logit: x as for `side_by_side`, to [B, TASKS]."""

    def __init__(self, side_by_side, width, units, shared_input):
        super().__init__()
        self.hidden = side_by_side(TASKS, width, units, shared_input)
        self.weight = nn.Parameter(torch.randn(TASKS, units[-1], 1) * units[-1] ** -0.5)
        self.bias = nn.Parameter(torch.zeros(TASKS, 1, 1))

    def forward(self, x):
        return torch.baddbmm(self.bias, self.hidden(x), self.weight).squeeze(2).t()


# The models. Each takes x [B, WIDTH] (the fields' rows, then the numbers) and scenario [B], and returns logits
# [B, TASKS]; `side_by_side` is Separate or Together. A further model is a class here and an entry in MODELS.


class SharedBottom(nn.Module):
    def __init__(self, side_by_side):
        super().__init__()
        self.bottom = perceptron(WIDTH, [512, 256])
        self.towers = Towers(side_by_side, 256, [128, 64], shared_input=True)

    def forward(self, x, scenario):
        return self.towers(self.bottom(x))


class Mmoe(nn.Module):
    EXPERTS = 8

    def __init__(self, side_by_side):
        super().__init__()
        self.experts = side_by_side(self.EXPERTS, WIDTH, [512, 256], shared_input=True)
        self.gates = nn.Linear(WIDTH, TASKS * self.EXPERTS)
        self.towers = Towers(side_by_side, 256, [128, 64], shared_input=False)

    def forward(self, x, scenario):
        gates = torch.softmax(self.gates(x).view(-1, TASKS, self.EXPERTS), dim=2)
        mixed = torch.bmm(gates, self.experts(x).transpose(0, 1))
        return self.towers(mixed.transpose(0, 1))


MODELS = {"shared_bottom": SharedBottom, "mmoe": Mmoe}


# The measurement


class Learner:
    """A model, its table and their optimizers; both optimizers leave the rows alone that a batch does not look up."""

    def __init__(self, model, experts):
        torch.manual_seed(MODEL_SEED)
        self.net = MODELS[model]({"together": Together, "separate": Separate}[experts])
        self.table = nn.Embedding(sum(VOCABULARIES), DIM, sparse=True)
        nn.init.normal_(self.table.weight, std=0.01)
        self.optimizers = [
            torch.optim.Adam(self.net.parameters(), lr=LEARNING_RATE, fused=True),
            torch.optim.SparseAdam(self.table.parameters(), lr=LEARNING_RATE),
        ]

    def loss(self, batch):
        """The sum of the tasks' losses, each the mean over rows."""
        x = torch.cat([self.table(batch["ids"]).flatten(1), batch["dense"]], dim=1)
        logits, labels = self.net(x, batch["scenario"]), batch["labels"]
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(labels)

    def step(self, batch):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
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
        "dense_parameters": sum(p.numel() for p in learner.net.parameters()),
        "table_values": learner.table.weight.numel(),
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
