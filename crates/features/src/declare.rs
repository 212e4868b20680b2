//! From the configuration to a schema and recipe without data: names resolved, contradictions reported.

use std::collections::HashSet;

use manygate_core::{Error, Result};

use crate::config::{FeatureConfig, Pooling, Roles, TaskConfig, TaskKind};
use crate::recipe::{DenseInput, DenseSource, Recipe};
use crate::schema::{BagField, Field, ListKind, Schema, Table, Task};
use crate::text::did_you_mean;

/// A schema before any row was seen: tables have one row, numbers no statistics, scenarios no names.
pub(crate) struct Declaration {
    pub(crate) schema: Schema,
    pub(crate) recipe: Recipe,
    /// For each table, how its vocabulary is fitted.
    pub(crate) fits: Vec<TableFit>,
}

/// How the vocabulary of a table is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableFit {
    /// Values seen fewer times get no row.
    pub(crate) min_count: u32,
    /// Whether lists add values. They do where no categorical column has the table: a sequence of item ids that
    /// shares the table of the item column must not know items that no row is about.
    pub(crate) from_lists: bool,
}

/// Resolves the sections of a configuration.
pub(crate) fn declare(
    roles: Roles<'_>,
    features: &[FeatureConfig],
    tasks: &[TaskConfig],
) -> Result<Declaration> {
    if features.is_empty() {
        return Err(Error::config("features", "at least one [[features]] section is needed"));
    }
    let mut tables = Tables::default();
    let mut schema = Schema::default();
    let mut recipe = Recipe::default();
    for (i, feature) in features.iter().enumerate() {
        if feature.columns().is_empty() {
            return Err(Error::config(format!("features[{i}].columns"), "name at least one column"));
        }
        declare_categorical(i, feature, &mut tables, &mut schema)?;
    }
    let list_columns: Vec<&str> = features.iter().filter(|f| is_list(f)).flat_map(columns_of).collect();
    for (i, feature) in features.iter().enumerate() {
        declare_list(i, feature, &list_columns, &mut tables, &mut schema, &mut recipe)?;
        declare_dense(i, feature, &mut schema, &mut recipe)?;
    }
    let (declared, fits, ids) = tables.resolve();
    recipe.ids = ids;
    for field in &mut schema.fields {
        field.dim = declared.iter().find(|table| table.name == field.table).and_then(|table| table.dim);
    }
    schema.tables = declared;
    (schema.tasks, recipe.labels) = declare_tasks(tasks)?;
    recipe.positive = tasks.iter().map(|task| task.positive.clone()).collect();
    refuse_labels_as_inputs(&schema, &recipe)?;
    schema.scenario_column = roles.scenario.map(str::to_owned);
    schema.user = roles.user.map(str::to_owned);
    if roles.unknown_scenario.is_some() && roles.scenario.is_none() {
        let message = "there is no scenario column: set `data.scenario` or remove this key";
        return Err(Error::config("data.unknown_scenario", message));
    }
    recipe.unknown_scenario = roles.unknown_scenario.map(str::to_owned);
    Ok(Declaration { schema, recipe, fits })
}

fn is_list(feature: &FeatureConfig) -> bool {
    matches!(feature, FeatureConfig::Bag { .. } | FeatureConfig::Sequence { .. })
}

fn columns_of(feature: &FeatureConfig) -> impl Iterator<Item = &str> {
    feature.columns().iter().map(String::as_str)
}

fn twice(feature: usize, column: &str) -> Error {
    let message = format!("column `{column}` is already an input of this kind: list it once");
    Error::config(format!("features[{feature}].columns"), message)
}

fn declare_categorical(
    i: usize,
    feature: &FeatureConfig,
    tables: &mut Tables,
    schema: &mut Schema,
) -> Result<()> {
    let FeatureConfig::Categorical { columns, min_count, ids, dim, table } = feature else { return Ok(()) };
    if *ids == Some(0) {
        return Err(Error::config(format!("features[{i}].ids"), "at least one id is needed"));
    }
    for column in columns {
        if schema.field_index(column).is_some() {
            return Err(twice(i, column));
        }
        let name = table.as_ref().unwrap_or(column);
        let asked = Asked { dim: *dim, min_count: *min_count, ids: Some(*ids), categorical: true };
        tables.add(i, name, asked)?;
        // Rows and width follow when the table is complete.
        schema.fields.push(Field { name: column.clone(), table: name.clone(), rows: 1, dim: None });
    }
    Ok(())
}

fn declare_list(
    i: usize,
    feature: &FeatureConfig,
    list_columns: &[&str],
    tables: &mut Tables,
    schema: &mut Schema,
    recipe: &mut Recipe,
) -> Result<()> {
    let (columns, separator, pooling, min_count, dim, table, max_length): (_, _, Pooling, _, _, _, _) =
        match feature {
            FeatureConfig::Bag { columns, separator, pooling, min_count, dim, table } => {
                (columns, separator, *pooling, min_count, dim, table, None)
            }
            FeatureConfig::Sequence { columns, separator, max_length, pooling, min_count, dim, table } => {
                (columns, separator, *pooling, min_count, dim, table, Some(*max_length))
            }
            _ => return Ok(()),
        };
    check_separator(i, separator)?;
    if max_length == Some(0) {
        return Err(Error::config(format!("features[{i}].max_length"), "must be at least 1"));
    }
    for column in columns {
        if schema.bags.iter().any(|bag| bag.name == *column) {
            return Err(twice(i, column));
        }
        let name = match table {
            Some(name) if tables.has_categorical(name) || list_columns.contains(&name.as_str()) => {
                name.clone()
            }
            Some(name) => {
                let hint = did_you_mean(name, tables.names().chain(list_columns.iter().copied()));
                let message =
                    format!("`{name}` is neither the table of a categorical feature nor a list column{hint}");
                return Err(Error::config(format!("features[{i}].table"), message));
            }
            // The whole cell as one value and its parts are two vocabularies.
            None if tables.has_categorical(column) => format!("{column}.values"),
            None => column.clone(),
        };
        tables.add(i, &name, Asked { dim: *dim, min_count: *min_count, ids: None, categorical: false })?;
        let kind = if max_length.is_some() { ListKind::Sequence } else { ListKind::Bag };
        schema.bags.push(BagField { name: column.clone(), table: name, pooling, kind, max_length });
        recipe.separators.push(separator.clone());
    }
    Ok(())
}

fn declare_dense(i: usize, feature: &FeatureConfig, schema: &mut Schema, recipe: &mut Recipe) -> Result<()> {
    let source = match feature {
        FeatureConfig::Numeric { transform, missing, .. } => {
            DenseSource::Number { transform: *transform, missing: missing.clone() }
        }
        FeatureConfig::Length { separator, .. } => {
            check_separator(i, separator)?;
            DenseSource::Length { separator: separator.clone() }
        }
        _ => return Ok(()),
    };
    for column in feature.columns() {
        let input = DenseInput { column: column.clone(), source: source.clone(), mean: 0.0, std: 1.0 };
        if schema.dense.contains(&input.name()) {
            return Err(twice(i, column));
        }
        schema.dense.push(input.name());
        recipe.dense.push(input);
    }
    Ok(())
}

fn check_separator(i: usize, separator: &str) -> Result<()> {
    if separator.is_empty() {
        return Err(Error::config(format!("features[{i}].separator"), "must not be empty"));
    }
    Ok(())
}

fn declare_tasks(tasks: &[TaskConfig]) -> Result<(Vec<Task>, Vec<String>)> {
    if tasks.is_empty() {
        return Err(Error::config("tasks", "at least one [[tasks]] section is needed"));
    }
    let mut seen = HashSet::new();
    let mut resolved = Vec::new();
    let mut labels = Vec::new();
    for (t, task) in tasks.iter().enumerate() {
        let TaskKind::Binary = task.kind;
        if !seen.insert(task.name.as_str()) {
            let message = format!("`{}` is already the name of a task: choose another", task.name);
            return Err(Error::config(format!("tasks[{t}].name"), message));
        }
        if !(task.weight.is_finite() && task.weight >= 0.0) {
            let message = format!("{} is not a weight: give a finite number from 0", task.weight);
            return Err(Error::config(format!("tasks[{t}].weight"), message));
        }
        if let Some(text) = task.positive.iter().find(|text| text.trim().is_empty()) {
            let message = format!("`{text}` is an empty label, which is always an error: name other texts");
            return Err(Error::config(format!("tasks[{t}].positive"), message));
        }
        let space = task.space.as_deref().map(|space| label_space(t, space, tasks)).transpose()?;
        resolved.push(Task { name: task.name.clone(), weight: task.weight, space });
        labels.push(task.column.clone().unwrap_or_else(|| task.name.clone()));
    }
    Ok((resolved, labels))
}

fn label_space(t: usize, space: &str, tasks: &[TaskConfig]) -> Result<usize> {
    let key = || format!("tasks[{t}].space");
    match tasks.iter().position(|other| other.name == space) {
        Some(other) if other == t => Err(Error::config(
            key(),
            format!("task `{space}` cannot be its own label space: name another task"),
        )),
        Some(other) => Ok(other),
        None => {
            let hint = did_you_mean(space, tasks.iter().map(|task| task.name.as_str()));
            Err(Error::config(key(), format!("there is no task `{space}`{hint}")))
        }
    }
}

/// A label among the inputs makes every figure perfect and every prediction useless.
fn refuse_labels_as_inputs(schema: &Schema, recipe: &Recipe) -> Result<()> {
    let inputs = schema.fields.iter().map(|f| &f.name).chain(schema.bags.iter().map(|b| &b.name));
    let mut inputs = inputs.chain(recipe.dense.iter().map(|d| &d.column));
    match inputs.find(|input| recipe.labels.contains(*input)) {
        Some(column) => Err(Error::config(
            "features",
            format!("column `{column}` is the label of a task: it cannot be an input"),
        )),
        None => Ok(()),
    }
}

/// What one feature asks of a table.
#[derive(Clone, Copy)]
struct Asked {
    dim: Option<usize>,
    min_count: Option<u32>,
    /// `None`: whatever the table has.
    ids: Option<Option<u32>>,
    categorical: bool,
}

/// Tables while features are added to them.
#[derive(Default)]
struct Tables {
    list: Vec<(String, Asked)>,
}

impl Tables {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name.as_str())
    }

    fn has_categorical(&self, name: &str) -> bool {
        self.list.iter().any(|(table, asked)| table == name && asked.categorical)
    }

    /// Adds what feature `i` asks of the table `name`.
    fn add(&mut self, i: usize, name: &str, asked: Asked) -> Result<()> {
        if asked.dim == Some(0) {
            return Err(Error::config(format!("features[{i}].dim"), "must be at least 1"));
        }
        if asked.min_count == Some(0) {
            return Err(Error::config(format!("features[{i}].min_count"), "must be at least 1"));
        }
        let Some((_, table)) = self.list.iter_mut().find(|(table, _)| table == name) else {
            self.list.push((name.to_owned(), asked));
            return Ok(());
        };
        let disagree = |key: &str| {
            let message =
                format!("features that share the table `{name}` must agree: give all the same `{key}`");
            Err(Error::config(format!("features[{i}].{key}"), message))
        };
        if table.categorical && !asked.categorical && asked.min_count.is_some() {
            let message =
                format!("the vocabulary of `{name}` is that of a categorical feature: set `min_count` there");
            return Err(Error::config(format!("features[{i}].min_count"), message));
        }
        if asked.ids.is_some() && asked.ids != table.ids {
            return disagree("ids");
        }
        match (table.dim, asked.dim) {
            (Some(a), Some(b)) if a != b => return disagree("dim"),
            (had, wanted) => table.dim = had.or(wanted),
        }
        match (table.min_count, asked.min_count) {
            (Some(a), Some(b)) if a != b => return disagree("min_count"),
            (had, wanted) => table.min_count = had.or(wanted),
        }
        Ok(())
    }

    fn resolve(self) -> (Vec<Table>, Vec<TableFit>, Vec<Option<u32>>) {
        let fits = self.list.iter().map(|(_, asked)| TableFit {
            min_count: asked.min_count.unwrap_or(1),
            from_lists: !asked.categorical,
        });
        let fits = fits.collect();
        let ids = self.list.iter().map(|(_, asked)| asked.ids.flatten()).collect();
        let tables =
            self.list.into_iter().map(|(name, asked)| Table { name, rows: 1, dim: asked.dim }).collect();
        (tables, fits, ids)
    }
}
