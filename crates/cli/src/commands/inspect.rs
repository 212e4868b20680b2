//! `manygate inspect`.

use crate::args::Inspect;
use crate::output;
use manygate_core::{Result, write_atomically};
use manygate_train::gates::gates;
use manygate_train::inspect::{Inspection, Tensor, Totals, TrainingPlan, inspect, training_plan};
use manygate_train::report::gates::{gate_heat, gates_table};
use manygate_train::report::terminal::{Look, table};

pub(crate) fn run(args: &Inspect) -> Result<()> {
    if args.plan {
        return output::result(&plan_text(&training_plan(&args.run)?));
    }
    if args.gates {
        return show_gates(args);
    }
    let inspection = inspect(&args.run)?;
    if args.json { output::json(&inspection) } else { output::result(&text(&inspection)) }
}

fn show_gates(args: &Inspect) -> Result<()> {
    let gates = gates(&args.run, &args.data, args.threads)?;
    if let Some(path) = &args.svg {
        write_atomically(path, gate_heat(&gates).as_bytes())?;
    }
    if args.json {
        output::json(&gates)
    } else {
        output::result(gates_table(&gates, Look::detect()).trim_end())
    }
}

fn plan_text(plan: &TrainingPlan) -> String {
    let (one, two) = (plan.bytes(1), plan.bytes(2));
    format!(
        "{}\nbatches of {} rows: {} lanes, {one} bytes of buffers on one thread, {} more for each other thread",
        plan.description,
        plan.rows,
        plan.lanes,
        two - one
    )
}

fn text(inspection: &Inspection) -> String {
    let Inspection { model, parameters, state, tables, totals, .. } = inspection;
    let mut parts = vec![section("parameters", parameters)];
    if !state.is_empty() {
        parts.push(section("state", state));
    }
    parts.push(section("tables", tables));
    let Totals { parameters, state, tables, bytes } = totals;
    let state = if *state > 0 { format!(", {state} of state") } else { String::new() };
    parts.push(format!("{model}: {parameters} parameters{state}, {tables} in tables; {bytes} bytes"));
    parts.join("\n\n")
}

fn section(title: &str, tensors: &[Tensor]) -> String {
    let rows = tensors.iter().map(|t| {
        let figures = [figure(t.norm), figure(t.mean), figure(f64::from(t.largest))];
        [t.name.clone(), format!("{:?}", t.shape), t.count.to_string(), t.bytes.to_string()]
            .into_iter()
            .chain(figures)
    });
    let header = [title, "shape", "count", "bytes", "norm", "mean", "largest |value|"];
    table(&header, rows.map(Vec::from_iter), 1, Look::detect())
}

/// Four digits, with an exponent where the number needs one.
fn figure(x: f64) -> String {
    if x == 0.0 || (1e-3..1e5).contains(&x.abs()) { format!("{x:.4}") } else { format!("{x:.3e}") }
}
