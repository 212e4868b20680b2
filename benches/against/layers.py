"""Layers that the models of `models.py` share. Networks side by side come in two forms: one after the other
(`Separate`), as they are usually written, or at once (`Together`)."""
import torch
from torch import nn
from torch.nn import functional as F

from workload import TASKS


def perceptron(width, units, logit=False):
    layers = []
    for out in units:
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    if logit:
        layers.append(nn.Linear(width, 1))
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
    """A tower a task and its logit: x as for `side_by_side`, to [B, tasks]."""

    def __init__(self, side_by_side, width, units, shared_input, tasks=TASKS):
        super().__init__()
        self.hidden = side_by_side(tasks, width, units, shared_input)
        self.weight = nn.Parameter(torch.randn(tasks, units[-1], 1) * units[-1] ** -0.5)
        self.bias = nn.Parameter(torch.zeros(tasks, 1, 1))

    def forward(self, x):
        return torch.baddbmm(self.bias, self.hidden(x), self.weight).squeeze(2).t()


def mixture(logits, experts):
    """Experts [E, B, h] by the softmax of `logits` [B, E], to [B, h]."""
    return torch.bmm(torch.softmax(logits, 1).unsqueeze(1), experts.transpose(0, 1)).squeeze(1)


class GateUnit(nn.Module):
    """2 sigmoid(W1 relu(W0 x + b0) + b1)."""

    def __init__(self, width, hidden, out):
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, out)

    def forward(self, x):
        return 2 * torch.sigmoid(self.second(F.relu(self.first(x))))


def attend(q, k, v, heads, seen):
    """Attention among the behaviours of a row: q, k, v [B, L, heads · width], to the same shape."""
    split = lambda x: x.unflatten(2, (heads, -1)).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=seen[:, None, None, :])
    return mixed.transpose(1, 2).flatten(2)


def mean_of_seen(x, seen):
    """The mean of x [B, L, d] over the behaviours that there are, to [B, d]."""
    share = seen.to(x.dtype) / seen.sum(1, keepdim=True)
    return torch.bmm(share.unsqueeze(1), x).squeeze(1)
