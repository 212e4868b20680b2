//! Fitting: one pass over the fit rows yields vocabularies, statistics and scenarios.

use manygate_core::{Error, Result};

use crate::bucket::quantiles;
use crate::config::{FeatureConfig, Roles, TaskConfig};
use crate::declare::{TableFit, declare};
use crate::encode::{CellError, Encoder};
use crate::number::read_number;
use crate::numbering::Numbering;
use crate::recipe::{DenseInput, Layout, Recipe, TableRows, WHOLE_CELL, has};
use crate::scenario_weights::ScenarioWeights;
use crate::schema::Schema;
use crate::text::{did_you_mean, shown};
use crate::vocabulary::{Counter, Vocabulary, pieces};

/// Sees every fit row once, then becomes an [`Encoder`]. What it keeps grows with the number of distinct values, not
/// of rows, save for columns that are divided into quantiles: eight bytes a row each.
#[derive(Clone, Debug)]
pub struct Fitter {
    schema: Schema,
    recipe: Recipe,
    fits: Vec<TableFit>,
    layout: Layout,
    counters: Vec<Counter>,
    /// For each table, the numbers to take quantiles of.
    numbers: Vec<Vec<f64>>,
    moments: Vec<Moments>,
    scenarios: Numbering,
    scenario_weights: ScenarioWeights,
    /// What is not fitted anew.
    known: Option<Encoder>,
}

impl Fitter {
    /// A fitter for the sections of a configuration.
    ///
    /// # Errors
    /// [`Error::Config`] that names the first key which cannot be used.
    pub fn new(roles: Roles<'_>, features: &[FeatureConfig], tasks: &[TaskConfig]) -> Result<Fitter> {
        let declaration = declare(roles, features, tasks)?;
        let scenario_weights = ScenarioWeights::new(roles, tasks)?;
        let (schema, recipe) = (declaration.schema, declaration.recipe);
        let layout = Layout::new(&schema, &recipe).map_err(|message| Error::config("features", message))?;
        Ok(Fitter {
            counters: vec![Counter::default(); schema.tables.len()],
            numbers: vec![Vec::new(); schema.tables.len()],
            moments: vec![Moments::default(); recipe.dense.len()],
            scenarios: Numbering::default(),
            scenario_weights,
            known: None,
            fits: declaration.fits,
            layout,
            schema,
            recipe,
        })
    }

    /// Keeps the tables, the statistics of numbers and the scenarios that `known` has: a model that goes on from a trained
    /// one must know values by the same rows. Only what `known` has not is fitted.
    pub fn keeping(self, known: Encoder) -> Fitter {
        Fitter { known: Some(known), ..self }
    }

    /// The columns of the rows to observe, each once.
    pub fn columns(&self) -> &[String] {
        &self.layout.columns
    }

    /// The label column of each task.
    pub fn label_columns(&self) -> &[String] {
        &self.recipe.labels
    }

    /// Takes note of a fit row: `cells[i]` is its value of `columns()[i]`.
    ///
    /// # Errors
    /// The column of the first number that cannot be read, and what is wrong with it.
    ///
    /// # Panics
    /// When `cells` is shorter than [`columns`](Fitter::columns).
    pub fn observe(&mut self, cells: &[&str]) -> std::result::Result<(), CellError> {
        for (source, field) in self.layout.fields.iter().zip(&self.schema.fields) {
            let (table, cell) = (source.table, cells[source.cell]);
            match &self.recipe.rows[table] {
                TableRows::Vocabulary => self.counters[table].count(cell),
                TableRows::Buckets(buckets) if self.fits[table].quantiles.is_some() => {
                    let number = read_number(cell, &buckets.missing);
                    self.numbers[table]
                        .extend(number.map_err(|message| CellError::new(&field.name, message))?);
                }
                TableRows::Ids(_) | TableRows::Hash(_) | TableRows::Buckets(_) => {}
            }
        }
        let scenario = self.layout.scenario.map(|cell| cells[cell]);
        self.observe_lists(cells, scenario)?;
        for ((input, &cell), moments) in
            self.recipe.dense.iter().zip(&self.layout.dense).zip(&mut self.moments)
        {
            if !has(&input.only_in, scenario) {
                continue;
            }
            let number = input.read(cells[cell]).map_err(|message| CellError::new(&input.column, message))?;
            if let Some(number) = number {
                moments.add(number);
            }
        }
        if let Some(cell) = self.layout.scenario {
            self.scenarios.number(cells[cell]);
        }
        Ok(())
    }

    /// Lists that the row's scenario has, and fields that only some scenarios have.
    fn observe_lists(
        &mut self,
        cells: &[&str],
        scenario: Option<&str>,
    ) -> std::result::Result<(), CellError> {
        for (number, (list, separator)) in self.layout.lists.iter().zip(&self.recipe.separators).enumerate() {
            let (table, cell) = (list.table, cells[list.cell]);
            if !has(self.recipe.scenarios_of_list(number), scenario) {
                continue;
            }
            match &self.recipe.rows[table] {
                TableRows::Vocabulary if self.fits[table].from_lists || separator == WHOLE_CELL => {
                    pieces(cell, separator).for_each(|value| self.counters[table].count(value));
                }
                TableRows::Buckets(buckets) if self.fits[table].quantiles.is_some() => {
                    let column = &self.schema.bags[number].name;
                    let value = read_number(cell, &buckets.missing);
                    self.numbers[table].extend(value.map_err(|message| CellError::new(column, message))?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The encoder of the rows seen.
    ///
    /// # Errors
    /// [`Error::Config`] when no row was seen although there are scenarios, or when the scenario for unseen values, or
    /// one that has a weight, is none of theirs.
    pub fn finish(mut self) -> Result<Encoder> {
        let mut vocabularies = Vec::new();
        for ((table, counter), numbers) in self.counters.into_iter().enumerate().zip(self.numbers) {
            let fit = self.fits[table];
            let name = &self.schema.tables[table].name;
            if let Some((rows, vocabulary)) = self.known.as_ref().and_then(|known| known.table(name)) {
                self.recipe.rows[table] = rows.clone();
                vocabularies.push(vocabulary.clone());
                continue;
            }
            if let (TableRows::Buckets(buckets), Some(parts)) = (&mut self.recipe.rows[table], fit.quantiles)
            {
                buckets.boundaries = quantiles(numbers, parts);
            }
            let values = || Ok(counter.finish(fit.min_count));
            vocabularies.push(Vocabulary::new(&self.recipe.rows[table], values)?);
        }
        for (table, vocabulary) in self.schema.tables.iter_mut().zip(&vocabularies) {
            table.rows = vocabulary.rows();
        }
        for (field, source) in self.schema.fields.iter_mut().zip(&self.layout.fields) {
            field.rows = self.schema.tables[source.table].rows;
        }
        let moments = self.recipe.dense.iter_mut().zip(&self.moments);
        for (input, moments) in moments.filter(|(input, _)| !input.is_raw()) {
            (input.mean, input.std) = (moments.mean, moments.std_or_one());
        }
        let known = self.known.iter().flat_map(|known| &known.recipe.dense);
        for before in known {
            let same = |input: &&mut DenseInput| input.name() == before.name();
            if let Some(input) = self.recipe.dense.iter_mut().find(same) {
                (input.mean, input.std) = (before.mean, before.std);
            }
        }
        let scenarios = match &self.known {
            Some(known) => known.schema.scenarios.iter().map(String::as_str).collect(),
            None => self.scenarios.texts(),
        };
        if self.schema.scenario_column.is_some() && scenarios.is_empty() {
            return Err(Error::config("data.scenario", "no fit row was seen, so there are no scenarios"));
        }
        if let Some(unknown) = &self.recipe.unknown_scenario
            && !scenarios.contains(&unknown.as_str())
        {
            let hint = did_you_mean(unknown, scenarios.iter().copied());
            let message =
                format!("no fit row has the scenario {}{hint}: name one that occurs", shown(unknown));
            return Err(Error::config("data.unknown_scenario", message));
        }
        if let Some(name) = self.recipe.named_scenarios().find(|name| !scenarios.contains(&name.as_str())) {
            let hint = did_you_mean(name, scenarios.iter().copied());
            let message = format!("no fit row has the scenario {}{hint}: name one that occurs", shown(name));
            return Err(Error::config("features.only_in", message));
        }
        let weights = self.scenario_weights.resolve(&scenarios)?;
        self.schema.tasks.iter_mut().zip(weights).for_each(|(task, weights)| task.scenario_weights = weights);
        self.schema.scenarios = scenarios.into_iter().map(str::to_owned).collect();
        Encoder::new(self.schema, self.recipe, vocabularies)
            .map_err(|message| Error::config("features", message))
    }
}

/// Mean and variance of a stream of numbers.
///
/// B. P. Welford, *Note on a Method for Calculating Corrected Sums of Squares and Products*, Technometrics 4(3), 1962.
/// Sums of squares would cancel on columns such as timestamps.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, x: f64) {
        self.count += 1;
        let before = x - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (x - self.mean);
    }

    /// The population standard deviation; 1 for a column that is constant or never present, whose inputs are then 0.
    fn std_or_one(&self) -> f64 {
        let std = (self.squares / self.count.max(1) as f64).sqrt();
        if std > 0.0 { std } else { 1.0 }
    }
}
