//! The architectures by name. To add one, write its file and name it here.

use crate::config::Key;
use crate::inputs::Inputs;
use crate::taxonomy::{Method, Relation, Structure};
use crate::{
    adaptdhm, adasparse, aitm, apg, attention, causalint, cgc, cross_stitch, dcn, dcn_v2, deepfm, dffm,
    epnet_dcn, escm2, esmm, hamur, hinet, interactions, lhuc, m2m, m3oe, mmoe, moe, mtms, pepnet, ple,
    sarnet, shared_bottom, single_scenario, single_task, star, stem, taml,
};
use manygate_core::{Error, Result};
use manygate_graph::{Graph, Mode, Parameters};
use serde::Serialize;

/// A configured architecture.
pub trait Architecture: std::fmt::Debug + Send + Sync {
    /// Declares the model for these inputs. The graph says whether for training or evaluation.
    ///
    /// # Errors
    /// When the configuration does not fit the inputs.
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()>;

    /// Moves parameters where a stage of training begins that trains this configuration, after one that trained another:
    /// for a model that hands what one of its networks learnt to the next. Most do nothing.
    ///
    /// # Errors
    /// When the parameters are those of another model.
    fn begin_stage(&self, _inputs: &Inputs, _params: &mut Parameters) -> Result<()> {
        Ok(())
    }

    /// For a model whose tasks share nothing: what the names of all tensors of a task begin with. Each task then takes the
    /// weights of its own best validation. Said by the model and not found in the plan, as a choice of the checkpoint
    /// by task is part of what a model is, not of how it happens to be configured.
    fn own_prefix(&self, _task: &str) -> Option<String> {
        None
    }

    /// Every key with its value, defaults included.
    fn resolved(&self) -> toml::Table;
}

/// What the registry knows of an architecture.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name under `[model]`.
    pub name: &'static str,
    /// Other names that it goes by.
    pub aliases: &'static [Alias],
    /// What its tasks are to each other.
    pub relation: Relation,
    /// How it treats scenarios.
    pub structure: Structure,
    /// What it does about tasks or scenarios that differ.
    pub method: Method,
    /// One line.
    pub summary: &'static str,
    /// Citation.
    pub paper: &'static str,
    /// Keys of its own.
    pub own_keys: &'static [Key],
    /// Keys that it shares with the others.
    pub common_keys: &'static [Key],
    /// Reads the keys under `[model]`, `name` taken out.
    pub parse: fn(&toml::Table) -> Result<Box<dyn Architecture>>,
}

/// Another name of an architecture.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Alias {
    /// The name.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Citation; empty where there is none.
    pub paper: &'static str,
    /// What it chooses.
    pub preset: Option<Preset>,
}

/// A value of a key, which stands unless the configuration gives another.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Preset {
    /// The key.
    pub key: &'static str,
    /// Its value, a text.
    pub value: &'static str,
}

impl Entry {
    /// The alias called `name`.
    pub fn alias(&self, name: &str) -> Option<&'static Alias> {
        self.aliases.iter().find(|alias| alias.name == name)
    }
}

/// Largest width of a layer and count of anything that a configuration may ask for.
const MAX_SIZE: i64 = 1 << 16;

/// Keys that list layers by number; other lists of numbers are widths.
const LAYERS: [&str; 1] = ["adapters"];

/// Keys that are probabilities below 1.
const RATES: [&str; 2] = ["dropout", "gate_dropout"];

/// Every architecture, by name. Not a constant: the code that reads their keys would be compiled again wherever it is named.
pub static MODELS: &[Entry] = &[
    adaptdhm::ENTRY,
    adasparse::ENTRY,
    aitm::ENTRY,
    apg::ENTRY,
    attention::ENTRY,
    causalint::ENTRY,
    cgc::ENTRY,
    cross_stitch::ENTRY,
    dcn::ENTRY,
    dcn_v2::ENTRY,
    deepfm::ENTRY,
    dffm::ENTRY,
    epnet_dcn::ENTRY,
    escm2::ENTRY,
    esmm::ENTRY,
    hamur::ENTRY,
    hinet::ENTRY,
    interactions::ENTRY,
    lhuc::ENTRY,
    m2m::ENTRY,
    m3oe::ENTRY,
    mmoe::ENTRY,
    moe::ENTRY,
    mtms::ENTRY,
    pepnet::ENTRY,
    ple::ENTRY,
    sarnet::ENTRY,
    shared_bottom::ENTRY,
    single_scenario::ENTRY,
    single_task::ENTRY,
    star::ENTRY,
    stem::ENTRY,
    taml::ENTRY,
];

/// The entry called `name`, by its own name or an alias.
///
/// # Errors
/// [`Error::Config`] that lists the names.
pub fn find(name: &str) -> Result<&'static Entry> {
    MODELS.iter().find(|m| m.name == name || m.alias(name).is_some()).ok_or_else(|| {
        let names: Vec<&str> = MODELS.iter().map(|m| m.name).collect();
        Error::config("model.name", format!("there is no model `{name}`; use one of: {}", names.join(", ")))
    })
}

/// Reads a whole `[model]` table: `name` and the model's keys.
///
/// # Errors
/// When the name or a key is unknown, or a value has the wrong type.
pub fn from_table(model: &toml::Table) -> Result<(&'static Entry, Box<dyn Architecture>)> {
    let mut keys = model.clone();
    let name = match keys.remove("name") {
        Some(toml::Value::String(name)) => name,
        Some(other) => return Err(Error::config("model.name", format!("must be a text, not {other}"))),
        None => return Err(Error::config("model.name", "is missing; `manygate models` lists the names")),
    };
    let entry = find(&name)?;
    if let Some(Preset { key, value }) = entry.alias(&name).and_then(|alias| alias.preset) {
        keys.entry(key).or_insert_with(|| value.into());
    }
    let architecture = (entry.parse)(&keys)?;
    let resolved = architecture.resolved();
    check_sizes(&resolved)?;
    check_widths(&resolved)?;
    check_rates(&resolved)?;
    check_deviation(&resolved)?;
    Ok((entry, architecture))
}

/// That no width and no count is one that nobody means: a mistyped number ends in a message, not in a product that
/// overflows or in as many names. Widths of tables have a limit of their own, where they are declared.
fn check_sizes(keys: &toml::Table) -> Result<()> {
    fn largest(value: &toml::Value) -> Option<i64> {
        match value {
            toml::Value::Array(list) => list.iter().filter_map(largest).max(),
            other => other.as_integer(),
        }
    }
    for (key, value) in keys.iter().filter(|(key, _)| *key != "embedding_dim") {
        if let Some(number) = largest(value).filter(|&number| number > MAX_SIZE) {
            let message = format!("{number} is more than {MAX_SIZE}, the most that is possible");
            return Err(Error::config(format!("model.{key}"), message));
        }
    }
    Ok(())
}

/// That every layer has a unit.
fn check_widths(keys: &toml::Table) -> Result<()> {
    fn has_zero(value: &toml::Value) -> bool {
        match value {
            toml::Value::Array(list) => list.iter().any(has_zero),
            other => other.as_integer() == Some(0),
        }
    }
    let lists = keys.iter().filter(|(key, value)| value.is_array() && !LAYERS.contains(&key.as_str()));
    match lists.into_iter().find(|(_, list)| has_zero(list)) {
        Some((key, _)) => Err(Error::config(format!("model.{key}"), "every layer needs at least one unit")),
        None => Ok(()),
    }
}

/// That rows of tables can be drawn.
fn check_deviation(keys: &toml::Table) -> Result<()> {
    let deviation = keys.get("embedding_deviation").and_then(toml::Value::as_float).unwrap_or_default();
    if deviation.is_finite() && deviation >= 0.0 {
        return Ok(());
    }
    let message = format!("{deviation} is no standard deviation; give a number from 0 up");
    Err(Error::config("model.embedding_deviation", message))
}

/// That what is dropped is not all.
fn check_rates(keys: &toml::Table) -> Result<()> {
    for key in RATES {
        let rate = keys.get(key).and_then(toml::Value::as_float);
        if let Some(rate) = rate.filter(|rate| !(0.0..1.0).contains(rate)) {
            let message = format!("{rate} is no probability below 1; give one, or 0 to drop nothing");
            return Err(Error::config(format!("model.{key}"), message));
        }
    }
    Ok(())
}

/// Declares `architecture` over `inputs` as a new graph.
///
/// # Errors
/// When the configuration does not fit the inputs.
pub fn build(architecture: &dyn Architecture, inputs: &Inputs, mode: Mode) -> Result<Graph> {
    if inputs.tasks.is_empty() {
        return Err(Error::config("tasks", "the model has nothing to predict; list at least one task"));
    }
    let mut graph = Graph::new(mode);
    architecture.build(&mut graph, inputs)?;
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_defaults_are_the_real_ones() {
        for entry in MODELS {
            let resolved = (entry.parse)(&toml::Table::new()).unwrap().resolved();
            let documented: Vec<&Key> = entry.own_keys.iter().chain(entry.common_keys).collect();
            assert_eq!(resolved.len(), documented.len(), "{}", entry.name);
            for key in documented {
                let line: toml::Table = format!("v = {}", key.default).parse().unwrap();
                let (real, told) = (&resolved[key.name], &line["v"]);
                let close =
                    matches!((real.as_float(), told.as_float()), (Some(a), Some(b)) if (a - b).abs() < 1e-6);
                assert!(real == told || close, "{}.{}: {real} is documented as {told}", entry.name, key.name);
            }
        }
    }

    #[test]
    fn unknown_names_and_keys_are_told() {
        let table = |text: &str| from_table(&text.parse().unwrap()).map(|_| ()).unwrap_err().to_string();
        let unknown = table("name = \"mmoo\"");
        assert!(unknown.contains("there is no model `mmoo`; use one of: "), "{unknown}");
        assert!(MODELS.iter().all(|model| unknown.contains(model.name)), "{unknown}");
        assert!(table("name = \"mmoe\"\nexpert = 3").contains("unknown field `expert`"));
        assert!(table("name = \"mmoe\"\nexperts = \"three\"").contains("model.experts: invalid type"));
        assert!(table("experts = 3").contains("model.name: is missing"));
        let experts = table("name = \"mmoe\"\nexperts = 1000000000");
        assert!(experts.contains("model.experts: 1000000000 is more than 65536"), "{experts}");
        for (rate, told) in [("1", "1"), ("-0.1", "-0.1"), ("nan", "NaN"), ("inf", "inf")] {
            let rate = table(&format!("name = \"mmoe\"\ndropout = {rate}"));
            assert!(rate.contains(&format!("model.dropout: {told} is no probability below 1")), "{rate}");
        }
        let units = table("name = \"dffm\"\ndomain_units = [4, 9223372036854775807]");
        assert!(units.contains("model.domain_units: 9223372036854775807"), "{units}");
        let nested = table("name = \"ple\"\nexpert_units = [[4], [8, 70000]]");
        assert!(nested.contains("model.expert_units: 70000 is more than 65536"), "{nested}");
        let width = table("name = \"ple\"\nexpert_units = [[4], [8, 0]]");
        assert!(width.contains("model.expert_units: every layer needs at least one unit"), "{width}");
        let deviation = table("name = \"mmoe\"\nembedding_deviation = -1");
        assert!(deviation.contains("model.embedding_deviation: -1 is no standard deviation"), "{deviation}");
        let number = table("name = \"mmoe\"\nexperts = 3\nactivation = 1");
        assert!(number.contains("model.activation: must be a text"), "{number}");
    }

    #[test]
    fn every_name_and_alias_is_of_one_model() {
        let mut names: Vec<&str> =
            MODELS.iter().flat_map(|m| m.aliases.iter().map(|a| a.name).chain([m.name])).collect();
        assert_eq!(find("omoe").unwrap().name, "moe");
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn an_alias_chooses_what_the_configuration_leaves_open() {
        for entry in MODELS {
            let presets: Vec<(&str, Preset)> =
                entry.aliases.iter().filter_map(|alias| Some((alias.name, alias.preset?))).collect();
            for (alias, Preset { key, value }) in &presets {
                let table = |keys: &str| format!("name = \"{alias}\"\n{keys}").parse().unwrap();
                let resolved = |keys: &str| from_table(&table(keys)).unwrap().1.resolved()[*key].clone();
                assert_eq!(resolved(""), (*value).into(), "{alias}");
                for (_, stated) in &presets {
                    let keys = format!("{key} = \"{}\"", stated.value);
                    assert_eq!(resolved(&keys), stated.value.into(), "{alias}");
                }
            }
        }
    }
}
