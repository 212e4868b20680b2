"""`python3 -m unittest discover kernels/cuda/check`: what merge.py makes of the files of a run."""
import json
import tempfile
import unittest
from pathlib import Path

from merge import is_same_workload, merge


class MergeTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def write(self, name, content):
        (self.folder / name).write_text(content if isinstance(content, str) else json.dumps(content))

    def test_rows_stand_beside_torch_and_the_ceilings(self):
        self.write("device.csv", "NVIDIA H200, 580.95.05, 143771 MiB\n")
        self.write("parts.tsv", "test-gemm\t0\t12\ttest result: ok. 5 passed; 0 failed\nmemcheck\t124\t35\t\n")
        self.write("built-from", "abc123\n")
        bag = {"kernel": "embedding_bag_forward", "shape": {"dim": 64, "bag": 5}, "precision": "f32"}
        product = {"kernel": "mmoe_forward", "shape": {"batch": 16384}, "precision": "bf16"}
        rows = [bag | {"ms": 2.0, "bytes": 4_000_000_000, "flops": 1000, "relative_error": 1e-7},
                product | {"ms": 0.1, "tflops": 400.0, "gbps": 1000.0}]
        self.write("bench.json", {"ceilings": {"copy_gbps": 4000.0, "bf16_tflops": 700.0}, "rows": rows,
                                  "left_out": [{"kernel": "adam", "why": "no time left"}]})
        self.write("torch.json", {
            "torch": "2.11", "ceilings": {"bf16_tflops": 800.0}, "failed": [],
            "rows": [bag | {"ms": 3.0, "variant": "eager"}, bag | {"ms": 2.5, "variant": "compiled"},
                     product | {"ms": 0.01, "variant": "eager", "precision": "tf32"}],
        })
        result = merge(self.folder)
        self.assertEqual(result["device"], {"name": "NVIDIA H200", "driver": "580.95.05", "memory": "143771 MiB"})
        self.assertEqual(result["commit"], "abc123")
        self.assertEqual([part["status"] for part in result["parts"]], [0, 124])
        self.assertEqual(result["left_out"], [{"kernel": "adam", "why": "no time left"}])
        lookup, mmoe = result["rows"]
        self.assertEqual((lookup["gbps"], lookup["bound"], lookup["share_of_ceiling"]), (2000.0, "copy_gbps", 0.5))
        beside = (lookup["torch_ms"], lookup["torch_variant"], lookup["ratio_to_torch"])
        self.assertEqual(beside, (2.5, "compiled", 1.25))
        self.assertEqual((mmoe["bound"], mmoe["share_of_ceiling"], mmoe["torch_ms"]), ("bf16_tflops", 0.5, None))

    def test_what_is_missing_or_cut_off_takes_nothing_from_the_rest(self):
        self.assertEqual(merge(self.folder)["rows"], [])
        self.write("torch.json", '{"rows": [')
        self.write("bench.json", [{"kernel": "adam", "ms": 1.0, "shape": {"parameters": 8}}])
        row, = merge(self.folder)["rows"]
        self.assertEqual((row["kernel"], row["bound"], row["ratio_to_torch"]), ("adam", None, None))

    def test_shapes_agree_in_what_both_name(self):
        ours = {"kernel": "k", "shape": {"batch": 4, "experts": 8}}
        self.assertTrue(is_same_workload(ours, {"kernel": "k", "shape": {"batch": 4}, "precision": "f32"}))
        self.assertFalse(is_same_workload(ours, {"kernel": "k", "shape": {"batch": 5}}))
        self.assertFalse(is_same_workload(ours, {"kernel": "k", "shape": {"rows": 4}}))
        self.assertFalse(is_same_workload(ours, {"kernel": "k", "shape": {"batch": 4}, "precision": "bf16"}))


if __name__ == "__main__":
    unittest.main()
