//! `manygate models`.

use crate::args::Models;
use crate::output;
use manygate_core::Result;
use manygate_models::config::Key;
use manygate_models::{Entry, MODELS, find};
use manygate_train::report::terminal::{Look, table};
use serde::Serialize;

#[derive(Serialize)]
struct List {
    version: u32,
    models: Vec<Summary>,
}

#[derive(Serialize)]
struct Summary {
    name: &'static str,
    summary: &'static str,
}

#[derive(Serialize)]
struct Description {
    version: u32,
    name: &'static str,
    summary: &'static str,
    paper: &'static str,
    own_keys: &'static [Key],
    common_keys: &'static [Key],
}

pub(crate) fn run(args: &Models) -> Result<()> {
    match &args.name {
        Some(name) => describe(find(name)?, args.json),
        None => list(args.json),
    }
}

fn list(json: bool) -> Result<()> {
    if json {
        let models = MODELS.iter().map(|m| Summary { name: m.name, summary: m.summary }).collect();
        return output::json(&List { version: 1, models });
    }
    let rows = MODELS.iter().map(|m| [m.name, m.summary]);
    output::result(&table(&["name", "summary"], rows, 2, Look::detect()))
}

fn describe(entry: &'static Entry, json: bool) -> Result<()> {
    let Entry { name, summary, paper, own_keys, common_keys, .. } = *entry;
    if json {
        return output::json(&Description { version: 1, name, summary, paper, own_keys, common_keys });
    }
    let keys = |keys: &[Key]| {
        let rows = keys.iter().map(|key| [key.name, key.default, key.doc]);
        table(&["key", "default", "what it does"], rows, 3, Look::detect())
    };
    output::result(&format!(
        "{name}: {summary}\n{paper}\n\nKeys under [model]\n{}\n\nKeys that every model has\n{}",
        keys(own_keys),
        keys(common_keys)
    ))
}
