//! Deep & Cross: cross layers beside or below an ordinary MLP, and linear heads on what both give.
//!
//! ```text
//! parallel     h = [x_L ; deep(x0)]    stacked      h = deep(x_L)    cross_only   h = x_L
//! z_t = v_t · h + a_t
//! ```
//!
//! R. Wang et al., ADKDD 2017 and WWW 2021. Parameters, with prefix P (empty, or ending in a dot): `Pcross.<l>.*` as the
//! layers have them, `Pdeep.<i>.*`, `Phead.<task>.{weight,bias}`.

use super::concat::concat;
use super::mlp::{MlpStyle, mlp};
use super::towers;
use crate::inputs::Inputs;
use manygate_core::{Error, Result};
use manygate_graph::{Graph, Value};
use serde::{Deserialize, Serialize};

/// How cross layers and MLP stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Structure {
    /// Side by side on x0.
    Parallel,
    /// The MLP on the cross layers.
    Stacked,
    /// Cross layers alone.
    CrossOnly,
}

/// The shape of a Deep & Cross network.
#[derive(Clone, Copy, Debug)]
pub struct DeepCross<'a> {
    /// How both parts stand to each other.
    pub structure: Structure,
    /// Number of cross layers.
    pub layers: usize,
    /// The MLP.
    pub deep: MlpStyle<'a>,
}

/// Declares a cross layer, called by its prefix, from x0 and the running x.
pub type Layer<'a> = &'a mut dyn FnMut(&mut Graph, &str, Value, Value) -> Result<Value>;

impl DeepCross<'_> {
    /// A logit `[batch, 1]` a task.
    ///
    /// # Errors
    /// When there is no cross layer, a width is 0, or a name is taken.
    pub fn logits(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        prefix: &str,
        x0: Value,
        layer: Layer<'_>,
    ) -> Result<Vec<Value>> {
        if self.layers == 0 {
            return Err(Error::config("model.cross_layers", "must be at least 1"));
        }
        let mut x = x0;
        for l in 0..self.layers {
            x = layer(g, &format!("{prefix}cross.{l}"), x0, x)?;
        }
        let deep = format!("{prefix}deep");
        let h = match self.structure {
            Structure::CrossOnly => x,
            Structure::Stacked => mlp(g, &deep, x, self.deep)?,
            Structure::Parallel => {
                let deep = mlp(g, &deep, x0, self.deep)?;
                concat(g, &format!("{prefix}head.input"), &[x, deep])?
            }
        };
        towers::heads(g, &format!("{prefix}head"), inputs, h)
    }
}

#[cfg(test)]
mod tests {
    use crate::inputs::{Inputs, Task};
    use crate::registry::{build, from_table};
    use manygate_graph::Mode;

    #[test]
    fn what_cannot_be_built_is_told() {
        let inputs = Inputs {
            dense: 3,
            scenarios: 2,
            tasks: ["click", "buy"].map(Task::binary).to_vec(),
            ..Inputs::default()
        };
        for (keys, told) in [
            ("name = \"dcn\"\ncross_layers = 0", "model.cross_layers: must be at least 1"),
            ("name = \"dcn_v2\"\nrank = 0", "model.rank: must be at least 1"),
            ("name = \"dcn_v2\"\nexperts = 0", "model.experts: must be at least 1"),
            ("name = \"epnet_dcn\"\nscenario_dim = 0", "model.scenario_dim: must be at least 1"),
            ("name = \"epnet_dcn\"\ngate_hidden = 0", "model.gate_hidden: must be at least 1"),
            ("name = \"epnet_dcn\"\ngamma = -1.0", "model.gamma: -1 is no largest amplitude"),
            ("name = \"epnet_dcn\"\nscenario_fields = [\"city\"]", "there is no categorical feature `city`"),
        ] {
            let (_, model) = from_table(&keys.parse().unwrap()).unwrap();
            let error = build(model.as_ref(), &inputs, Mode::Training).unwrap_err().to_string();
            assert!(error.contains(told), "{keys}: {error}");
        }
        let (_, model) = from_table(&"name = \"dcn\"\nscenario_dim = 4".parse().unwrap()).unwrap();
        let error = build(model.as_ref(), &Inputs { scenarios: 0, ..inputs }, Mode::Training).unwrap_err();
        assert!(error.to_string().contains("features.scenario"), "{error}");
    }
}
