//! Cases of task-level optimisation, `task_optimization/<method>[-<variant>]`: what a method of
//! `manygate_train::balance` computes from the gradients of T losses, given as `input.grads` `[T, P]`.
//!
//! All P parameters are shared, and are the layer of gradnorm.

use super::{Case, Checked, Margin, Tensor, Values};
use manygate_train::balance::cagrad::CaGrad;
use manygate_train::balance::famo::Famo;
use manygate_train::balance::gradnorm::GradNorm;
use manygate_train::balance::pcgrad::PcGrad;
use manygate_train::balance::uncertainty::{Likelihood, Uncertainty};
use manygate_train::balance::{Method, Seen, Settings, find, keys};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The folder whose cases these are.
pub(super) const FOLDER: &str = "task_optimization";

/// The method that a case named `case` should be of.
pub(super) fn method_of(case: &str) -> &str {
    case.split('-').next().unwrap_or(case)
}

/// Whether there is such a method.
pub(super) fn is_registered(method: &str) -> bool {
    find(method).is_ok()
}

type Outputs = BTreeMap<&'static str, Vec<f64>>;

/// Who multiplies and weighs gradients `[T, P]`.
pub trait Arithmetic {
    /// Their inner products, `[T, T]`.
    fn gram(&self, gradients: &[f64], losses: usize) -> Vec<f64>;

    /// `Σ_t weights[t] g_t`.
    fn combine(&self, gradients: &[f64], weights: &[f64]) -> Vec<f64>;
}

/// In f64, by plain loops.
pub(super) struct OnHost;

impl Arithmetic for OnHost {
    fn gram(&self, gradients: &[f64], losses: usize) -> Vec<f64> {
        let rows = || gradients.chunks_exact(gradients.len() / losses);
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        rows().flat_map(|a| rows().map(move |b| product(a, b))).collect()
    }

    fn combine(&self, gradients: &[f64], weights: &[f64]) -> Vec<f64> {
        let parameters = gradients.len() / weights.len();
        let rows = || gradients.chunks_exact(parameters);
        let column = |i: usize| rows().zip(weights).map(|(g, w)| w * g[i]).sum();
        (0..parameters).map(column).collect()
    }
}

/// Checks a case of a method, whose gradients `by` multiplies and weighs.
///
/// # Errors
/// What is wrong with it, or the first value of each tensor that differs.
pub fn check(case: &Case, by: &dyn Arithmetic) -> Result<Checked, Vec<String>> {
    let computed = compute(case, by).map_err(|message| vec![message])?;
    let (mut mismatches, mut worst) = (Vec::new(), Margin::default());
    for (full, tensor) in &case.tensors {
        let Some(name) = full.strip_prefix("out.") else { continue };
        let ours = computed.outputs.get(name).ok_or_else(|| unknown(full));
        let share = ours.and_then(|ours| {
            let theirs = floats(full, tensor, &computed.shape(name))?;
            differ(full, ours, &theirs, computed.tolerance)
        });
        match share {
            Ok(share) => worst = worst.max(Margin { share, tensor: full.clone() }),
            Err(message) => mismatches.push(message),
        }
    }
    let names = computed.outputs.keys().map(|name| format!("out.{name}"));
    let missing = names.filter(|name| !case.tensors.contains_key(name));
    mismatches.extend(missing.map(|name| format!("{name} is missing")));
    if mismatches.is_empty() {
        Ok(Checked { tensors: computed.outputs.len(), worst })
    } else {
        Err(mismatches)
    }
}

/// The largest share of the tolerance, or the first value beyond it.
fn differ(name: &str, ours: &[f64], theirs: &[f64], tolerance: f64) -> Result<f64, String> {
    if ours.len() != theirs.len() {
        return Err(format!("{name}: {} values were computed for {}", ours.len(), theirs.len()));
    }
    let allowed = tolerance * theirs.iter().fold(0.0, |m: f64, b| m.max(b.abs())) + f64::MIN_POSITIVE;
    let mut worst = 0.0;
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let error = (a - b).abs();
        if error.is_nan() || error > allowed {
            return Err(format!("{name}[{i}]: ours {a:e}, theirs {b:e}, allowed {allowed:.1e}"));
        }
        worst = f64::max(worst, error / allowed);
    }
    Ok(worst)
}

/// What a method computed.
struct Computed {
    outputs: Outputs,
    /// Relative to the largest value of a tensor.
    tolerance: f64,
    losses: usize,
    parameters: usize,
}

impl Computed {
    /// The shape of `out.<name>`.
    fn shape(&self, name: &str) -> Vec<usize> {
        match name {
            "grad" => vec![self.parameters],
            "projected" => vec![self.losses, self.parameters],
            "loss" | "balance_loss" => vec![1],
            _ => vec![self.losses],
        }
    }
}

fn compute(case: &Case, by: &dyn Arithmetic) -> Result<Computed, String> {
    let mut config = Config(case.config.clone());
    let method: String = config.required("method")?;
    let losses: usize = config.required("tasks")?;
    let mut inputs = Inputs::new(case, losses, by)?;
    let (outputs, tolerance) = match &method[..] {
        "cagrad" => (cagrad(&mut config, &inputs)?, 1e-4),
        "famo" => (famo(&mut config, &mut inputs)?, 1e-5),
        "gradnorm" => (gradnorm(&mut config, &mut inputs)?, 1e-5),
        "pcgrad" => (pcgrad(&mut config, &mut inputs)?, 1e-5),
        "uncertainty" => (uncertainty(&mut config, &mut inputs)?, 1e-5),
        _ => return Err(format!("no computation of the cases of `{method}`")),
    };
    if let Some(key) = config.0.keys().next() {
        return Err(format!("config key `{key}` is not known"));
    }
    if let Some(name) = inputs.tensors.keys().find(|name| !name.starts_with("out.")) {
        return Err(unknown(name));
    }
    Ok(Computed { outputs, tolerance, losses, parameters: inputs.parameters })
}

fn unknown(tensor: &str) -> String {
    format!("{tensor} is not a tensor that this method has")
}

fn cagrad(config: &mut Config, inputs: &Inputs<'_>) -> Result<Outputs, String> {
    let mut method = CaGrad::new(&config.settings(&["c", "rescale"])?, inputs.losses).map_err(text)?;
    let grad = inputs.update(&mut method, &[]);
    Ok(Outputs::from([("grad", grad), ("weights", method.simplex().to_vec())]))
}

fn famo(config: &mut Config, inputs: &mut Inputs<'_>) -> Result<Outputs, String> {
    let mut keys: Map<String, Value> = config.taken(&["lr", "gamma", "beta1", "beta2", "eps"])?;
    keys.insert("min_losses".into(), inputs.take("min_losses")?.into());
    let step: u64 = config.required("step")?;
    let mut method = Famo::new(&settings(keys)?, inputs.losses).map_err(text)?;
    let moments = [inputs.take("w")?, inputs.take("m")?, inputs.take("v")?, vec![step as f64 - 1.0]];
    method.restore(&moments.concat()).map_err(text)?;
    let (before, after) = (inputs.take("losses")?, inputs.take("losses_after")?);
    let mut weights = vec![0.0; inputs.losses];
    method.weigh(&Seen { step, losses: &before, ..Seen::default() }, &mut weights);
    let mut outputs = Outputs::from([
        ("grad", inputs.combine(&weights)),
        ("weights", weights),
        ("loss", vec![method.objective(&before)]),
    ]);
    method.learn_again(&before, &after);
    outputs.insert("w_grad", method.gradient().to_vec());
    let state = method.state();
    let parts = ["w", "m", "v"].into_iter().zip(state.chunks(inputs.losses));
    outputs.extend(parts.map(|(name, part)| (name, part.to_vec())));
    Ok(outputs)
}

fn gradnorm(config: &mut Config, inputs: &mut Inputs<'_>) -> Result<Outputs, String> {
    let mut method = GradNorm::new(&config.settings(&["alpha", "lr"])?, inputs.losses);
    let state = [inputs.take("weights")?, inputs.take("initial_losses")?];
    method.restore(&state.concat()).map_err(text)?;
    let losses = inputs.take("losses")?;
    let grad = inputs.update(&mut method, &losses);
    Ok(Outputs::from([
        ("grad", grad),
        ("norms", method.norms().to_vec()),
        ("target", method.targets().to_vec()),
        ("balance_loss", vec![method.distance()]),
        ("weight_grad", method.gradient().to_vec()),
        ("weights", method.state()[..inputs.losses].to_vec()),
    ]))
}

fn pcgrad(config: &mut Config, inputs: &mut Inputs<'_>) -> Result<Outputs, String> {
    let mut method = PcGrad::new(&config.settings(&["reduction"])?, inputs.losses, 0);
    let order = inputs.order()?;
    let mut weights = vec![0.0; inputs.losses];
    method.weigh_in_order(&inputs.gram(), &order, &mut weights);
    let projected = method.coefficients().chunks(inputs.losses).flat_map(|row| inputs.combine(row));
    Ok(Outputs::from([("grad", inputs.combine(&weights)), ("projected", projected.collect())]))
}

fn uncertainty(config: &mut Config, inputs: &mut Inputs<'_>) -> Result<Outputs, String> {
    let kinds: Vec<Likelihood> = config.required("kinds")?;
    if kinds.len() != inputs.losses {
        return Err(format!("config key `kinds` has {} values for {} tasks", kinds.len(), inputs.losses));
    }
    let mut method = Uncertainty::new(&config.settings(&[])?, kinds);
    let mut state = method.state();
    state[..inputs.losses].copy_from_slice(&inputs.take("log_var")?);
    method.restore(&state).map_err(text)?;
    let losses = inputs.take("losses")?;
    let mut weights = vec![0.0; inputs.losses];
    method.weigh(&Seen::default(), &mut weights);
    let loss = vec![method.objective(&losses)];
    let grad = inputs.update(&mut method, &losses);
    let log_var_grad = method.gradient().to_vec();
    Ok(Outputs::from([("grad", grad), ("weights", weights), ("loss", loss), ("log_var_grad", log_var_grad)]))
}

fn text(error: manygate_core::Error) -> String {
    error.to_string()
}

/// The keys of `config.json` that nobody has read yet.
struct Config(Map<String, Value>);

impl Config {
    fn required<T: for<'de> Deserialize<'de>>(&mut self, key: &str) -> Result<T, String> {
        let value = self.0.remove(key).ok_or_else(|| format!("config key `{key}` is missing"))?;
        serde_json::from_value(value).map_err(|e| format!("config key `{key}`: {e}"))
    }

    /// The keys `names`, all required, under the engine's names.
    fn taken(&mut self, names: &[&str]) -> Result<Map<String, Value>, String> {
        let ours = |name: &str| match name {
            "lr" => "rate".to_owned(),
            "eps" => "epsilon".to_owned(),
            same => same.to_owned(),
        };
        names.iter().map(|name| Ok((ours(name), self.required(name)?))).collect()
    }

    fn settings<T: Settings + for<'de> Deserialize<'de>>(&mut self, names: &[&str]) -> Result<T, String> {
        settings(self.taken(names)?)
    }
}

/// A method's configuration from its keys, checked.
fn settings<T: Settings + for<'de> Deserialize<'de>>(of: Map<String, Value>) -> Result<T, String> {
    let table = toml::Table::try_from(of).map_err(|e| e.to_string())?;
    let settings: T = keys(&table).map_err(text)?;
    settings.check().map_err(text)?;
    Ok(settings)
}

/// The input tensors that nobody has read yet, and the gradients.
struct Inputs<'c> {
    losses: usize,
    parameters: usize,
    /// `[T, P]`
    gradients: Vec<f64>,
    tensors: BTreeMap<&'c str, &'c Tensor>,
    by: &'c dyn Arithmetic,
}

impl<'c> Inputs<'c> {
    fn new(case: &'c Case, losses: usize, by: &'c dyn Arithmetic) -> Result<Inputs<'c>, String> {
        let mut tensors: BTreeMap<&str, &Tensor> = case.tensors.iter().map(|(n, t)| (&n[..], t)).collect();
        let grads = tensors.remove("input.grads").ok_or("input.grads is missing")?;
        let parameters = grads.shape.last().copied().unwrap_or(0);
        let gradients = floats("input.grads", grads, &[losses, parameters])?;
        if losses == 0 || parameters == 0 {
            return Err(format!("there is nothing in input.grads {:?}", grads.shape));
        }
        Ok(Inputs { losses, parameters, gradients, tensors, by })
    }

    fn required(&mut self, name: &str) -> Result<&'c Tensor, String> {
        self.tensors.remove(name).ok_or_else(|| format!("{name} is missing"))
    }

    /// `input.<name>` `[T]`.
    fn take(&mut self, name: &str) -> Result<Vec<f64>, String> {
        let name = format!("input.{name}");
        floats(&name, self.required(&name)?, &[self.losses])
    }

    /// `input.order` `[T, T - 1]`: each row the other losses in some order.
    fn order(&mut self) -> Result<Vec<usize>, String> {
        let others = self.losses - 1;
        let tensor = self.required("input.order")?;
        let Values::I64(values) = &tensor.values else { return Err("input.order is f32".into()) };
        shaped("input.order", tensor, &[self.losses, others])?;
        for a in 0..self.losses {
            let mut row = values[a * others..(a + 1) * others].to_vec();
            row.sort_unstable();
            if !row.iter().copied().eq((0..self.losses as i64).filter(|&b| b != a as i64)) {
                return Err(format!("input.order[{a}] is not an order of the other losses"));
            }
        }
        Ok(values.iter().map(|&b| b as usize).collect())
    }

    /// `Σ_t weights[t] g_t`
    fn combine(&self, weights: &[f64]) -> Vec<f64> {
        self.by.combine(&self.gradients, weights)
    }

    fn gram(&self) -> Vec<f64> {
        self.by.gram(&self.gradients, self.losses)
    }

    /// The gradient that a whole step of `method` gives the shared parameters.
    fn update(&self, method: &mut dyn Method, losses: &[f64]) -> Vec<f64> {
        let gram = self.gram();
        let layer_norms: Vec<f64> = (0..self.losses).map(|t| gram[t * (self.losses + 1)].sqrt()).collect();
        let seen = Seen { step: 1, losses, gram: &gram, layer_norms: &layer_norms };
        let mut weights = vec![0.0; self.losses];
        method.weigh(&seen, &mut weights);
        method.learn(&seen);
        self.combine(&weights)
    }
}

fn floats(name: &str, tensor: &Tensor, shape: &[usize]) -> Result<Vec<f64>, String> {
    let Values::F32(values) = &tensor.values else { return Err(format!("{name} is i64")) };
    shaped(name, tensor, shape)?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err(format!("{name} has values that are not finite"));
    }
    Ok(values.iter().copied().map(f64::from).collect())
}

fn shaped(name: &str, tensor: &Tensor, shape: &[usize]) -> Result<(), String> {
    let differs = || format!("{name} has shape {:?}, not {shape:?}", tensor.shape);
    if tensor.shape == shape { Ok(()) } else { Err(differs()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registered_method_is_computed() {
        for entry in &manygate_train::balance::METHODS {
            let mut case = Case { config: Map::new(), tensors: BTreeMap::new() };
            case.config.insert("method".into(), entry.name.into());
            case.config.insert("tasks".into(), 1.into());
            let grads = Tensor { shape: vec![1, 1], values: Values::F32(vec![1.0]) };
            case.tensors.insert("input.grads".into(), grads);
            let told = check(&case, &OnHost).unwrap_err().join("; ");
            assert!(!told.contains("no computation"), "{told}");
        }
    }
}
