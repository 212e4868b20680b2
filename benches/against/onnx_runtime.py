#!/usr/bin/env python3
"""The workload of `manygate bench infer` in ONNX Runtime and in PyTorch, for a comparison on one machine.

    python onnx_runtime.py --model mmoe --batch 1,16,256,4096 --threads 1

Prints the keys of `manygate bench infer --json`, latencies once an engine and form. Forms are networks side by side one
after the other and at once; both engines compute both, and answers must agree with PyTorch's. A model whose parts are
as large as the data says cannot be exported: then there are PyTorch's figures alone.
"""
import argparse
import json
import logging
import sys
import tempfile
import time
import warnings

import numpy as np
import onnxruntime
import torch
from torch import nn

from layers import Separate, Together
from models import MODELS, Ranker
from workload import draw_batches

MODEL_SEED = 7
WARM_UP, ENOUGH = 10, 100
# Times the seconds asked for, after which fewer predictions than that have to do.
LONGEST = 5
COLUMNS = ["ids", "dense", "scenario", "history", "seen"]
# Largest difference of a probability between the engines.
TOLERANCE = 1e-4


class Served(nn.Module):
    """Columns of a batch to probabilities [B, tasks]."""

    def __init__(self, name, side_by_side):
        super().__init__()
        torch.manual_seed(MODEL_SEED)
        self.ranker = Ranker(name, side_by_side)

    def forward(self, ids, dense, scenario, history, seen):
        batch = dict(zip(COLUMNS, [ids, dense, scenario, history, seen]))
        return self.ranker.net.probabilities(self.ranker(batch))


def export(served, columns, threads):
    """A session of ONNX Runtime, or None where the model has no form there."""
    rows = torch.export.Dim("rows", min=1, max=1 << 16)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        try:
            torch.onnx.export(served, columns, path, input_names=COLUMNS, dynamo=True, verbose=False,
                              external_data=False, dynamic_shapes=tuple({0: rows} for _ in columns))
        except Exception as error:
            print(f"not exported: {str(error).splitlines()[0]}", file=sys.stderr)
            return None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def engines_of(served, form, threads, columns):
    """Name of each engine, and what it calls for a batch."""
    session = export(served, columns, threads)
    engines = {f"PyTorch, {form}": lambda columns: served(*columns).numpy()}
    if session is not None:
        inputs = [given.name for given in session.get_inputs()]

        def run(columns):
            fed = {name: column.numpy() for name, column in zip(COLUMNS, columns) if name in inputs}
            return session.run(None, fed)[0]

        engines[f"ONNX Runtime, {form}"] = run
    return engines


def latency(predict, batches, seconds):
    """Microseconds of each prediction, sorted."""
    times, begin, taken, passed = [], None, 0, 0.0
    while passed < seconds or (len(times) < ENOUGH and passed < LONGEST * seconds):
        columns = batches[taken % len(batches)]
        start = time.perf_counter()
        predict(columns)
        end, taken = time.perf_counter(), taken + 1
        if taken == WARM_UP:
            begin = end
        elif taken > WARM_UP:
            times.append((end - start) * 1e6)
            passed = end - begin
    return sorted(times)


def quantile(times, share):
    return times[round((len(times) - 1) * share)]


def measure(args):
    torch.set_num_threads(args.threads)
    batches = {rows: [tuple(batch[c] for c in COLUMNS) for batch in draw_batches(rows)] for rows in args.batch}
    latencies = []
    for form, side_by_side in [("separate", Separate), ("together", Together)]:
        served = Served(args.model, side_by_side).eval()
        # Two rows: with one, the exporter takes the number for a constant.
        example = tuple(column[:2] for column in batches[max(args.batch)][0])
        with torch.inference_mode():
            example = tuple(column.clone() for column in example)
        engines = engines_of(served, form, args.threads, example)
        for rows, columns in batches.items():
            with torch.inference_mode():
                expected = served(*columns[0]).numpy()
                for engine, predict in engines.items():
                    difference = float(np.abs(predict(columns[0]) - expected).max())
                    if not difference <= TOLERANCE:
                        sys.exit(f"onnx_runtime.py: {engine} differs by {difference} from PyTorch")
                    times = latency(predict, columns, args.seconds)
                    latencies.append({
                        "engine": engine,
                        "batch": rows,
                        "p50_us": quantile(times, 0.5),
                        "p99_us": quantile(times, 0.99),
                        "predictions": len(times),
                    })
    return latencies


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="mmoe")
    parser.add_argument("--batch", default="1,16,256,4096", help="rows a prediction, several after commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds to measure each")
    args = parser.parse_args()
    try:
        args.batch = [int(rows) for rows in args.batch.split(",")]
    except ValueError:
        parser.error("--batch must be numbers of rows, with commas between them")
    if min(args.batch) < 1 or args.threads < 1 or not 0 < args.seconds < float("inf"):
        parser.error("--batch, --threads and --seconds must be above 0")
    return args


def main():
    args = arguments()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    print(json.dumps({
        "version": 1,
        "model": args.model,
        "threads": args.threads,
        "isa": torch.backends.cpu.get_cpu_capability().lower(),
        "engines": [f"PyTorch {torch.__version__}", f"ONNX Runtime {onnxruntime.__version__}"],
        "latencies": measure(args),
    }, indent=2))


if __name__ == "__main__":
    main()
