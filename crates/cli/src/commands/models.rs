//! `manygate models` and `manygate methods`: what can be named in a configuration, and its keys.

use crate::args::Names;
use crate::output;
use manygate_core::Result;
use manygate_models::config::Key;
use manygate_models::registry::{Alias, Preset};
use manygate_models::taxonomy::{Method, Relation, Structure};
use manygate_models::{Entry, MODELS};
use manygate_train::balance::{self, METHODS};
use manygate_train::report::terminal::{Look, table};
use serde::Serialize;

/// A model among the others.
#[derive(Serialize)]
struct Place {
    aliases: Vec<&'static str>,
    relation: Relation,
    structure: Structure,
    method: Method,
}

#[derive(Serialize)]
struct Summary {
    name: &'static str,
    summary: &'static str,
    #[serde(flatten)]
    place: Option<Place>,
}

/// What a name stands for.
#[derive(Serialize)]
struct Description {
    version: u32,
    /// Where it was asked for by an alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<&'static Alias>,
    name: &'static str,
    summary: &'static str,
    paper: &'static str,
    #[serde(flatten)]
    place: Option<Place>,
    own_keys: &'static [Key],
    common_keys: &'static [Key],
}

impl Place {
    fn of(entry: &Entry) -> Place {
        let Entry { aliases, relation, structure, method, .. } = *entry;
        let aliases = aliases.iter().map(|alias| alias.name).collect();
        Place { aliases, relation, structure, method }
    }
}

/// The architectures.
pub(crate) fn models(args: &Names) -> Result<()> {
    let Some(name) = &args.name else {
        if args.json {
            let all = MODELS.iter();
            let all = all.map(|m| Summary { name: m.name, summary: m.summary, place: Some(Place::of(m)) });
            return list_json("models", all.collect());
        }
        let rows = MODELS.iter().map(|m| {
            let aliases = m.aliases.iter().map(|alias| alias.name);
            let names: Vec<&str> = [m.name].into_iter().chain(aliases).collect();
            let place = [m.relation.to_string(), m.structure.to_string(), m.method.to_string()];
            let [tasks, scenarios, method] = place;
            [names.join(", "), tasks, scenarios, method, m.summary.to_owned()]
        });
        let header = ["name", "tasks", "scenarios", "method", "summary"];
        return output::result(&table(&header, rows, header.len(), Look::detect()));
    };
    let entry = manygate_models::find(name)?;
    let alias = entry.alias(name);
    let Entry { name, summary, paper, own_keys, common_keys, .. } = *entry;
    let place = Some(Place::of(entry));
    let description = Description { version: 1, alias, name, summary, paper, place, own_keys, common_keys };
    describe(&description, ["[model]", "every model"], args.json)
}

/// The methods that balance losses.
pub(crate) fn methods(args: &Names) -> Result<()> {
    let Some(name) = &args.name else {
        if args.json {
            let all = METHODS.iter().map(|m| Summary { name: m.name, summary: m.summary, place: None });
            return list_json("methods", all.collect());
        }
        let rows = METHODS.iter().map(|m| [m.name, m.summary]);
        return output::result(&table(&["name", "summary"], rows, 2, Look::detect()));
    };
    let balance::Entry { name, summary, paper, own_keys, .. } = *balance::find(name)?;
    let common_keys = &balance::COMMON_KEYS;
    let (alias, place) = (None, None);
    let description = Description { version: 1, alias, name, summary, paper, place, own_keys, common_keys };
    describe(&description, ["[balance]", "every method"], args.json)
}

fn list_json(kind: &str, all: Vec<Summary>) -> Result<()> {
    output::json(&serde_json::json!({ "version": 1, kind: all }))
}

fn describe(description: &Description, [section, all]: [&str; 2], json: bool) -> Result<()> {
    if json {
        return output::json(description);
    }
    let keys = |keys: &[Key]| {
        let rows = keys.iter().map(|key| [key.name, key.default, key.doc]);
        table(&["key", "default", "what it does"], rows, 3, Look::detect())
    };
    let Description { alias, name, summary, paper, place, own_keys, common_keys, .. } = description;
    let alias = alias.map_or_else(String::new, |alias| told_of(alias, name));
    let place = place.as_ref().map_or_else(String::new, |place| {
        let Place { aliases, relation, structure, method } = place;
        let also =
            if aliases.is_empty() { String::new() } else { format!("\nalso called {}", aliases.join(", ")) };
        format!("\ntasks: {relation}; scenarios: {structure}; method: {method}{also}")
    });
    output::result(&format!(
        "{alias}{name}: {summary}\n{paper}{place}\n\nKeys under {section}\n{}\n\nKeys that {all} has\n{}",
        keys(own_keys),
        keys(common_keys)
    ))
}

/// What an alias is, before what its model is.
fn told_of(alias: &Alias, model: &str) -> String {
    let Alias { name, summary, paper, preset } = alias;
    let paper = if paper.is_empty() { String::new() } else { format!("\n{paper}") };
    let is = match preset {
        Some(Preset { key, value }) => format!("{model} with {key} = \"{value}\", unless `{key}` is given"),
        None => format!("another name of {model}"),
    };
    format!("{name}: {summary}{paper}\n{is}\n\n")
}
