"""The models of `manygate bench` in PyTorch, at the same sizes.

Each takes x [B, WIDTH] (the fields' rows, then the numbers), and a batch as `workload.draw_batches` draws it, and
returns logits [B, tasks]. Its `side_by_side` is `layers.Separate` or `layers.Together`. One with `reads_history` also
takes behaviours [B, LONGEST_HISTORY, DIM], looked up in the last field's table or, with `own_table`, in one of its own.
A further model is a class here and an entry in `MODELS`.
"""
import torch
from torch import nn
from torch.nn import functional as F

from layers import GateUnit, Towers, attend, mean_of_seen, mixture, perceptron
from workload import DIM, FIELDS, LONGEST_HISTORY, SCENARIOS, TABLE_ROWS, TASKS, VOCABULARIES, WIDTH

SCENES = len(SCENARIOS)


class Model(nn.Module):
    tasks = TASKS
    reads_history = own_table = False

    def loss(self, logits, labels):
        """The sum of the tasks' losses, each the mean over rows."""
        return F.binary_cross_entropy_with_logits(logits, labels[:, : self.tasks], reduction="sum") / len(labels)

    def probabilities(self, logits):
        return torch.sigmoid(logits)


class SharedBottom(Model):
    def __init__(self, side_by_side):
        super().__init__()
        self.bottom = perceptron(WIDTH, [512, 256])
        self.towers = Towers(side_by_side, 256, [128, 64], shared_input=True)

    def forward(self, x, batch):
        return self.towers(self.bottom(x))


class Mmoe(Model):
    EXPERTS = 8

    def __init__(self, side_by_side):
        super().__init__()
        self.experts = side_by_side(self.EXPERTS, WIDTH, [512, 256], shared_input=True)
        self.gates = nn.Linear(WIDTH, TASKS * self.EXPERTS)
        self.towers = Towers(side_by_side, 256, [128, 64], shared_input=False)

    def forward(self, x, batch):
        gates = torch.softmax(self.gates(x).view(-1, TASKS, self.EXPERTS), dim=2)
        mixed = torch.bmm(gates, self.experts(x).transpose(0, 1))
        return self.towers(mixed.transpose(0, 1))


class Ple(Model):
    """Two levels of four experts a group; groups are the shared one and each task's."""

    GROUP, UNITS = 4, [256, 128]

    def __init__(self, side_by_side):
        super().__init__()
        groups, out = 1 + TASKS, self.UNITS[-1]
        self.first = side_by_side(groups * self.GROUP, WIDTH, self.UNITS, shared_input=True)
        self.first_gates = nn.ModuleList(nn.Linear(WIDTH, 2 * self.GROUP) for _ in range(TASKS))
        self.shared_gate = nn.Linear(WIDTH, groups * self.GROUP)
        self.second = side_by_side(groups * self.GROUP, out, self.UNITS, shared_input=False)
        self.second_gates = nn.ModuleList(nn.Linear(out, 2 * self.GROUP) for _ in range(TASKS))
        self.towers = Towers(side_by_side, out, [128, 64], shared_input=False)

    def level(self, experts, gates, inputs):
        shared, *own = experts.split(self.GROUP)
        return [mixture(gate(x), torch.cat([shared, mine])) for gate, x, mine in zip(gates, inputs, own)]

    def forward(self, x, batch):
        experts = self.first(x)
        shared = mixture(self.shared_gate(x), experts)
        tasks = self.level(experts, self.first_gates, [x] * TASKS)
        inputs = torch.stack([group for group in [shared, *tasks] for _ in range(self.GROUP)])
        tasks = self.level(self.second(inputs), self.second_gates, tasks)
        return self.towers(torch.stack(tasks))


class Esmm(Model):
    """The second task's event needs the first's: its probability is the product."""

    tasks = 2

    def __init__(self, side_by_side):
        super().__init__()
        self.towers = Towers(side_by_side, WIDTH, [512, 256, 128], shared_input=True, tasks=2)

    def forward(self, x, batch):
        return self.towers(x)

    def probabilities(self, logits):
        return torch.sigmoid(logits).cumprod(1)

    def loss(self, logits, labels):
        losses = F.binary_cross_entropy(self.probabilities(logits), labels[:, :2], reduction="sum")
        return losses / len(labels)


class DcnV2(Model):
    def __init__(self, side_by_side):
        super().__init__()
        self.cross = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.deep = perceptron(WIDTH, [512, 256])
        self.heads = nn.Linear(WIDTH + 256, TASKS)

    def forward(self, x0, batch):
        x = x0
        for cross in self.cross:
            x = torch.addcmul(x, x0, cross(x))
        return self.heads(torch.cat([x, self.deep(x0)], 1))


class PartitionedNorm(nn.Module):
    """Batch normalisation with statistics, scale and shift of each scenario."""

    def __init__(self, width):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.own_gamma, self.own_beta = (nn.Parameter(f(SCENES, width)) for f in (torch.ones, torch.zeros))
        self.register_buffer("mean", torch.zeros(SCENES, width))
        self.register_buffer("variance", torch.ones(SCENES, width))

    def forward(self, x, scene):
        mean, variance = self.mean, self.variance
        if self.training:
            of = F.one_hot(scene, SCENES).to(x.dtype)
            rows = of.sum(0).clamp_min(1).unsqueeze(1)
            mean = of.t() @ x / rows
            variance = of.t() @ (x - mean[scene]).square() / rows
            with torch.no_grad():
                self.mean.lerp_(mean, 0.1), self.variance.lerp_(variance, 0.1)
        scale = torch.rsqrt(variance + 1e-5) * self.gamma * self.own_gamma
        return (x - mean[scene]) * scale[scene] + (self.beta + self.own_beta)[scene]


class Star(Model):
    """Rows are put in order of their scenarios, so that each passes its own network alone. Public code passes every row
    through every network, which takes several times as long."""

    tasks = 1

    def __init__(self, side_by_side):
        super().__init__()
        self.norm = PartitionedNorm(WIDTH)
        widths = [WIDTH, 512, 256, 128, 1]
        pairs = list(zip(widths, widths[1:]))
        parameters = lambda make: nn.ParameterList(nn.Parameter(make(a, b)) for a, b in pairs)
        self.weights = parameters(lambda a, b: torch.randn(a, b) * a**-0.5)
        self.biases = parameters(lambda a, b: torch.zeros(b))
        self.own_weights = parameters(lambda a, b: torch.ones(SCENES, a, b))
        self.own_biases = parameters(lambda a, b: torch.zeros(SCENES, b))
        self.scene = nn.Embedding(SCENES, DIM)
        self.auxiliary = perceptron(WIDTH + DIM, [128], logit=True)

    def network(self, x, scene):
        layers = zip(self.weights, self.own_weights, self.biases, self.own_biases)
        for i, (weight, own_weight, bias, own_bias) in enumerate(layers):
            x = torch.addmm(bias + own_bias[scene], x if i == 0 else F.relu(x), weight * own_weight[scene])
        return x

    def forward(self, x0, batch):
        scene = batch["scenario"]
        order = torch.argsort(scene)
        rows = torch.bincount(scene, minlength=SCENES).tolist()
        parts = self.norm(x0, scene)[order].split(rows)
        logits = torch.cat([self.network(x, own) for own, x in enumerate(parts)])
        logits = torch.empty_like(logits).index_copy(0, order, logits)
        return logits + self.auxiliary(torch.cat([x0, self.scene(scene)], 1))


class PepNet(Model):
    """A gate over the embeddings, and one for each layer of the tasks' networks, from three prior fields."""

    UNITS = [512, 256, 128]

    def __init__(self, side_by_side):
        super().__init__()
        self.scene = nn.Embedding(SCENES, DIM)
        self.embedding_gate = GateUnit(WIDTH + DIM, 128, WIDTH)
        # All gates read the same: their first layers are one product.
        self.gates_first = nn.Linear(WIDTH + 3 * DIM, 128 * len(self.UNITS))
        self.gates_second = nn.ModuleList(nn.Linear(128, TASKS * units) for units in self.UNITS)
        pairs = list(zip([WIDTH, *self.UNITS], self.UNITS))
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(TASKS, a, b) * a**-0.5) for a, b in pairs)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(TASKS, 1, b)) for _, b in pairs)
        self.weight = nn.Parameter(torch.randn(TASKS, self.UNITS[-1], 1) * 0.1)
        self.bias = nn.Parameter(torch.zeros(TASKS, 1, 1))

    def forward(self, x, batch):
        prior = x[:, (FIELDS - 3) * DIM : FIELDS * DIM]
        x = x * self.embedding_gate(torch.cat([x.detach(), self.scene(batch["scenario"])], 1))
        hidden = F.relu(self.gates_first(torch.cat([x.detach(), prior], 1))).chunk(len(self.UNITS), 1)
        h = x.expand(TASKS, -1, -1)
        for weight, bias, gate, z in zip(self.weights, self.biases, self.gates_second, hidden):
            factors = 2 * torch.sigmoid(gate(z)).unflatten(1, (TASKS, -1)).transpose(0, 1)
            h = F.relu(torch.baddbmm(bias, h, weight)) * factors
        return torch.baddbmm(self.bias, h, self.weight).squeeze(2).t()


class HiNet(Model):
    """Four shared sub-experts and two of each scenario, attention over the other scenarios, experts of tasks above."""

    SHARED, OWN, COMMON, OF_TASK, UNITS = 4, 2, 4, 2, [256, 128]

    def __init__(self, side_by_side):
        super().__init__()
        out = self.UNITS[-1]
        self.scene = nn.Embedding(SCENES, DIM)
        self.shared = side_by_side(self.SHARED, WIDTH, self.UNITS, shared_input=True)
        self.shared_gate = nn.Linear(WIDTH, self.SHARED)
        self.own = side_by_side(self.OWN * SCENES, WIDTH, self.UNITS, shared_input=True)
        self.own_gates = nn.Linear(WIDTH, self.OWN * SCENES)
        self.attention = nn.Linear(DIM, SCENES)
        self.experts = side_by_side(self.COMMON + TASKS * self.OF_TASK, 3 * out, self.UNITS, shared_input=True)
        self.gates = nn.ModuleList(nn.Linear(3 * out, self.COMMON + self.OF_TASK) for _ in range(TASKS))
        self.towers = Towers(side_by_side, out, [128, 64], shared_input=False)

    def forward(self, x, batch):
        scene = batch["scenario"]
        shared = mixture(self.shared_gate(x), self.shared(x))
        gates = torch.softmax(self.own_gates(x).view(-1, SCENES, self.OWN), 2)
        own = self.own(x).unflatten(0, (SCENES, self.OWN)).permute(2, 0, 1, 3)
        groups = torch.matmul(gates.unsqueeze(2), own).squeeze(2)
        mine = F.one_hot(scene, SCENES).to(x.dtype)
        others = self.attention(self.scene(scene)).masked_fill(mine.bool(), float("-inf"))
        weights = torch.stack([mine, torch.softmax(others, 1)], 1)
        z = torch.cat([shared, torch.bmm(weights, groups).flatten(1)], 1)
        common, *tasks = self.experts(z).split([self.COMMON] + [self.OF_TASK] * TASKS)
        mixed = [mixture(gate(z), torch.cat([common, of])) for gate, of in zip(self.gates, tasks)]
        return self.towers(torch.stack(mixed))


class AdaSparse(Model):
    """Pruners weigh or remove the input's and every layer's units, and know the scenario."""

    tasks = 1

    def __init__(self, side_by_side):
        super().__init__()
        units = [512, 256, 128]
        self.scene = nn.Embedding(SCENES, DIM)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip([DIM + WIDTH, *units], units))
        self.pruners = nn.ModuleList(nn.Linear(DIM + a, a) for a in [WIDTH, *units])
        self.head = nn.Linear(units[-1], 1)

    def forward(self, x, batch):
        e = self.scene(batch["scenario"])
        prune = lambda pruner, h: h * F.threshold(2 * torch.sigmoid(pruner(torch.cat([e, h], 1))), 0.25, 0.0)
        first, *pruners = self.pruners
        h = torch.cat([e, prune(first, x)], 1)
        for layer, pruner in zip(self.layers, pruners):
            h = prune(pruner, F.relu(layer(h)))
        return self.head(h)


class M2m(Model):
    """A transformer block over behaviours; the scenario's knowledge generates, row by row, the weights of expert
    attention and of residual towers, which tasks share."""

    reads_history = own_table = True
    EXPERTS, UNITS, KNOWLEDGE = 4, 64, 64

    def __init__(self, side_by_side):
        super().__init__()
        d, s = self.UNITS, self.KNOWLEDGE
        self.places = nn.Parameter(torch.randn(LONGEST_HISTORY, DIM) * 0.01)
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(2))
        self.ffn = nn.Sequential(nn.Linear(DIM, 128), nn.ReLU(), nn.Linear(128, DIM))
        self.experts = side_by_side(self.EXPERTS, DIM + WIDTH, [256, d], shared_input=True)
        self.scene = nn.Embedding(SCENES, DIM)
        self.knowledge = nn.Linear(5 * DIM, s)
        self.task = nn.Parameter(torch.randn(TASKS, d) * 0.01)
        self.view = nn.Linear(d, d)
        self.attention_weight, self.attention_bias = nn.Linear(s, 2 * d * d), nn.Linear(s, d)
        self.score = nn.Parameter(torch.randn(d) * d**-0.5)
        self.tower_weights = nn.ModuleList(nn.Linear(s, d * d) for _ in range(2))
        self.tower_biases = nn.ModuleList(nn.Linear(s, d) for _ in range(2))
        self.heads = nn.Parameter(torch.randn(TASKS, d) * 0.1)
        self.bias = nn.Parameter(torch.zeros(TASKS))

    def encode(self, behaviours, seen):
        x = behaviours + self.places
        x = self.norms[0](x + self.out(attend(*self.qkv(x).chunk(3, 2), 4, seen)))
        return mean_of_seen(self.norms[1](x + self.ffn(x)), seen)

    def forward(self, x0, batch, behaviours):
        rows, d = len(x0), self.UNITS
        experts = self.experts(torch.cat([self.encode(behaviours, batch["seen"]), x0], 1)).transpose(0, 1)
        knowledge = torch.cat([self.scene(batch["scenario"]), x0[:, : 4 * DIM]], 1)
        knowledge = F.leaky_relu(self.knowledge(knowledge))
        views = F.leaky_relu(self.view(self.task))
        shape = (rows, TASKS, self.EXPERTS, d)
        pairs = torch.cat([experts.unsqueeze(1).expand(shape), views[None, :, None].expand(shape)], 3)
        weight = self.attention_weight(knowledge).view(rows, 2 * d, d)
        hidden = torch.baddbmm(self.attention_bias(knowledge).unsqueeze(1), pairs.flatten(1, 2), weight)
        scores = F.leaky_relu(hidden).matmul(self.score).view(rows, TASKS, self.EXPERTS)
        top = torch.bmm(torch.softmax(scores, 2), experts)
        for weights, biases in zip(self.tower_weights, self.tower_biases):
            weight = weights(knowledge).view(rows, d, d)
            moved = F.leaky_relu(torch.baddbmm(biases(knowledge).unsqueeze(1), top, weight))
            top = F.leaky_relu(moved + top)
        return (top * self.heads).sum(2) + self.bias


class Dffm(Model):
    """Fields pass a layer of their scenario before they interact; attention over behaviours has maps made of the last
    field's row and the scenario."""

    reads_history = True
    HEADS, HEAD_DIM, RANK = 4, 8, 4

    def __init__(self, side_by_side):
        super().__init__()
        self.domain_weight = nn.Parameter(torch.randn(SCENES, DIM, DIM) * DIM**-0.5)
        self.domain_bias = nn.Parameter(torch.zeros(SCENES, 1, DIM))
        first, second = torch.triu_indices(FIELDS, FIELDS, 1)
        self.register_buffer("pairs", first * FIELDS + second)
        self.deep = perceptron(len(self.pairs) + WIDTH, [512, 256])
        self.scene = nn.Embedding(SCENES, DIM)
        self.low = nn.Linear(DIM, 3 * self.HEADS * self.RANK, bias=False)
        self.out = nn.Linear(self.HEADS * self.HEAD_DIM, DIM, bias=False)
        self.fusion = perceptron(256 + DIM, [128, 64])
        self.heads = nn.Linear(64, TASKS)

    def behaviours(self, target, scene, behaviours, seen):
        maps = torch.cat([target, self.scene(scene)], 1).view(-1, self.HEAD_DIM, self.RANK)
        low = self.low(behaviours).view(len(target), -1, self.RANK)
        high = torch.bmm(low, maps.transpose(1, 2)).view(len(target), LONGEST_HISTORY, -1)
        return mean_of_seen(self.out(attend(*high.chunk(3, 2), self.HEADS, seen)), seen)

    def forward(self, x0, batch, behaviours):
        scene, fields = batch["scenario"], x0[:, : FIELDS * DIM].unflatten(1, (FIELDS, DIM))
        moved = torch.tanh(torch.baddbmm(self.domain_bias[scene], fields, self.domain_weight[scene]))
        products = torch.bmm(moved, moved.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        deep = self.deep(torch.cat([products, x0], 1))
        pooled = self.behaviours(fields[:, -1], scene, behaviours, batch["seen"])
        return self.heads(self.fusion(torch.cat([deep, pooled], 1)))


MODELS = {
    "shared_bottom": SharedBottom,
    "mmoe": Mmoe,
    "ple": Ple,
    "esmm": Esmm,
    "dcn_v2": DcnV2,
    "star": Star,
    "pepnet": PepNet,
    "hinet": HiNet,
    "adasparse": AdaSparse,
    "m2m": M2m,
    "dffm": Dffm,
}


class Ranker(nn.Module):
    """A model on its table: one for all fields, with sparse gradients. A batch to logits [B, tasks]."""

    def __init__(self, name, side_by_side):
        super().__init__()
        self.net = MODELS[name](side_by_side)
        # A history that has a table of its own stands behind all fields, another shares the last field's rows.
        self.history_start = TABLE_ROWS if self.net.own_table else TABLE_ROWS - VOCABULARIES[-1]
        rows = self.history_start + VOCABULARIES[-1]
        self.table = nn.Embedding(rows, DIM, sparse=True)
        nn.init.normal_(self.table.weight, std=0.01)

    def forward(self, batch):
        x = torch.cat([self.table(batch["ids"]).flatten(1), batch["dense"]], dim=1)
        if not self.net.reads_history:
            return self.net(x, batch)
        return self.net(x, batch, self.table(self.history_start + batch["history"]))

    def loss(self, batch):
        return self.net.loss(self(batch), batch["labels"])
