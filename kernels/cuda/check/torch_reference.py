#!/usr/bin/env python3
"""What PyTorch takes for the workloads of `manygate bench kernels --device cuda`, eager and compiled, on one GPU.

    python3 torch_reference.py out/torch.json                        # about two minutes on a GPU
    python3 torch_reference.py /tmp/t.json --device cpu --small      # does every case run at all?

Times are medians of CUDA events over random data; the machine's own speed (copy, products) is measured beside them. The
file is written after each case, so what stops one, or all, takes nothing from those before. Rows have the names, shapes
and precisions of the engine's; `variant` says how PyTorch did it.
"""
import argparse
import contextlib
import json
import os
import statistics
import sys
import time
import traceback

import torch
from torch.nn import functional as F

MOST_RUNS, MOST_SECONDS, WARM_UP = 20, 1.5, 3
DTYPES = {"bf16": torch.bfloat16, "tf32": torch.float32, "f32": torch.float32}
LEARNING_RATE, EPSILON = 0.01, 1e-8


class Bench:
    """Measures cases and keeps what came out."""

    def __init__(self, args):
        self.device, self.small, self.path = args.device, args.small, args.output
        on_gpu = self.device == "cuda"
        self.result = {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "ceilings": {},
            "rows": [],
            "failed": [],
        }

    def size(self, full, small):
        return small if self.small else full

    def random(self, *shape, dtype=torch.float32, scale=1.0):
        return torch.randn(*shape, device=self.device).mul_(scale).to(dtype)

    def clock(self):
        """A moment in the work of the device."""
        if self.device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def run(self, step, runs):
        """Milliseconds of each of so many runs, which are not waited for in between."""
        clocks = []
        for _ in range(runs):
            start = self.clock()
            step()
            clocks.append((start, self.clock()))
        if self.device != "cuda":
            return [1e3 * (end - start) for start, end in clocks]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in clocks]

    def milliseconds(self, step):
        """Median over runs of `step`, as many as fit the time."""
        warm = self.run(step, WARM_UP)[-1]
        return statistics.median(self.run(step, max(1, min(MOST_RUNS, int(1e3 * MOST_SECONDS / warm)))))

    def row(self, kernel, shape, precision, variant, step):
        """Measures one way of doing one workload; a failure is noted and goes no further."""
        name = {"kernel": kernel, "shape": shape, "precision": precision, "variant": variant}
        with self.guarded(name):
            self.result["rows"].append(name | {"ms": self.milliseconds(step)})
            print(f"{kernel} {shape} {precision} {variant}: {self.result['rows'][-1]['ms']:.4f} ms", file=sys.stderr)

    @contextlib.contextmanager
    def guarded(self, name):
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.result["failed"].append({"case": name, "error": f"{type(error).__name__}: {error}"[:500]})
        with open(self.path + ".part", "w") as file:
            json.dump(self.result, file, indent=1)
        os.replace(self.path + ".part", self.path)


@contextlib.contextmanager
def tf32(allowed):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def ceilings(bench):
    """What the machine does at most: copying, and large products in each precision."""
    count = bench.size(1 << 30, 1 << 16)
    source = torch.randint(-128, 128, (count,), dtype=torch.int8, device=bench.device)
    target = torch.empty_like(source)
    bench.result["ceilings"]["copy_gbps"] = 2 * count / bench.milliseconds(lambda: target.copy_(source)) / 1e6
    side = bench.size(8192, 64)
    for precision, dtype in DTYPES.items():
        a, b = bench.random(side, side, dtype=dtype), bench.random(side, side, dtype=dtype)
        with tf32(precision == "tf32"):
            ms = bench.milliseconds(lambda: a @ b)
        bench.result["ceilings"][f"{precision}_tflops"] = 2 * side**3 / ms / 1e9


class Mmoe(torch.nn.Module):
    """512 inputs, 8 experts of 256 and 128 units, 3 gates. Experts' first layers are one product, so are the gates."""

    INPUTS, EXPERTS, HIDDEN, WIDTH, GATES = 512, 8, 256, 128, 3

    def __init__(self, bench, dtype):
        super().__init__()
        E, H = self.EXPERTS, self.HIDDEN

        def parameter(*shape):
            scale = shape[-2] ** -0.5 if len(shape) > 1 else 0.1
            return torch.nn.Parameter(bench.random(*shape, dtype=dtype, scale=scale))

        self.first, self.first_bias = parameter(self.INPUTS, E * H), parameter(E * H)
        self.second, self.second_bias = parameter(E, H, self.WIDTH), parameter(E, 1, self.WIDTH)
        self.gate, self.gate_bias = parameter(self.INPUTS, self.GATES * E), parameter(self.GATES * E)

    def forward(self, x):
        """`[batch, inputs]` to `[batch, gates, width]`."""
        batch = x.shape[0]
        hidden = F.relu(torch.addmm(self.first_bias, x, self.first)).view(batch, self.EXPERTS, self.HIDDEN)
        experts = F.relu(torch.baddbmm(self.second_bias, hidden.transpose(0, 1), self.second))
        weights = torch.addmm(self.gate_bias, x, self.gate).view(batch, self.GATES, self.EXPERTS).softmax(-1)
        return torch.bmm(weights, experts.transpose(0, 1))


def mmoe(bench):
    """Forward alone, and forward and backward to parameters and inputs."""
    # f32 without tensor cores is there to compare with, and compiling takes its time.
    for variant, precisions in (("eager", DTYPES), ("compiled", ("bf16", "tf32"))):
        for batch in (bench.size(16_384, 64), bench.size(65_536, 128)):
            for precision in precisions:
                with tf32(precision == "tf32"):
                    mmoe_rows(bench, batch, precision, variant)


def mmoe_rows(bench, batch, precision, variant):
    dtype = DTYPES[precision]
    model = Mmoe(bench, dtype)
    x = bench.random(batch, Mmoe.INPUTS, dtype=dtype).requires_grad_()
    gradient = bench.random(batch, Mmoe.GATES, Mmoe.WIDTH, dtype=dtype)
    inputs = [x, *model.parameters()]
    network = torch.compile(model, mode="reduce-overhead", dynamic=False) if variant == "compiled" else model

    def forward():
        # Results of the run before may be written over.
        torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            network(x)

    def both():
        torch.compiler.cudagraph_mark_step_begin()
        torch.autograd.grad(network(x), inputs, gradient)

    bench.row("mmoe_forward", {"batch": batch}, precision, variant, forward)
    bench.row("mmoe_forward_backward", {"batch": batch}, precision, variant, both)


def embedding(bench):
    """Sums over bags of ids: look-up, and the update of the rows that were looked up by row-wise Adagrad."""
    batch, tables, rows = bench.size(65_536, 32), bench.size(26, 3), bench.size(1_000_000, 50)
    for dim in (64, 128):
        weights = bench.random(tables * rows, dim, scale=0.01)
        state = torch.zeros(tables * rows, device=bench.device)
        gradient = bench.random(tables * batch, dim, scale=1e-3)
        for bag in (1, 5, 10, 20):
            shape = {"batch": batch, "tables": tables, "rows": rows, "dim": dim, "bag": bag}
            # All tables are one, and a bag's ids stand together, table by table.
            ids = torch.randint(rows, (tables, batch * bag), device=bench.device)
            ids += rows * torch.arange(tables, device=bench.device)[:, None]
            ids = ids.view(-1)
            offsets = torch.arange(0, ids.numel(), bag, device=bench.device)
            bench.row("embedding_bag_forward", shape, "f32", "eager",
                      lambda: F.embedding_bag(ids, weights, offsets, mode="sum"))
            bench.row("embedding_bag_update", shape, "f32", "eager, table by table",
                      lambda: update_tables(weights, state, gradient, ids, tables, bag))


def update_tables(weights, state, gradient, ids, tables, bag):
    """Row-wise Adagrad: a row's state is the sum over steps of the mean square of its gradient."""
    batch = gradient.shape[0] // tables
    bags = torch.arange(batch, device=ids.device).repeat_interleave(bag)
    for table, ids_of_table in enumerate(ids.view(tables, -1)):
        distinct, place = torch.unique(ids_of_table, return_inverse=True)
        sums = torch.zeros(distinct.numel(), gradient.shape[1], device=ids.device)
        sums.index_add_(0, place, gradient[table * batch:(table + 1) * batch][bags])
        squares = state[distinct] + sums.square().mean(1)
        state[distinct] = squares
        weights.index_add_(0, distinct, sums.mul_(-LEARNING_RATE / (squares.sqrt_().add_(EPSILON)[:, None])))


def adam(bench):
    """A step over all dense parameters, which are one tensor."""
    parameters = bench.size(10_000_000, 1 << 10)
    parameter = torch.nn.Parameter(bench.random(parameters))
    parameter.grad = bench.random(parameters)
    on_gpu = bench.device == "cuda"
    fused = torch.optim.Adam([parameter], lr=1e-3, fused=True)
    plain = torch.optim.Adam([parameter], lr=1e-3, foreach=True, capturable=on_gpu)
    shape = {"parameters": parameters}
    bench.row("adam", shape, "f32", "eager, fused", fused.step)
    bench.row("adam", shape, "f32", "compiled", torch.compile(plain.step))


def bce_with_logits(bench):
    """The sum of the losses and their gradients."""
    rows = bench.size(1 << 24, 1 << 10)
    logits = bench.random(rows).requires_grad_()
    labels = torch.randint(2, (rows,), device=bench.device).float()

    def both(loss):
        torch.autograd.grad(loss(logits, labels, reduction="sum"), logits)

    loss = F.binary_cross_entropy_with_logits
    shape, compiled = {"rows": rows}, torch.compile(loss)
    bench.row("bce_with_logits", shape, "f32", "eager", lambda: both(loss))
    bench.row("bce_with_logits", shape, "f32", "compiled", lambda: both(compiled))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="the JSON file to write")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="small sizes, whose times mean nothing")
    args = parser.parse_args()
    torch.manual_seed(1)
    bench = Bench(args)
    # Those first whose figures matter most, should the time run out.
    for part in (ceilings, embedding, mmoe, bce_with_logits, adam):
        with bench.guarded(part.__name__):
            part(bench)
    return 1 if bench.result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
