//! Experts and the gates that mix them.
//!
//! Experts: MLPs of one shape, which stand side by side as a bank `[batch, experts · last unit]`. A gate with prefix G:
//! softmax over the experts that it sees of `G.weight` x (+ `G.bias`), or of the last layer of a hidden MLP
//! `G.hidden.<i>` of x. A gate of each scenario is `G.<scenario>`.

use super::concat::concat;
use super::linear::{self, Head};
use super::mlp::{MlpInput, MlpStyle, Networks, linears_named, mlps, mlps_with_heads};
use manygate_core::{Error, Result};
use manygate_graph::ops::{GateCombine, GateCombineSeen};
use manygate_graph::{GateView, GateWeights, Graph, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::gate::Seen;

/// How gates see their input.
#[derive(Clone, Copy, Debug)]
pub struct GateStyle<'a> {
    /// Whether the last map has a bias.
    pub bias: bool,
    /// Hidden MLP of each gate; none is the papers' bare linear map.
    pub hidden: MlpStyle<'a>,
}

/// Which experts a gate that sees all of them weighs in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// Number of experts, those with the largest logits; 0 for all.
    pub top_k: usize,
    /// Probability in training of a weight to be dropped; the rest is renormalised.
    pub dropout: f64,
}

/// A gate.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Prefix of its parameters.
    pub prefix: String,
    /// The experts of the bank that it sees, in the order of its logits.
    pub sees: Vec<usize>,
    /// Where it is one of each scenario, their number.
    pub scenarios: Option<usize>,
}

impl Gate {
    /// A gate that all scenarios share.
    pub fn new(prefix: impl Into<String>, sees: Vec<usize>) -> Gate {
        Gate { prefix: prefix.into(), sees, scenarios: None }
    }
}

/// Experts and gates that read the same value.
#[derive(Clone, Debug)]
pub struct Readers {
    /// The value, `[batch, width]`.
    pub input: Value,
    /// Prefixes of the experts.
    pub experts: Vec<String>,
    /// The gates, those of each scenario first.
    pub gates: Vec<Gate>,
}

impl Readers {
    /// With all gates of each scenario, where a number of them is given.
    pub fn by_scenario(mut self, scenarios: Option<usize>) -> Readers {
        self.gates.iter_mut().for_each(|gate| gate.scenarios = scenarios);
        self
    }
}

/// Experts [that all gates see](all_see_all), of which a gate weighs those of `choice`: `[batch, gates · last unit]`.
/// The first layer of all is one product.
///
/// # Errors
/// When the experts have no layer, more are to be chosen than there are, a width is 0 or a name is taken.
pub fn mixtures_of_all(
    g: &mut Graph,
    readers: &Readers,
    expert: MlpStyle<'_>,
    gate: GateStyle<'_>,
    choice: Choice,
) -> Result<Value> {
    let (bank, logits) = bank_and_logits(g, readers, expert, gate)?;
    let logits = concat(g, "gates", &logits)?;
    let mix = choice.among(g, readers.gates.len(), readers.experts.len())?;
    show_gates(g, &readers.gates.iter().collect::<Vec<_>>(), &readers.experts, [logits, bank], choice.top_k)?;
    g.add("mixtures", mix, &[logits, bank])
}

impl Choice {
    /// The mixing of `experts` by `gates`.
    ///
    /// # Errors
    /// When more are to be chosen than there are.
    fn among(self, g: &Graph, gates: usize, experts: usize) -> Result<GateCombine> {
        if self.top_k > experts {
            let message = format!("{} of {experts} experts cannot be chosen", self.top_k);
            return Err(Error::config("model.top_k", message));
        }
        let mut combine = GateCombine::new(gates, experts);
        if self.top_k > 0 {
            combine = combine.best(self.top_k);
        }
        if g.is_training() && self.dropout > 0.0 {
            combine = combine.dropping("mixtures", self.dropout);
        }
        Ok(combine)
    }
}

/// All that the `readers` name, over one value: the first layer of all of it is one product.
pub fn together(input: Value, readers: Vec<Readers>) -> Readers {
    let mut all = Readers { input, experts: Vec::new(), gates: Vec::new() };
    for readers in readers {
        all.experts.extend(readers.experts);
        all.gates.extend(readers.gates);
    }
    all
}

/// Experts over `input`, all of which every gate sees.
pub fn all_see_all(input: Value, experts: Vec<String>, gates: Vec<String>) -> Readers {
    let sees: Vec<usize> = (0..experts.len()).collect();
    let gates = gates.into_iter().map(|prefix| Gate::new(prefix, sees.clone())).collect();
    Readers { input, experts, gates }
}

/// The bank of all experts, in order, mixed by each gate, in order: `[batch, gates · last unit]`. The first layer of
/// what reads one value is one product.
///
/// # Errors
/// When the experts have no layer, an expert is seen by no gate, a width is 0 or a name is taken.
pub fn mixtures(
    g: &mut Graph,
    readers: &[Readers],
    expert: MlpStyle<'_>,
    gate: GateStyle<'_>,
) -> Result<Value> {
    let (bank, logits) = bank_and_logits_of_all(g, readers, expert, gate)?;
    show_readers(g, readers, [logits, bank])?;
    let experts = readers.iter().map(|r| r.experts.len()).sum();
    let sees: Vec<Vec<usize>> = readers.iter().flat_map(|r| &r.gates).map(|gate| gate.sees.clone()).collect();
    mix(g, logits, bank, experts, &sees)
}

/// A bank of `experts`, mixed by gates whose logits stand in order, each over what it sees of the bank:
/// `[batch, gates · width]`.
///
/// # Errors
/// When an expert is seen by no gate, or the shapes do not fit.
pub fn mix(g: &mut Graph, logits: Value, bank: Value, experts: usize, sees: &[Vec<usize>]) -> Result<Value> {
    if sees.iter().all(|sees| sees.iter().copied().eq(0..experts)) {
        return g.add("mixtures", GateCombine::new(sees.len(), experts), &[logits, bank]);
    }
    let seen = Seen::new(experts, sees).map_err(|message| Error::graph("mixtures", message))?;
    g.add("mixtures", GateCombineSeen::new(seen), &[logits, bank])
}

/// The bank of all experts and the logits of all gates, in order.
///
/// # Errors
/// As [`bank_and_logits`].
pub fn bank_and_logits_of_all(
    g: &mut Graph,
    readers: &[Readers],
    expert: MlpStyle<'_>,
    gate: GateStyle<'_>,
) -> Result<(Value, Value)> {
    let (mut banks, mut logits) = (Vec::new(), Vec::new());
    for readers in readers {
        let (bank, own) = bank_and_logits(g, readers, expert, gate)?;
        banks.push(bank);
        logits.extend(own);
    }
    Ok((concat(g, "bank", &banks)?, concat(g, "gates", &logits)?))
}

/// Tells of the gates of `readers` over the bank of all their experts, see [`bank_and_logits_of_all`].
///
/// # Errors
/// When two gates have one name.
pub fn show_readers(g: &mut Graph, readers: &[Readers], [logits, bank]: [Value; 2]) -> Result<()> {
    let experts: Vec<String> = readers.iter().flat_map(|r| r.experts.clone()).collect();
    let gates: Vec<&Gate> = readers.iter().flat_map(|r| &r.gates).collect();
    show_gates(g, &gates, &experts, [logits, bank], 0)
}

/// Tells of gates over a bank of `experts`, whose logits stand side by side.
///
/// # Errors
/// When two gates have one name.
pub fn show_gates(
    g: &mut Graph,
    gates: &[&Gate],
    experts: &[String],
    [logits, bank]: [Value; 2],
    top_k: usize,
) -> Result<()> {
    let mut from = 0;
    for gate in gates {
        let own = g.columns(logits, from, gate.sees.len())?;
        from += gate.sees.len();
        let weights = GateWeights::Softmax {
            logits: own,
            top_k,
            bank,
            experts: experts.len(),
            sees: gate.sees.clone(),
        };
        let of = gate.sees.iter().map(|&e| experts[e].clone()).collect();
        g.show_gate(GateView { name: gate.prefix.clone(), of, weights })?;
    }
    Ok(())
}

/// That experts have a layer.
///
/// # Errors
/// [`Error::Config`] where they have none.
pub fn check_experts(expert: MlpStyle<'_>) -> Result<()> {
    match expert.units {
        [] => Err(Error::config("model.expert_units", "experts need at least one layer")),
        _ => Ok(()),
    }
}

/// The experts `[batch, experts · last unit]`, and the logits of the gates, of several gates in one value or not.
///
/// # Errors
/// When the experts have no layer, a width is 0 or a name is taken.
pub fn bank_and_logits(
    g: &mut Graph,
    readers: &Readers,
    expert: MlpStyle<'_>,
    gate: GateStyle<'_>,
) -> Result<(Value, Vec<Value>)> {
    check_experts(expert)?;
    let Readers { input, experts, gates } = readers;
    let (of_scenarios, shared) = gates.split_at(gates.partition_point(|gate| gate.scenarios.is_some()));
    if gate.hidden.units.is_empty() && !shared.is_empty() {
        let head = |gate: &Gate| Head { prefix: gate.prefix.clone(), out: gate.sees.len() };
        let heads: Vec<Head> = shared.iter().map(head).collect();
        let (bank, of_shared) = mlps_with_heads(g, experts, *input, expert, &heads, gate.bias)?;
        let mut logits = logits_by_scenario(g, *input, of_scenarios, gate)?;
        logits.push(of_shared);
        return Ok((bank, logits));
    }
    let bank = mlps(g, experts, MlpInput::Shared(*input), expert)?;
    Ok((bank, gate_logits(g, *input, gates, gate)?))
}

/// The logits of the gates of one input, those of each scenario first, of several gates in one value or not.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn gate_logits(g: &mut Graph, input: Value, gates: &[Gate], style: GateStyle<'_>) -> Result<Vec<Value>> {
    let (of_scenarios, gates) = gates.split_at(gates.partition_point(|gate| gate.scenarios.is_some()));
    let mut logits = logits_by_scenario(g, input, of_scenarios, style)?;
    if gates.is_empty() {
        return Ok(logits);
    }
    let hidden: Vec<String> = gates.iter().map(|gate| format!("{}.hidden", gate.prefix)).collect();
    let hidden = mlps(g, &hidden, MlpInput::Shared(input), style.hidden)?;
    let width = g.cols(hidden) / gates.len();
    let mut from = 0;
    // Maps of one width are one product.
    for alike in gates.chunk_by(|a, b| a.sees.len() == b.sees.len()) {
        let prefixes: Vec<String> = alike.iter().map(|gate| gate.prefix.clone()).collect();
        let x = g.columns(hidden, from, alike.len() * width)?;
        from += alike.len() * width;
        let out = alike[0].sees.len();
        logits.push(linears_named(g, "gates", &prefixes, x, out, style.bias, Activation::Identity)?);
    }
    Ok(logits)
}

/// The logits of gates of each scenario; a row computes those of its own.
fn logits_by_scenario(g: &mut Graph, x: Value, gates: &[Gate], style: GateStyle<'_>) -> Result<Vec<Value>> {
    let Some(scenarios) = gates.first().and_then(|gate| gate.scenarios) else { return Ok(Vec::new()) };
    let head = |gate: &Gate, s: usize| Head { prefix: format!("{}.{s}", gate.prefix), out: gate.sees.len() };
    // Without hidden layers all gates are one product.
    let together = if style.hidden.units.is_empty() { gates.len() } else { 1 };
    let mut logits = Vec::new();
    for gates in gates.chunks(together) {
        let prefix = &gates[0].prefix;
        let hidden: Vec<String> = (0..scenarios).map(|s| format!("{prefix}.{s}.hidden")).collect();
        let hidden = Networks::by_scenario(&hidden, scenarios);
        let hidden = mlps(g, hidden, MlpInput::Shared(x), style.hidden)?;
        let heads = (0..scenarios).flat_map(|s| gates.iter().map(move |gate| head(gate, s)));
        let heads: Vec<Head> = heads.collect();
        let (bias, bare) = (style.bias, Activation::Identity);
        logits.push(linear::by_scenario(g, prefix, &heads, scenarios, hidden, bias, bare)?);
    }
    Ok(logits)
}
