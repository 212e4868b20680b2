//! Golden cases: what an architecture, or a method that balances losses, must compute, by an independent float64
//! reference.
//!
//! A folder holds `<model>/<case>/{config.json, case.safetensors}`; `tests/golden/README.md` describes the tensors
//! and the tolerance. `translate` reads the configuration, `contents` the tensors, `engine` computes the same
//! values, `compare` judges them. Cases of methods have no model: `balance` does all of it for them.

mod balance;
mod case;
mod compare;
mod contents;
mod device;
mod engine;
mod folder;
mod translate;
mod without_cases;

pub use balance::{Arithmetic, check as check_method};
pub use case::{Case, Tensor, Values};
pub use compare::Margin;
pub use engine::Variant;
pub use folder::{Report, Summary, Verdict, WITHOUT_CASES, check_folder};

use balance::OnHost;
use compare::Tolerance;
use contents::Contents;
use engine::Computed;
use manygate_core::Batch;
use manygate_cuda::device::Device;
use manygate_models::Inputs;
use std::fmt;
use translate::Setup;

/// What the check of a passing case found.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Tensors of the case that were compared.
    pub tensors: usize,
    /// The largest error met, as a share of what is allowed.
    pub worst: Margin,
}

/// Most mismatches that a failing case lists.
const MOST_LISTED: usize = 5;

/// Checks a case of a registered model in every [`Variant`], the first one that fails ends the check; or one of a
/// registered method, whose configuration has `method` in place of `model`.
///
/// # Errors
/// What is wrong with the case, or the first values that differ: name, index, ours, theirs, what is allowed.
pub fn check(case: &Case) -> Result<Checked, Vec<String>> {
    if case.config.contains_key("method") {
        return balance::check(case, &OnHost);
    }
    let setup = Setup::translate(&case.config).map_err(|message| vec![message])?;
    let contents = Contents::read(case, &setup)?;
    let tolerance = Tolerance::new(&contents.expected, setup.normalises);
    let mut worst = Margin::default();
    for variant in Variant::all() {
        let computed =
            engine::compute(&setup, &contents, variant).map_err(|e| vec![format!("{variant}: {e}")])?;
        worst = worst.max(judge(&tolerance, &contents, &variant, &computed)?);
    }
    checked(case, &contents, worst)
}

/// What the engine computes for a case of a registered model in the first [`Variant`], to check cases that differ from it
/// in nothing but what they expect.
#[derive(Debug)]
pub struct Computation {
    setup: Setup,
    computed: Computed,
}

impl Computation {
    /// Computes what `case` asks for.
    ///
    /// # Errors
    /// What is wrong with the case.
    pub fn of(case: &Case) -> Result<Computation, Vec<String>> {
        let setup = Setup::translate(&case.config).map_err(|message| vec![message])?;
        let contents = Contents::read(case, &setup)?;
        let first =
            Variant::all().next().unwrap_or_else(|| unreachable!("there is a scalar instruction set"));
        let computed = engine::compute(&setup, &contents, first).map_err(|message| vec![message])?;
        Ok(Computation { setup, computed })
    }

    /// What [`check`] says of `case` in this variant, whose inputs, parameters and configuration are those that this
    /// was computed of.
    ///
    /// # Errors
    /// As [`check`].
    pub fn check(&self, case: &Case) -> Result<Checked, Vec<String>> {
        let contents = Contents::read(case, &self.setup)?;
        let tolerance = Tolerance::new(&contents.expected, self.setup.normalises);
        let worst = judge(&tolerance, &contents, &"computed before", &self.computed)?;
        checked(case, &contents, worst)
    }
}

/// Checks a case of a registered model on a CUDA device.
///
/// # Errors
/// As [`check`]; also when the device cannot run the model.
pub fn check_on_device(case: &Case, device: &Device) -> Result<Checked, Vec<String>> {
    let setup = Setup::translate(&case.config).map_err(|message| vec![message])?;
    let contents = Contents::read(case, &setup)?;
    let worst = judge_device(&setup, &contents, device)?;
    checked(case, &contents, worst)
}

/// Checks what a CUDA device computes for the model of `keys`, which has no case, by what the CPU computes of `batch`.
///
/// # Errors
/// As [`check_on_device`].
pub fn check_small_on_device(
    keys: &str,
    inputs: Inputs,
    batch: Batch,
    device: &Device,
) -> Result<Checked, Vec<String>> {
    let (setup, contents) = without_cases::small(keys, inputs, batch).map_err(|message| vec![message])?;
    let worst = judge_device(&setup, &contents, device)?;
    Ok(Checked { tensors: contents.expected.len(), worst })
}

fn judge_device(setup: &Setup, contents: &Contents, device: &Device) -> Result<Margin, Vec<String>> {
    let tolerance = Tolerance::new(&contents.expected, setup.normalises);
    let computed =
        self::device::compute(setup, contents, device).map_err(|e| vec![format!("on the device: {e}")])?;
    judge(&tolerance, contents, &"on the device", &computed)
}

fn judge(
    tolerance: &Tolerance,
    contents: &Contents,
    by: &dyn fmt::Display,
    computed: &Computed,
) -> Result<Margin, Vec<String>> {
    let comparison = tolerance.compare(&contents.expected, computed);
    if comparison.mismatches.is_empty() {
        return Ok(comparison.worst);
    }
    let count = comparison.mismatches.len();
    let mut listed = comparison.mismatches;
    listed.truncate(MOST_LISTED);
    listed.push(format!("{count} tensors differ ({by})"));
    Err(listed)
}

fn checked(case: &Case, contents: &Contents, worst: Margin) -> Result<Checked, Vec<String>> {
    // What evaluation must give where the case does not say is compared too, and not counted.
    let tensors = contents.expected.keys().filter(|name| case.tensors.contains_key(*name)).count();
    match tensors {
        0 => Err(vec!["no tensor was compared".into()]),
        _ => Ok(Checked { tensors, worst }),
    }
}
