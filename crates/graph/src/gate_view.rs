//! Gates that people may look at: what a layer says of the numbers by which it weighs experts or scales fields.
//!
//! A view names values that the model computes anyway; nothing is added to a plan until somebody makes them outputs
//! ([`Graph::output_gates`]).

use crate::graph::{Graph, Value};
use crate::shape::Space;
use manygate_core::{Error, Result};
use manygate_kernels::amplitude::Amplitude;

/// A gate.
#[derive(Clone, Debug)]
pub struct GateView {
    /// The prefix of its parameters: `gates.click`.
    pub name: String,
    /// What it weighs, in order: experts or fields.
    pub of: Vec<String>,
    /// Where its numbers come from.
    pub weights: GateWeights,
}

/// How a gate weighs.
#[derive(Clone, Debug)]
pub enum GateWeights {
    /// A softmax over experts.
    Softmax {
        /// `[batch, experts seen]`.
        logits: Value,
        /// Number of the largest logits that count; 0 for all.
        top_k: usize,
        /// Outputs of all experts side by side, `[batch, experts · width]`.
        bank: Value,
        /// Experts in the bank.
        experts: usize,
        /// Which of them the logits are of.
        sees: Vec<usize>,
    },
    /// Factors of fields, or of their units.
    Factors {
        /// What the amplitudes are taken of, `[batch, Σ widths]`.
        arguments: Value,
        /// From argument to factor.
        amplitude: Amplitude,
        /// Factors that each field has.
        widths: Vec<usize>,
    },
    /// A transformation of each field's vector: what matters is how much longer it makes it.
    Gain {
        /// The vectors side by side, `[batch, fields · width]`.
        before: Value,
        /// What becomes of them, `[batch, fields · width']`.
        after: Value,
    },
}

impl GateWeights {
    /// Every value that a view of this kind reads, with a name of its own.
    fn values(&self) -> Vec<(&'static str, Value)> {
        match *self {
            GateWeights::Softmax { logits, bank, .. } => vec![("logits", logits), ("bank", bank)],
            GateWeights::Factors { arguments, .. } => vec![("arguments", arguments)],
            GateWeights::Gain { before, after } => vec![("before", before), ("after", after)],
        }
    }
}

impl GateView {
    /// Name of the output that [`Graph::output_gates`] makes of a value of the view: `gate gates.click: logits`.
    pub fn output(&self, value: &str) -> String {
        format!("gate {}: {value}", self.name)
    }
}

impl Graph {
    /// Says that a layer is a gate.
    ///
    /// # Errors
    /// When another gate has the name, or a value has no row a sample.
    pub fn show_gate(&mut self, gate: GateView) -> Result<()> {
        if self.gates.iter().any(|other| other.name == gate.name) {
            return Err(Error::graph(gate.name, "two gates have this name"));
        }
        for (what, value) in gate.weights.values() {
            let shape = self.shape(value);
            if shape.space != Space::Batch {
                return Err(Error::graph(gate.output(what), format!("{shape} has no row a sample")));
            }
        }
        self.gates.push(gate);
        Ok(())
    }

    /// The gates of the model.
    pub fn gates(&self) -> &[GateView] {
        &self.gates
    }

    /// Makes what all gates read the only outputs.
    pub fn output_gates(&mut self) {
        self.retain_outputs(|_| false);
        for gate in self.gates.clone() {
            for (what, value) in gate.weights.values() {
                self.output(gate.output(what), value);
            }
        }
    }
}
