#!/usr/bin/env python3
"""Tests of table.py, and that the README has the table of the newest result: `python3 -m unittest` in this folder."""
import json
import unittest
from pathlib import Path

from table import shown_rows, table

ROOT = Path(__file__).resolve().parents[3]


def row(kernel, precision, ms, **more):
    none = dict.fromkeys(["gbps", "tflops", "share_of_ceiling", "torch_ms", "torch_variant", "ratio_to_torch"])
    return none | {"kernel": kernel, "precision": precision, "ms": ms, "shape": {"batch": 65_536}, "gbps": 1234.5} | more


class TableTest(unittest.TestCase):
    def test_a_kernel_is_shown_once_in_its_longest_shape_and_in_bf16(self):
        rows = [row("linear", "bf16", 0.1), row("linear", "bf16", 0.2), row("linear", "f32", 2.0), row("adam", "f32", 0.3)]
        self.assertEqual([(r["kernel"], r["ms"]) for r in shown_rows(rows)], [("linear", 0.2), ("adam", 0.3)])

    def test_rows_have_what_there_is(self):
        beside = {"torch_ms": 0.5, "torch_variant": "eager", "ratio_to_torch": 2.5, "share_of_ceiling": 0.801, "tflops": 4.0}
        lines = table({"rows": [row("linear", "bf16", 0.2, **beside), row("adam", "f32", 0.3)]}).splitlines()
        self.assertEqual(lines[2], "| `linear` | batch 65,536 | bf16 | 0.2 | 1,234 | 4 | 80 % | 0.5 (eager) | 2.5 |")
        self.assertEqual(lines[3], "| `adam` | batch 65,536 | f32 | 0.3 | 1,234 |  |  |  |  |")

    def test_the_readme_has_the_newest_table(self):
        results = sorted((ROOT / "results/gpu").glob("*.json"))
        newest = json.loads(results[-1].read_text())
        self.assertIn(table(newest), (ROOT / "README.md").read_text(), f"make it anew from {results[-1].name}")


if __name__ == "__main__":
    unittest.main()
