//! From the configuration to a schema and recipe without data: names resolved, contradictions reported.

use manygate_core::{Error, Result};

use crate::bucket::{Buckets, MAX_BOUNDARIES};
use crate::config::{FeatureConfig, Pooling, Roles, TaskConfig};
use crate::declare_tasks::declare_tasks;
use crate::recipe::{DenseInput, DenseSource, Recipe, TableRows, WHOLE_CELL};
use crate::schema::{BagField, Field, ListKind, Schema, Table};
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
    /// Into how many buckets its numbers are divided evenly.
    pub(crate) quantiles: Option<u32>,
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
        let scenarios = scenarios_of(i, feature, roles)?;
        declare_categorical(i, feature, scenarios.clone(), &mut tables, &mut schema, &mut recipe)?;
        declare_buckets(i, feature, scenarios, &mut tables, &mut schema, &mut recipe)?;
    }
    let list_columns: Vec<&str> = features.iter().filter(|f| is_list(f)).flat_map(columns_of).collect();
    for (i, feature) in features.iter().enumerate() {
        let scenarios = scenarios_of(i, feature, roles)?;
        declare_list(i, feature, scenarios.clone(), &list_columns, &mut tables, &mut schema, &mut recipe)?;
        declare_dense(i, feature, scenarios, &mut schema, &mut recipe)?;
    }
    let (declared, fits, rows) = tables.resolve();
    recipe.rows = rows;
    for field in &mut schema.fields {
        field.dim = declared.iter().find(|table| table.name == field.table).and_then(|table| table.dim);
    }
    schema.tables = declared;
    (schema.tasks, recipe.labels) = declare_tasks(tasks)?;
    recipe.positive = tasks.iter().map(|task| task.positive.clone()).collect();
    if let Some(t) = schema.task_after_itself() {
        let message =
            format!("`{}` comes after itself by way of other tasks: break the circle", tasks[t].name);
        return Err(Error::config(format!("tasks[{t}].after"), message));
    }
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

/// Whether a column is a field already, be it one of a few scenarios.
fn is_input(schema: &Schema, column: &str) -> bool {
    schema.field_index(column).is_some() || schema.bags.iter().any(|bag| bag.name == column)
}

/// The values of the scenario column that `only_in` names.
fn scenarios_of(i: usize, feature: &FeatureConfig, roles: Roles<'_>) -> Result<Vec<String>> {
    let wrong = |message: String| Error::config(format!("features[{i}].only_in"), message);
    let value = |text: &String| match (text.split_once('='), roles.scenario) {
        (_, None) => Err(wrong("there is no scenario column: set `data.scenario`".to_owned())),
        (Some((column, value)), Some(scenario)) if column == scenario => Ok(value.to_owned()),
        (_, Some(scenario)) => Err(wrong(format!(
            "`{text}` is no scenario: write `{scenario}=value`, the column and a value of it"
        ))),
    };
    feature.only_in().iter().map(value).collect()
}

/// A field of every scenario is one; one of a few is a list of at most one value, which is empty elsewhere.
fn place_field(field: Field, scenarios: &[String], schema: &mut Schema, recipe: &mut Recipe) {
    if scenarios.is_empty() {
        schema.fields.push(field);
        return;
    }
    let Field { name, table, .. } = field;
    schema.bags.push(BagField { name, table, pooling: Pooling::Sum, kind: ListKind::Bag, max_length: None });
    recipe.separators.push(WHOLE_CELL.to_owned());
    recipe.list_scenarios.push(scenarios.to_vec());
}

fn declare_categorical(
    i: usize,
    feature: &FeatureConfig,
    scenarios: Vec<String>,
    tables: &mut Tables,
    schema: &mut Schema,
    recipe: &mut Recipe,
) -> Result<()> {
    let FeatureConfig::Categorical { columns, min_count, ids, hash, dim, table, .. } = feature else {
        return Ok(());
    };
    if *ids == Some(0) {
        return Err(Error::config(format!("features[{i}].ids"), "at least one id is needed"));
    }
    if ids.is_some() && hash.is_some() {
        let message = "a table with `ids` takes integers as they are: give one of `ids` and `hash`";
        return Err(Error::config(format!("features[{i}].hash"), message));
    }
    let rows = match (ids, hash) {
        (Some(ids), _) => TableRows::Ids(*ids),
        (_, Some(hash)) => TableRows::Hash(*hash),
        _ => TableRows::Vocabulary,
    };
    for column in columns {
        if is_input(schema, column) {
            return Err(twice(i, column));
        }
        let name = table.as_ref().unwrap_or(column);
        let asked = Asked {
            dim: *dim,
            min_count: *min_count,
            rows: Some(rows.clone()),
            quantiles: None,
            categorical: true,
        };
        tables.add(i, name, asked)?;
        place_field(field(column, name), &scenarios, schema, recipe);
    }
    Ok(())
}

/// A field whose rows and width follow when its table is complete.
fn field(column: &str, table: &str) -> Field {
    Field { name: column.to_owned(), table: table.to_owned(), rows: 1, dim: None }
}

fn declare_buckets(
    i: usize,
    feature: &FeatureConfig,
    scenarios: Vec<String>,
    tables: &mut Tables,
    schema: &mut Schema,
    recipe: &mut Recipe,
) -> Result<()> {
    let FeatureConfig::Bucket { columns, boundaries, quantiles, missing, dim, .. } = feature else {
        return Ok(());
    };
    let wrong = |key: &str, message: &str| Err(Error::config(format!("features[{i}].{key}"), message));
    match (boundaries, quantiles) {
        (Some(_), Some(_)) => return wrong("quantiles", "give either `boundaries` or `quantiles`"),
        (None, None) => return wrong("boundaries", "give either `boundaries` or `quantiles`"),
        (None, Some(2..)) | (Some(_), None) => {}
        (None, Some(_)) => return wrong("quantiles", "at least 2 buckets are needed"),
    }
    if quantiles.is_some_and(|quantiles| quantiles as usize > MAX_BOUNDARIES) {
        return wrong("quantiles", &format!("more than {MAX_BOUNDARIES}, the most that is possible"));
    }
    let buckets = Buckets { boundaries: boundaries.clone().unwrap_or_default(), missing: missing.clone() };
    buckets.check().map_err(|message| Error::config(format!("features[{i}].boundaries"), message))?;
    for column in columns {
        if is_input(schema, column) {
            return Err(twice(i, column));
        }
        if tables.has_categorical(column) {
            let message = format!("`{column}` is already the name of a table: choose another one there");
            return Err(Error::config(format!("features[{i}].columns"), message));
        }
        let asked = Asked {
            dim: *dim,
            min_count: None,
            rows: Some(TableRows::Buckets(buckets.clone())),
            quantiles: *quantiles,
            categorical: true,
        };
        tables.add(i, column, asked)?;
        place_field(field(column, column), &scenarios, schema, recipe);
    }
    Ok(())
}

fn declare_list(
    i: usize,
    feature: &FeatureConfig,
    scenarios: Vec<String>,
    list_columns: &[&str],
    tables: &mut Tables,
    schema: &mut Schema,
    recipe: &mut Recipe,
) -> Result<()> {
    let (columns, separator, pooling, min_count, hash, dim, table, max_length): (
        _,
        _,
        Pooling,
        _,
        _,
        _,
        _,
        _,
    ) = match feature {
        FeatureConfig::Bag { columns, separator, pooling, min_count, hash, dim, table, .. } => {
            (columns, separator, *pooling, min_count, hash, dim, table, None)
        }
        FeatureConfig::Sequence {
            columns,
            separator,
            max_length,
            pooling,
            min_count,
            hash,
            dim,
            table,
            ..
        } => (columns, separator, *pooling, min_count, hash, dim, table, Some(*max_length)),
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
        let asked = Asked {
            dim: *dim,
            min_count: *min_count,
            rows: hash.map(TableRows::Hash),
            quantiles: None,
            categorical: false,
        };
        tables.add(i, &name, asked)?;
        let kind = if max_length.is_some() { ListKind::Sequence } else { ListKind::Bag };
        schema.bags.push(BagField { name: column.clone(), table: name, pooling, kind, max_length });
        recipe.separators.push(separator.clone());
        recipe.list_scenarios.push(scenarios.clone());
        if matches!(feature, FeatureConfig::Sequence { keep_unknown: true, .. }) {
            recipe.keep_unknown.push(column.clone());
        }
    }
    Ok(())
}

fn declare_dense(
    i: usize,
    feature: &FeatureConfig,
    scenarios: Vec<String>,
    schema: &mut Schema,
    recipe: &mut Recipe,
) -> Result<()> {
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
        let input = DenseInput {
            column: column.clone(),
            source: source.clone(),
            mean: 0.0,
            std: 1.0,
            only_in: scenarios.clone(),
        };
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
#[derive(Clone)]
struct Asked {
    dim: Option<usize>,
    min_count: Option<u32>,
    /// `None`: whatever the table has.
    rows: Option<TableRows>,
    quantiles: Option<u32>,
    categorical: bool,
}

impl Asked {
    /// Checks what can be said without the other features of the table.
    fn check(&self, i: usize) -> Result<()> {
        let wrong = |key: &str, message: &str| Err(Error::config(format!("features[{i}].{key}"), message));
        if self.dim == Some(0) {
            return wrong("dim", "must be at least 1");
        }
        if self.min_count == Some(0) {
            return wrong("min_count", "must be at least 1");
        }
        match (&self.rows, self.min_count) {
            (Some(TableRows::Hash(0)), _) => wrong("hash", "at least one row is needed"),
            (Some(TableRows::Hash(_)), Some(_)) => wrong(
                "hash",
                "values are not counted where they are hashed: give one of `hash` and `min_count`",
            ),
            _ => Ok(()),
        }
    }

    /// Takes in what feature `i` asks of the same table, `name`.
    fn join(&mut self, i: usize, name: &str, other: Asked) -> Result<()> {
        let wrong = |key: &str, message: String| Err(Error::config(format!("features[{i}].{key}"), message));
        let disagree = |key: &str| {
            wrong(
                key,
                format!("features that share the table `{name}` must agree: give all the same `{key}`"),
            )
        };
        if self.categorical && !other.categorical {
            let own = [("min_count", other.min_count.is_some()), ("hash", other.rows.is_some())];
            if let Some((key, _)) = own.into_iter().find(|(_, given)| *given) {
                return wrong(
                    key,
                    format!("the vocabulary of `{name}` is that of a categorical feature: set `{key}` there"),
                );
            }
        }
        match (&self.rows, other.rows) {
            (Some(had), Some(wanted)) if *had != wanted => {
                let either = |is: fn(&TableRows) -> bool| is(had) || is(&wanted);
                if either(|rows| matches!(rows, TableRows::Buckets(_))) {
                    return wrong(
                        "table",
                        format!("`{name}` holds the buckets of a number: name another table"),
                    );
                }
                let hashed = either(|rows| matches!(rows, TableRows::Hash(_)));
                return disagree(if hashed { "hash" } else { "ids" });
            }
            (None, wanted @ Some(_)) => self.rows = wanted,
            _ => {}
        }
        match (self.dim, other.dim) {
            (Some(a), Some(b)) if a != b => return disagree("dim"),
            (had, wanted) => self.dim = had.or(wanted),
        }
        match (self.min_count, other.min_count) {
            (Some(a), Some(b)) if a != b => return disagree("min_count"),
            (had, wanted) => self.min_count = had.or(wanted),
        }
        self.check(i)
    }
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
        asked.check(i)?;
        match self.list.iter_mut().find(|(table, _)| table == name) {
            Some((_, table)) => table.join(i, name, asked),
            None => {
                self.list.push((name.to_owned(), asked));
                Ok(())
            }
        }
    }

    fn resolve(self) -> (Vec<Table>, Vec<TableFit>, Vec<TableRows>) {
        let fits = self.list.iter().map(|(_, asked)| TableFit {
            min_count: asked.min_count.unwrap_or(1),
            from_lists: !asked.categorical,
            quantiles: asked.quantiles,
        });
        let fits = fits.collect();
        let rows = self.list.iter().map(|(_, asked)| asked.rows.clone().unwrap_or(TableRows::Vocabulary));
        let rows = rows.collect();
        let tables =
            self.list.into_iter().map(|(name, asked)| Table { name, rows: 1, dim: asked.dim }).collect();
        (tables, fits, rows)
    }
}
