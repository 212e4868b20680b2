//! `manygate models` and `manygate methods`: what can be named in a configuration, and its keys.

use crate::args::Names;
use crate::output;
use manygate_core::Result;
use manygate_models::MODELS;
use manygate_models::config::Key;
use manygate_train::balance::{self, METHODS};
use manygate_train::report::terminal::{Look, table};
use serde::Serialize;

#[derive(Clone, Copy, Serialize)]
struct Summary {
    name: &'static str,
    summary: &'static str,
}

/// What a name stands for.
#[derive(Serialize)]
struct Description {
    version: u32,
    name: &'static str,
    summary: &'static str,
    paper: &'static str,
    own_keys: &'static [Key],
    common_keys: &'static [Key],
}

/// The architectures.
pub(crate) fn models(args: &Names) -> Result<()> {
    let Some(name) = &args.name else {
        let all: Vec<Summary> = MODELS.iter().map(|m| Summary { name: m.name, summary: m.summary }).collect();
        return list("models", &all, args.json);
    };
    let manygate_models::Entry { name, summary, paper, own_keys, common_keys, .. } =
        *manygate_models::find(name)?;
    let description = Description { version: 1, name, summary, paper, own_keys, common_keys };
    describe(&description, ["[model]", "every model"], args.json)
}

/// The methods that balance losses.
pub(crate) fn methods(args: &Names) -> Result<()> {
    let Some(name) = &args.name else {
        let all: Vec<Summary> =
            METHODS.iter().map(|m| Summary { name: m.name, summary: m.summary }).collect();
        return list("methods", &all, args.json);
    };
    let balance::Entry { name, summary, paper, own_keys, .. } = *balance::find(name)?;
    let common_keys = &balance::COMMON_KEYS;
    let description = Description { version: 1, name, summary, paper, own_keys, common_keys };
    describe(&description, ["[balance]", "every method"], args.json)
}

fn list(kind: &str, all: &[Summary], json: bool) -> Result<()> {
    if json {
        return output::json(&serde_json::json!({ "version": 1, kind: all }));
    }
    let rows = all.iter().map(|s| [s.name, s.summary]);
    output::result(&table(&["name", "summary"], rows, 2, Look::detect()))
}

fn describe(description: &Description, [section, all]: [&str; 2], json: bool) -> Result<()> {
    if json {
        return output::json(description);
    }
    let keys = |keys: &[Key]| {
        let rows = keys.iter().map(|key| [key.name, key.default, key.doc]);
        table(&["key", "default", "what it does"], rows, 3, Look::detect())
    };
    let Description { name, summary, paper, own_keys, common_keys, .. } = description;
    output::result(&format!(
        "{name}: {summary}\n{paper}\n\nKeys under {section}\n{}\n\nKeys that {all} has\n{}",
        keys(own_keys),
        keys(common_keys)
    ))
}
