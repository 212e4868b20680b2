//! Gates that tell, from what is known before, how much each unit counts: one over the shared embedding, by scenario,
//! and one for each layer of the towers, by who and what a sample is.
//!
//! J. Chang, C. Zhang, Y. Hui, D. Leng, Y. Niu, Y. Song, K. Gai, *PEPNet: Parameter and Embedding Personalized Network
//! for Infusing with Personalized Prior Information*, KDD 2023.
//!
//! ```text
//! GateNU(x) = γ sigmoid(W1 relu(W0 x + b0) + b1)             γ = 2: a gate that knows nothing says 1
//! EPNet:  E = x0 [w];   O = GateNU([scene_s ; domain fields ; sg(E)]) ⊗ E
//! PPNet:  δ^l = GateNU^l([prior fields ; sg(O)])             [T · d_l], task by task: one gate a layer
//! towers: H^0 = O;      H^{l+1} = f(W_t^l (δ_t^l ⊗ H^l) + b_t^l)     site "input", the paper's; the logit layer too
//!                       H^{l+1} = δ_t^l ⊗ f(W_t^l H^l + b_t^l)       site "output": hidden layers alone
//! L = Σ_t w_t BCE(y_t, sigmoid(H_t))
//! ```
//!
//! sg is without gradient, the embeddings of scenario, domain and prior fields learn through the gates. Parameters:
//! `embedding.<f>.weight`, `scene.weight` `[S, scenario_dim]`, `epnet.gate.{0,1}.{weight,bias}`,
//! `ppnet.gates.<l>.{0,1}.{weight,bias}`, `towers.<task>.<l>.{weight,bias}`, with own prior tables `prior.<f>.weight`.
//!
//! All gates of the towers read the same, so that their first layers are one product; layers of all towers are one
//! grouped product. A gate's last layer is one tensor for all tasks, and a plan that serves some of them still computes
//! all of it.
//!
//! Others cut the whole gate off the gradient, so that it never learns, or cut E where it is multiplied; feed towers
//! with the input of the gates; or have a tower for each scenario in place of each task.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::dropout::dropout;
use crate::layers::gate_unit::{self, Gate};
use crate::layers::mlp::{MlpInput, MlpStyle, linears, mlps};
use crate::layers::{concat, scenario, tasks, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Concat, LookupTrunk, Piece};
use manygate_graph::{Graph, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// Where the gates of towers look up what is known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum PriorTables {
    /// In the tables of the trunk.
    Shared,
    /// In tables of their own.
    Own,
}

/// What of a tower's layer is gated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Site {
    Input,
    Output,
}

/// Configuration of pepnet.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pepnet {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    tower_units: Vec<usize>,
    epnet: bool,
    ppnet: bool,
    scenario_dim: usize,
    domain_fields: Vec<String>,
    prior_fields: Vec<String>,
    prior_tables: PriorTables,
    gamma: f64,
    gate_hidden: usize,
    gate_site: Site,
    stop_gradient: bool,
    dropout: f64,
}

impl Default for Pepnet {
    fn default() -> Self {
        Pepnet {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            tower_units: vec![128, 64],
            epnet: true,
            ppnet: true,
            scenario_dim: 16,
            domain_fields: Vec::new(),
            prior_fields: Vec::new(),
            prior_tables: PriorTables::Shared,
            gamma: 2.0,
            gate_hidden: 64,
            gate_site: Site::Input,
            stop_gradient: true,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 12] = [
    Key { name: "tower_units", default: "[128, 64]", doc: "hidden widths of each task's tower" },
    Key { name: "epnet", default: "true", doc: "whether a gate by scenario is over the shared embedding" },
    Key {
        name: "ppnet",
        default: "true",
        doc: "whether gates by prior knowledge are over the layers of towers",
    },
    Key { name: "scenario_dim", default: "16", doc: "width of the scenario's embedding" },
    Key {
        name: "domain_fields",
        default: "[]",
        doc: "categorical features that the gate of epnet reads beside the scenario",
    },
    Key {
        name: "prior_fields",
        default: "[]",
        doc: "categorical features that the gates of ppnet read: ids of user, item and author in the paper",
    },
    Key {
        name: "prior_tables",
        default: "\"shared\"",
        doc: "shared or own: whether prior fields are looked up in the tables of the trunk",
    },
    Key { name: "gamma", default: "2.0", doc: "largest amplitude of a gate" },
    Key {
        name: "gate_hidden",
        default: "64",
        doc: "hidden width of every gate; 0 for as many as the gate has amplitudes",
    },
    Key {
        name: "gate_site",
        default: "\"input\"",
        doc: "input or output: which side of a tower's layers is gated",
    },
    Key {
        name: "stop_gradient",
        default: "true",
        doc: "whether no gradient flows through gates into the shared embedding that they read",
    },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "pepnet",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::SingleTower,
    method: Method::DynamicWeights,
    summary: "a gate by scenario over the shared embedding, gates by prior knowledge over the layers of towers",
    paper: "J. Chang et al., \"PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior Information\", KDD 2023",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<Pepnet>(keys)?)),
};

impl Architecture for Pepnet {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check()?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let o = if self.epnet { self.epnet(g, inputs, &common, x0)? } else { x0 };
        let gates = if self.ppnet { self.gates(g, inputs, &common, x0, o)? } else { Vec::new() };
        let mut logits = Vec::with_capacity(inputs.tasks.len());
        // Tasks that are not served stand apart, so that a plan which serves computes no towers for them.
        for side_by_side in inputs.tasks.chunk_by(|a, b| a.auxiliary == b.auxiliary) {
            let prefixes: Vec<String> = side_by_side.iter().map(|t| format!("towers.{}", t.name)).collect();
            let first = logits.len();
            let own = gates.iter().map(|&gate| {
                let width = g.cols(gate) / inputs.tasks.len();
                g.columns(gate, first * width, side_by_side.len() * width)
            });
            let own = own.collect::<Result<Vec<Value>>>()?;
            let all = self.towers(g, &common, &prefixes, o, &own)?;
            for t in 0..side_by_side.len() {
                logits.push(g.columns(all, t, 1)?);
            }
        }
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl Pepnet {
    fn check(&self) -> Result<()> {
        let idle = |key: &str, net: &str| {
            let message = format!("only `{net}` reads it, which is off: turn that on, or leave this out");
            Err(Error::config(format!("model.{key}"), message))
        };
        match (self.epnet, self.ppnet) {
            (false, _) if !self.domain_fields.is_empty() => idle("domain_fields", "epnet"),
            (_, false) if !self.prior_fields.is_empty() => idle("prior_fields", "ppnet"),
            (_, true) if self.gate_site == Site::Output && self.tower_units.is_empty() => Err(Error::config(
                "model.gate_site",
                "output gates hidden layers, and `tower_units` lists none",
            )),
            _ => Ok(()),
        }
    }

    fn gate(&self, prefix: &str, out: usize) -> Gate {
        Gate::new(prefix, Some(self.gate_hidden).filter(|&hidden| hidden > 0), out)
    }

    /// What gates read of a value that others learn by.
    fn read(&self, g: &mut Graph, value: Value) -> Value {
        if self.stop_gradient { g.stop_gradient(value) } else { value }
    }

    /// O: the shared embedding as the scenario has it.
    fn epnet(&self, g: &mut Graph, inputs: &Inputs, common: &Common, x0: Value) -> Result<Value> {
        let (width, tables) = (self.scenario_dim, common.embedding);
        let (fields, key) = (&self.domain_fields, "model.domain_fields");
        let scene = scenario::embedding_and_fields(g, inputs, width, tables, x0, fields, key)?;
        let general = self.read(g, x0);
        let z = concat::concat(g, "epnet.input", &[scene, general])?;
        let gate = self.gate("epnet.gate", g.cols(x0));
        let r = gate_unit::gates(g, "epnet.gate.0", z, &[gate])?[0];
        gate_unit::show(g, "epnet", self.gamma, r, trunk::parts(inputs, common.embedding))?;
        gate_unit::apply(g, "epnet", self.gamma, r, x0)
    }

    /// What the sigmoid of δ^l is taken of, for each gated layer: `[batch, T · d_l]`.
    fn gates(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        common: &Common,
        x0: Value,
        o: Value,
    ) -> Result<Vec<Value>> {
        let mut parts = self.priors(g, inputs, common, x0)?;
        parts.push(self.read(g, o));
        let z = concat::concat(g, "ppnet.input", &parts)?;
        let widths: Vec<usize> = match self.gate_site {
            Site::Input => [g.cols(o)].iter().chain(&self.tower_units).copied().collect(),
            Site::Output => self.tower_units.clone(),
        };
        let gate =
            |(l, width): (usize, &usize)| self.gate(&format!("ppnet.gates.{l}"), inputs.tasks.len() * width);
        let gates: Vec<Gate> = widths.iter().enumerate().map(gate).collect();
        gate_unit::gates(g, "ppnet.gates.*.0", z, &gates)
    }

    /// Rows of the prior fields, none or one value.
    fn priors(&self, g: &mut Graph, inputs: &Inputs, common: &Common, x0: Value) -> Result<Vec<Value>> {
        let (key, mut parts, mut pieces) = ("model.prior_fields", Vec::new(), Vec::new());
        for name in &self.prior_fields {
            let columns = trunk::field(g, inputs, common.embedding, x0, name, key)?;
            if self.prior_tables == PriorTables::Shared {
                parts.push(columns);
                continue;
            }
            let dim = g.cols(columns);
            for (field, f) in inputs.fields.iter().enumerate().filter(|(_, f)| f.name == *name) {
                let (table, rows) = (format!("prior.{name}.weight"), inputs.tables[f.table].rows);
                let table = trunk::own_table(g, table, rows, dim, common.embedding)?;
                pieces.push(Piece::Field { field, table, dim });
            }
        }
        if !pieces.is_empty() {
            parts.push(g.add("prior", LookupTrunk::new(pieces), &[])?);
        } else if !parts.is_empty() {
            // A copy, which may stand beside the trunk that it is a part of.
            let widths = parts.iter().map(|&part| g.cols(part)).collect();
            parts = vec![g.add("prior", Concat::new(widths), &parts)?];
        }
        Ok(parts)
    }

    /// The towers `prefixes` side by side over `o`, with their columns of each gate: `[batch, towers]`.
    fn towers(
        &self,
        g: &mut Graph,
        common: &Common,
        prefixes: &[String],
        o: Value,
        gates: &[Value],
    ) -> Result<Value> {
        let name = |l: usize| format!("{}.gated.{l}", prefixes[0]);
        let mut x = MlpInput::Shared(o);
        if self.gate_site == Site::Input
            && let Some(&r) = gates.first()
        {
            x = MlpInput::Each(gate_unit::apply_to_copies(g, &name(0), self.gamma, r, o, prefixes.len())?);
        }
        let layers = self.tower_units.iter().map(|&units| (units, common.activation));
        let mut h = o;
        for (l, (units, activation)) in layers.chain([(1, Activation::Identity)]).enumerate() {
            h = tower_layer(g, prefixes, l, x, units, activation)?;
            let is_logit = l == self.tower_units.len();
            let next = match self.gate_site {
                Site::Input => gates.get(l + 1),
                Site::Output => gates.get(l),
            };
            if let Some(&r) = next {
                h = gate_unit::apply(
                    g,
                    &name(l + usize::from(self.gate_site == Site::Input)),
                    self.gamma,
                    r,
                    h,
                )?;
            }
            if !is_logit {
                h = dropout(g, &name(l), h, common.dropout)?;
            }
            x = MlpInput::Each(h);
        }
        Ok(h)
    }
}

/// Layer `l` of each tower: `[batch, towers · units]`.
fn tower_layer(
    g: &mut Graph,
    prefixes: &[String],
    l: usize,
    x: MlpInput,
    units: usize,
    activation: Activation,
) -> Result<Value> {
    match x {
        MlpInput::Each(x) => linears(g, prefixes, l, x, units, true, activation),
        first @ MlpInput::Shared(_) => mlps(
            g,
            prefixes,
            first,
            MlpStyle { units: &[units], activation, batch_norm: false, dropout: 0.0 },
        ),
    }
}

#[cfg(test)]
mod tests {
    use crate::inputs::{Inputs, Task};
    use manygate_graph::Mode;

    fn error(keys: &str) -> String {
        let table = format!("name = \"pepnet\"\n{keys}").parse().unwrap();
        let (_, architecture) = crate::from_table(&table).unwrap();
        let inputs =
            Inputs { dense: 3, scenarios: 2, tasks: vec![Task::binary("click")], ..Inputs::default() };
        crate::build(architecture.as_ref(), &inputs, Mode::Training).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (keys, told) in [
            ("epnet = false\ndomain_fields = [\"hour\"]", "model.domain_fields: only `epnet` reads it"),
            ("ppnet = false\nprior_fields = [\"user\"]", "model.prior_fields: only `ppnet` reads it"),
            ("gate_site = \"output\"\ntower_units = []", "model.gate_site: output gates hidden layers"),
            ("prior_fields = [\"user\"]", "model.prior_fields: there is no categorical feature `user`"),
            ("gamma = 0.0", "model.gamma: 0 is no largest amplitude"),
        ] {
            assert!(error(keys).contains(told), "{keys}: {}", error(keys));
        }
    }
}
