"""The workload of `manygate bench`, drawn for PyTorch: the same laws, from another generator."""
import numpy as np
import torch

FIELDS, DIM, DENSE = 26, 16, 13
WIDTH = FIELDS * DIM + DENSE
VOCABULARIES = [round(10 * 1e5 ** (field / (FIELDS - 1))) for field in range(FIELDS)]
TABLE_ROWS = sum(VOCABULARIES)
SCENARIOS = [0.4, 0.25, 0.2, 0.1, 0.05]
RATES = [0.3, 0.1, 0.05]
TASKS = len(RATES)
SHORTEST_HISTORY, LONGEST_HISTORY = 5, 50
ZIPF_EXPONENT = 1.05
TOTAL_ROWS = 65_536
SEED = 2024


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

    def draw(self, rng, shape):
        ranks = np.searchsorted(self.sums, rng.random(shape), side="right").clip(0, len(self.sums) - 1)
        return (ranks * self.factor + 7) % len(self.sums)


def draw_batches(rows):
    """4 to 48 different batches of `rows` rows: `ids` [rows, FIELDS] as rows of the one table, `dense` [rows, DENSE],
    `scenario` [rows], `labels` [rows, TASKS], `history` [rows, LONGEST_HISTORY] as values of the last field, and `seen`
    of the same shape, which is false behind a history's end."""
    count = min(max(TOTAL_ROWS // rows, 4), 48)
    total, rng = count * rows, np.random.default_rng(SEED)
    ids = np.empty((total, FIELDS), np.int64)
    start = 0
    for field, values in enumerate(VOCABULARIES):
        ids[:, field] = start + Zipf(values).draw(rng, total)
        start += values
    labels = (rng.random((total, TASKS)) < RATES).astype(np.float32)
    labels[:, 1] *= labels[:, 0]
    lengths = rng.integers(SHORTEST_HISTORY, LONGEST_HISTORY + 1, (total, 1))
    columns = {
        "ids": ids,
        "dense": rng.standard_normal((total, DENSE), dtype=np.float32),
        "scenario": rng.choice(len(SCENARIOS), total, p=SCENARIOS),
        "labels": labels,
        "history": Zipf(VOCABULARIES[-1]).draw(rng, (total, LONGEST_HISTORY)),
        "seen": np.arange(LONGEST_HISTORY) < lengths,
    }
    cut = lambda part: {name: torch.from_numpy(column[part].copy()) for name, column in columns.items()}
    return [cut(slice(i * rows, (i + 1) * rows)) for i in range(count)]
