//! One interaction of the fields, chosen by its kind, under one MLP with the fields themselves.
//!
//! ```text
//! i    the interaction of e_1 … e_F                  none, inner, bi, vector, matrix or autoint
//! h    = deep([i ; e_1 … e_F ; dense])               p_t = sigmoid(v_t · h + a_t)
//! ```
//!
//! | alias | kind | paper |
//! |---|---|---|
//! | `pnn` | inner: the products e_f · e_g of all pairs | Y. Qu et al., *Product-based Neural Networks*, ICDM 2016 |
//! | `nfm` | bi: their element-wise sum, of width dim | X. He, T.-S. Chua, *Neural Factorization Machines*, SIGIR 2017 |
//! | `autoint` | autoint: attention among fields | W. Song et al., *AutoInt*, CIKM 2019 |
//! | `dnn` | none | |
//!
//! vector and matrix are the cross layers of [`dcn`](crate::dcn) and [`dcn_v2`](crate::dcn_v2) below the MLP.
//! Parameters: `embedding.<f>.weight`, `inter.*` as the [interaction](crate::layers::interaction) has them, `deep.<i>.*`,
//! `head.<task>.{weight,bias}`.
//!
//! Each pair counts once, and no field with itself: a full F x F matrix is the same function with twice the weights. AutoInt's
//! scores are not scaled in the paper, though they are in many libraries (`scale`), and its residual is of a layer's input
//! before the relu.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::interaction::{Interaction, Kind, interaction};
use crate::layers::mlp::mlp;
use crate::layers::{concat, tasks, towers, trunk};
use crate::registry::{Alias, Architecture, Entry, Preset};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::Result;
use manygate_graph::Graph;
use serde::{Deserialize, Serialize};

/// Configuration of interactions.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Interactions {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    kind: Kind,
    layers: usize,
    heads: usize,
    head_dim: usize,
    scale: bool,
    deep_units: Vec<usize>,
    dropout: f64,
}

impl Default for Interactions {
    fn default() -> Self {
        Interactions {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            kind: Kind::Inner,
            layers: 3,
            heads: 2,
            head_dim: 32,
            scale: false,
            deep_units: vec![128, 64],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 7] = [
    Key {
        name: "kind",
        default: "\"inner\"",
        doc: "none, inner, bi, vector, matrix or autoint; the aliases dnn, pnn, nfm and autoint choose it",
    },
    Key { name: "layers", default: "3", doc: "layers of vector, matrix and autoint" },
    Key { name: "heads", default: "2", doc: "heads of autoint" },
    Key { name: "head_dim", default: "32", doc: "width of a head of autoint" },
    Key {
        name: "scale",
        default: "false",
        doc: "whether autoint divides scores by the head's root width (the paper does not)",
    },
    Key { name: "deep_units", default: "[128, 64]", doc: "widths above the interaction" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "interactions",
    aliases: &[
        Alias {
            name: "pnn",
            summary: "products of all pairs of fields",
            paper: "Y. Qu et al., \"Product-based Neural Networks for User Response Prediction\", ICDM 2016",
            preset: Some(Preset { key: "kind", value: "inner" }),
        },
        Alias {
            name: "nfm",
            summary: "the sum of the products of all pairs of fields, unit by unit",
            paper: "X. He, T.-S. Chua, \"Neural Factorization Machines\", SIGIR 2017",
            preset: Some(Preset { key: "kind", value: "bi" }),
        },
        Alias {
            name: "autoint",
            summary: "attention among fields",
            paper: "W. Song et al., \"AutoInt\", CIKM 2019",
            preset: Some(Preset { key: "kind", value: "autoint" }),
        },
        Alias {
            name: "dnn",
            summary: "an MLP over the fields, without an interaction",
            paper: "",
            preset: Some(Preset { key: "kind", value: "none" }),
        },
    ],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::HardSharing,
    summary: "fields interact by products, cross layers or attention, under one MLP; a linear head per task",
    paper: "Y. Qu et al., \"Product-based Neural Networks for User Response Prediction\", ICDM 2016; X. He, T.-S. Chua, \"Neural Factorization Machines\", SIGIR 2017; W. Song et al., \"AutoInt\", CIKM 2019",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(4).0,
    parse: |keys| Ok(Box::new(config::parse::<Interactions>(keys)?)),
};

impl Architecture for Interactions {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let fields = trunk::equal_fields(g, inputs, common.embedding, x0, "interactions")?;
        let Interactions { kind, layers, heads, head_dim, scale, .. } = *self;
        let style = Interaction { kind, layers, heads, head_dim, scale };
        style.check("")?;
        let mut parts = interaction(g, style, x0, [fields, self.embedding_dim], &mut |_, e, _| Ok(e))?;
        parts.push(x0);
        let input = concat::concat(g, "deep.input", &parts)?;
        let h = mlp(g, "deep", input, common.mlp(&self.deep_units))?;
        let logits = towers::heads(g, "head", inputs, h)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use crate::inputs::{Field, Inputs, Table, Task};
    use crate::registry::{build, from_table};
    use manygate_graph::Mode;

    #[test]
    fn a_preset_yields_to_the_key() {
        for (keys, kind) in [
            ("name = \"pnn\"", "inner"),
            ("name = \"nfm\"", "bi"),
            ("name = \"autoint\"", "autoint"),
            ("name = \"dnn\"", "none"),
            ("name = \"interactions\"", "inner"),
            ("name = \"dnn\"\nkind = \"vector\"", "vector"),
        ] {
            let (entry, model) = from_table(&keys.parse().unwrap()).unwrap();
            assert_eq!(
                (entry.name, model.resolved()["kind"].as_str()),
                ("interactions", Some(kind)),
                "{keys}"
            );
        }
    }

    #[test]
    fn too_few_or_unlike_fields_are_told() {
        let table = |dim| Table { name: "user".into(), rows: 5, dim };
        let field = Field { name: "user".into(), table: 0 };
        let error = |dim, kind: &str| {
            let keys = format!("name = \"interactions\"\nkind = \"{kind}\"");
            let (_, model) = from_table(&keys.parse().unwrap()).unwrap();
            let inputs = Inputs {
                tables: vec![table(dim)],
                fields: vec![field.clone()],
                tasks: vec![Task::binary("click")],
                ..Inputs::default()
            };
            build(model.as_ref(), &inputs, Mode::Training).map(|_| ()).unwrap_err().to_string()
        };
        let few = error(None, "inner");
        assert!(few.contains("needs 2 categorical features at least, there are 1"), "{few}");
        let unlike = error(Some(3), "bi");
        assert!(
            unlike.contains("interactions needs all tables as wide as the model's embeddings: 16"),
            "{unlike}"
        );
    }
}
