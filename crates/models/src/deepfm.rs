//! A factorisation machine, weights of the first order and all products of two fields, and an MLP on the same vectors.
//!
//! S. Rendle, *Factorization Machines*, ICDM 2010. H. Guo, R. Tang, Y. Ye, Z. Li, X. He, *DeepFM: A Factorization-Machine
//! based Neural Network for CTR Prediction*, IJCAI 2017.
//!
//! ```text
//! z1 = b + Σ_f u_f[id_f] + c · x             u_f a table of width 1 a field, x the numbers
//! z2 = Σ_{f<g} v_f · v_g                     v_f the fields' vectors; with dense_field x_j t_j among them
//! z3 = r · deep([v_1 … v_F ; x])             without a bias of its own; deep_units = [] leaves the plain machine
//! p  = sigmoid(z1 + z2 + z3)                 L = BCE(y, p)
//! ```
//!
//! Parameters: `embedding.<f>.weight` `[ids, dim]`, `linear.<f>.weight` `[ids, 1]`, `bias` `[1]`, `linear_dense.weight` `[1, D]`,
//! `dense_vectors` `[D, dim]`, `deep.<i>.{weight,bias}`, `deep_out.weight` `[1, u]`.
//!
//! The second order costs F · dim: each field times the sum of those before it, where the usual difference of squares
//! loses digits. A bag is a field, whose vector is its pooled rows in both orders. Others take the first order from a column
//! of the embedding, which is another model, or forget the half in front of the difference.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::mlp::mlp;
use crate::layers::trunk::{self, Embedding, own_table};
use crate::layers::{concat, linear, tasks};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{BiInteraction, Broadcast, GroupedLinear, LookupTrunk, SumColumns, WeightPart};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// Configuration of deepfm.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeepFm {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    dense_field: bool,
    deep_units: Vec<usize>,
    dropout: f64,
}

impl Default for DeepFm {
    fn default() -> Self {
        DeepFm {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            dense_field: false,
            deep_units: vec![400, 400, 400],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 3] = [
    Key {
        name: "dense_field",
        default: "false",
        doc: "whether each number, times a vector of its own, is a field of the second order",
    },
    Key {
        name: "deep_units",
        default: "[400, 400, 400]",
        doc: "widths of the MLP; [] for a factorisation machine alone",
    },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "deepfm",
    aliases: &[],
    relation: Relation::Single,
    structure: Structure::None,
    method: Method::HardSharing,
    summary: "first-order weights, all products of two fields, and an MLP on the same vectors; one task",
    paper: "H. Guo et al., \"DeepFM: A Factorization-Machine based Neural Network for CTR Prediction\", IJCAI 2017",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(4).0,
    parse: |keys| Ok(Box::new(config::parse::<DeepFm>(keys)?)),
};

impl Architecture for DeepFm {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        if inputs.tasks.len() != 1 {
            let message = format!(
                "deepfm predicts one task, and there are {}; list one, or take interactions, dcn or dcn_v2",
                inputs.tasks.len()
            );
            return Err(Error::config("tasks", message));
        }
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let fields = trunk::equal_fields(g, inputs, common.embedding, x0, "deepfm")?;
        let bias = g.param(ParamSpec::new(vec![Block::vector("bias", 1, Init::Constant(0.0))])?)?;
        let mut terms = vec![g.add("bias", Broadcast::vector(), &[bias])?];
        terms.extend(first_order(g, inputs, common.embedding, x0)?);
        terms.extend(self.second_order(g, inputs, fields, x0)?);
        if !self.deep_units.is_empty() {
            let deep = mlp(g, "deep", x0, common.mlp(&self.deep_units))?;
            terms.push(linear::bare(g, "deep_out", &["deep_out".to_owned()], deep, 1)?);
        }
        let logit = g.add("logit", SumColumns::new(terms.len()), &terms)?;
        tasks::heads(g, inputs, &[logit])
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// Weights of ids, a column a field, and the weighed sum of the numbers. They start at 0.
fn first_order(g: &mut Graph, inputs: &Inputs, embedding: Embedding, x0: Value) -> Result<Vec<Value>> {
    let mut terms = Vec::with_capacity(2);
    let numberless = Inputs { dense: 0, ..inputs.clone() };
    if !inputs.fields.is_empty() || !inputs.bags.is_empty() {
        let zero = Embedding { deviation: 0.0, ..embedding };
        let pieces = trunk::pieces(
            &numberless,
            |_| true,
            |index| {
                let table = &inputs.tables[index];
                Ok((own_table(g, format!("linear.{}.weight", table.name), table.rows, 1, zero)?, 1))
            },
        )?;
        terms.push(g.add("linear", LookupTrunk::new(pieces), &[])?);
    }
    if inputs.dense > 0 {
        let numbers = g.columns(x0, g.cols(x0) - inputs.dense, inputs.dense)?;
        terms.push(linear::bare(g, "linear_dense", &["linear_dense".to_owned()], numbers, 1)?);
    }
    Ok(terms)
}

impl DeepFm {
    /// The products of two fields, summed over pairs: `[batch, dim]`. None where there is no field.
    fn second_order(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        fields: usize,
        x0: Value,
    ) -> Result<Option<Value>> {
        let (dim, dense) = (self.embedding_dim, inputs.dense);
        let (mut vectors, mut count) = (Vec::with_capacity(2), fields);
        if fields > 0 {
            vectors.push(g.columns(x0, 0, fields * dim)?);
        }
        if self.dense_field && dense > 0 {
            let numbers = g.columns(x0, fields * dim, dense)?;
            let start = Init::Normal(self.embedding_deviation as f32);
            let own = Block::weight("dense_vectors", dense, dim, start);
            let own = g.param(ParamSpec::new(vec![own])?)?;
            let own = g.add("dense_vectors.columns", WeightPart::new(0, dim, 1), &[own])?;
            let scaled = GroupedLinear::new(dense, dim, false, Activation::Identity);
            vectors.push(g.add("dense_vectors", scaled, &[numbers, own])?);
            count += dense;
        }
        if vectors.is_empty() {
            return Ok(None);
        }
        let vectors = concat::concat(g, "second_order.fields", &vectors)?;
        g.add("second_order", BiInteraction::new(count), &[vectors]).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use crate::inputs::{Inputs, Task};
    use crate::registry::{build, from_table};
    use manygate_graph::Mode;

    #[test]
    fn several_tasks_are_told() {
        let inputs =
            Inputs { dense: 2, tasks: ["click", "buy"].map(Task::binary).to_vec(), ..Inputs::default() };
        let (_, model) = from_table(&"name = \"deepfm\"".parse().unwrap()).unwrap();
        let error = build(model.as_ref(), &inputs, Mode::Training).unwrap_err().to_string();
        assert!(error.contains("tasks: deepfm predicts one task, and there are 2"), "{error}");
    }
}
