//! Architectures: those of the registry, the layers that they share, and the trait for one's own.
//!
//! An [`Architecture`] declares a graph for the inputs that it is given. One that is not in the registry is handed to a
//! trainer as it is, and opens by hand:
//!
#![cfg_attr(feature = "train", doc = "```")]
#![cfg_attr(not(feature = "train"), doc = "```ignore")]
//! use manygate::graph::ops::{Concat, PairProducts};
//! use manygate::graph::{Activation, Graph};
//! use manygate::models::layers::mlp::{MlpInput, MlpStyle};
//! use manygate::models::layers::trunk::{Embedding, trunk};
//! use manygate::models::layers::{tasks, towers};
//! use manygate::models::{Architecture, Inputs};
//! use manygate::ndarray::{Array2, array};
//! use manygate::{Columns, Model, Options, Schema, Session, Trainer, toml};
//! use std::sync::Arc;
//!
//! /// Embeddings, the products of every two of them, and a tower for each task.
//! #[derive(Debug)]
//! struct Products {
//!     dim: usize,
//! }
//!
//! impl Architecture for Products {
//!     fn build(&self, g: &mut Graph, inputs: &Inputs) -> manygate::Result<()> {
//!         let fields = inputs.fields.len();
//!         let x = trunk(g, inputs, Embedding { dim: self.dim, deviation: 0.1 })?; // [batch, fields · dim]
//!         let products = g.add("products", PairProducts::new(fields), &[x])?;
//!         let widths = vec![g.cols(x), g.cols(products)];
//!         let both = g.add("both", Concat::new(widths), &[x, products])?;
//!         let style = MlpStyle { units: &[8], activation: Activation::Relu, batch_norm: false, dropout: 0.0 };
//!         let logits = towers::towers(g, inputs, MlpInput::Shared(both), style)?;
//!         tasks::heads(g, inputs, &logits)
//!     }
//!     fn resolved(&self) -> toml::Table {
//!         toml::Table::from_iter([("dim".to_owned(), (self.dim as i64).into())])
//!     }
//! }
//!
//! let schema = Schema::default().field("user", 20).field("item", 10).task("click").task("like");
//! let ids = Array2::from_shape_fn((200, 2), |(r, c)| (r * [7, 3][c] % [20, 10][c]) as u32);
//! let labels = Array2::from_shape_fn((200, 2), |(r, t)| ((ids[[r, 0]] + ids[[r, 1]] * t as u32) % 2) as f32);
//! let data = Columns::new(&schema).ids(ids.view())?.labels(labels.view())?.finish()?;
//!
//! let mut trainer = Trainer::of("products", Box::new(Products { dim: 4 }), schema.clone(), Options::default())?;
//! trainer.fit(&data, &data)?;
//! let folder = tempfile::tempdir().unwrap();
//! trainer.save(folder.path())?;
//! let model = Model::open_as(folder.path(), "products", &Products { dim: 4 })?;
//! let mut session = Session::new(Arc::new(model), 8)?;
//! let request = Columns::new(&schema).ids(array![[3_u32, 9]].view())?.finish()?;
//! assert_eq!(session.predict(&request)?.dim(), (1, 2));
//! # Ok::<(), manygate::Error>(())
//! ```

pub use manygate_models::*;
