//! Towers: an MLP a task that ends in one bare logit.
//!
//! With prefix `towers.<task>`: hidden layers from index 0, then the logit layer `[1, last unit]` as the last index. Where
//! every scenario has towers of its own, a row computes those of its own, and the prefix is `towers.<task>_<scenario>` in
//! models of scenarios, `towers.<task>.<scenario>` where a model of tasks takes them. Heads are the logit layers alone,
//! `head.<task>.{weight,bias}`.

use super::concat::concat;
use super::linear::{self, Head};
use super::mlp::{MlpInput, MlpStyle, Networks, linears, mlps};
use super::scenario;
use crate::inputs::{Inputs, Task};
use manygate_core::Result;
use manygate_graph::{Graph, Value};
use manygate_kernels::activation::Activation;

/// [`towers`] or, with `scenario_heads`, a tower for each task and scenario: how a multi-task model that knows no
/// scenarios otherwise takes them.
///
/// # Errors
/// As [`towers`], and when the data has no scenarios that heads could be of.
pub fn of_tasks(
    g: &mut Graph,
    inputs: &Inputs,
    input: MlpInput,
    style: MlpStyle<'_>,
    scenario_heads: bool,
) -> Result<Vec<Value>> {
    if !scenario_heads {
        return towers(g, inputs, input, style);
    }
    let prefixes: Vec<String> = inputs.task_names().map(|task| format!("towers.{task}")).collect();
    named(g, inputs, &prefixes, input, style, true)
}

/// The same for any prefixes: a logit `[batch, 1]` each.
///
/// # Errors
/// As [`of_tasks`].
pub fn named(
    g: &mut Graph,
    inputs: &Inputs,
    prefixes: &[String],
    input: MlpInput,
    style: MlpStyle<'_>,
    scenario_heads: bool,
) -> Result<Vec<Value>> {
    let Some(scenarios) = scenario::of_heads(inputs, scenario_heads)? else {
        let logits = logits(g, prefixes, input, style)?;
        return (0..prefixes.len()).map(|t| g.columns(logits, t, 1)).collect();
    };
    // Apart, and not side by side: what one norm by scenario reaches is not told by column, so that each task's loss would
    // seem to reach all towers.
    let mut logits = Vec::with_capacity(prefixes.len());
    for (t, prefix) in prefixes.iter().enumerate() {
        let x = match input {
            MlpInput::Shared(x) => x,
            MlpInput::Each(x) => {
                let width = g.cols(x) / prefixes.len();
                g.columns(x, t * width, width)?
            }
        };
        let own = scenario::prefixes(prefix, scenarios);
        let own = Networks::by_scenario(&own, scenarios);
        logits.push(self::logits(g, own, MlpInput::Shared(x), style)?);
    }
    Ok(logits)
}

/// A logit `[batch, 1]` a task. `input` is shared by all towers or holds a range of columns for each.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn towers(g: &mut Graph, inputs: &Inputs, input: MlpInput, style: MlpStyle<'_>) -> Result<Vec<Value>> {
    family(g, "towers", inputs, input, style)
}

/// The same with another prefix, `<family>.<task>`.
///
/// # Errors
/// As [`towers`].
pub fn family(
    g: &mut Graph,
    family: &str,
    inputs: &Inputs,
    input: MlpInput,
    style: MlpStyle<'_>,
) -> Result<Vec<Value>> {
    several(g, inputs, 1, |task, _| format!("{family}.{task}"), input, style, false)
}

/// `count` towers a task, `prefix(task, number)` each: their logits `[batch, count]`, a value a task. `input` is shared by
/// all of them or holds a range of columns for each, task by task. With `scenario_heads` each of them is one of each
/// scenario.
///
/// # Errors
/// As [`of_tasks`].
pub fn several(
    g: &mut Graph,
    inputs: &Inputs,
    count: usize,
    prefix: impl Fn(&str, usize) -> String,
    input: MlpInput,
    style: MlpStyle<'_>,
    scenario_heads: bool,
) -> Result<Vec<Value>> {
    let of_task = |task: &Task| (0..count).map(|m| prefix(&task.name, m)).collect::<Vec<_>>();
    if scenario_heads {
        let prefixes: Vec<String> = inputs.tasks.iter().flat_map(of_task).collect();
        let logits = named(g, inputs, &prefixes, input, style, true)?;
        let logits_of = logits.chunks(count).zip(inputs.task_names());
        return logits_of.map(|(own, task)| concat(g, &format!("{task}.logits"), own)).collect();
    }
    side_by_side(g, inputs, count, input, |g, tasks, input| {
        let prefixes: Vec<String> = tasks.iter().flat_map(of_task).collect();
        logits(g, &prefixes, input, style)
    })
}

/// A logit `[batch, 1]` a task, from the tower of the row's scenario.
///
/// # Errors
/// As [`towers`].
pub fn of_scenarios(
    g: &mut Graph,
    inputs: &Inputs,
    input: MlpInput,
    style: MlpStyle<'_>,
) -> Result<Vec<Value>> {
    side_by_side(g, inputs, 1, input, |g, tasks, input| {
        let names = tasks.iter().map(|task| task.name.as_str());
        let own = scenario::prefixes_of_each("towers", names, inputs.scenarios);
        logits(g, Networks::by_scenario(&own, inputs.scenarios), input, style)
    })
}

/// Logits of all tasks, `[batch, count]` each. Tasks that are not served stand apart, so that a plan which serves computes nothing for them.
fn side_by_side(
    g: &mut Graph,
    inputs: &Inputs,
    count: usize,
    input: MlpInput,
    logits: impl Fn(&mut Graph, &[Task], MlpInput) -> Result<Value>,
) -> Result<Vec<Value>> {
    let mut all = Vec::with_capacity(inputs.tasks.len());
    for tasks in inputs.tasks.chunk_by(|a, b| a.auxiliary == b.auxiliary) {
        let input = match input {
            MlpInput::Shared(x) => MlpInput::Shared(x),
            MlpInput::Each(x) => {
                let width = g.cols(x) / inputs.tasks.len();
                MlpInput::Each(g.columns(x, all.len() * width, tasks.len() * width)?)
            }
        };
        let logits = logits(g, tasks, input)?;
        for t in 0..tasks.len() {
            all.push(g.columns(logits, t * count, count)?);
        }
    }
    Ok(all)
}

/// A logit `[batch, 1]` a task as a linear function of x: `<family>.<task>.weight` `[1, width]` and `.bias` `[1]`.
///
/// # Errors
/// When a name is taken.
pub fn heads(g: &mut Graph, family: &str, inputs: &Inputs, x: Value) -> Result<Vec<Value>> {
    let mut all = Vec::with_capacity(inputs.tasks.len());
    for side_by_side in inputs.tasks.chunk_by(|a, b| a.auxiliary == b.auxiliary) {
        let head = |task: &Task| Head { prefix: format!("{family}.{}", task.name), out: 1 };
        let heads: Vec<Head> = side_by_side.iter().map(head).collect();
        let logits = linear::side_by_side(g, family, &heads, x, true, Activation::Identity)?;
        all.extend(linear::columns_of(g, logits, &heads)?);
    }
    Ok(all)
}

/// One bare logit on top of an MLP, for each network: `[batch, networks]`.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn logits<'a>(
    g: &mut Graph,
    networks: impl Into<Networks<'a>>,
    input: MlpInput,
    style: MlpStyle<'_>,
) -> Result<Value> {
    numbers(g, networks, input, style, 1)
}

/// The same with `out` bare values each, `[batch, networks · out]`.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn numbers<'a>(
    g: &mut Graph,
    networks: impl Into<Networks<'a>>,
    input: MlpInput,
    style: MlpStyle<'_>,
    out: usize,
) -> Result<Value> {
    let networks = networks.into();
    match (input, style.units) {
        // No hidden layer and one input: the logit layers are the first layers.
        (MlpInput::Shared(_), []) => {
            let activation = Activation::Identity;
            let logit = MlpStyle { units: &[out], activation, batch_norm: false, dropout: 0.0 };
            mlps(g, networks, input, logit)
        }
        _ => {
            let hidden = mlps(g, networks, input, style)?;
            linears(g, networks, style.units.len(), hidden, out, true, Activation::Identity)
        }
    }
}
