//! A run that looks like a real one, for the tests of reports.

use super::*;
use crate::metrics::{Judged, Ranked, Slices, evaluate, reliability};
use manygate_core::Stream;
use manygate_features::TaskKind;

const TASKS: [&str; 4] = ["is_click", "long_view", "is_like", "is_profile_enter"];
const RATES: [f64; 4] = [0.45, 0.32, 0.017, 0.018];

/// A report of four tasks and five scenarios, 12,000 test rows, 150 steps; every part is filled.
pub(super) fn run() -> ReportData {
    let scenarios: Vec<String> = ["1", "0", "4", "6", "2"].map(str::to_owned).to_vec();
    let rates: Ordered<f64> = TASKS.iter().zip(RATES).map(|(t, r)| ((*t).to_owned(), r)).collect();
    let part = |rows: u64, seed: u64| {
        let (p, y, scenario, users) = rows_of(rows, seed);
        let judged = TASKS.iter().zip(&p).zip(&y).map(|((task, predictions), labels)| Judged {
            task,
            kind: TaskKind::Binary,
            predictions,
            labels,
            counted: None,
            before: None,
        });
        let slices = Slices { scenario: &scenario, names: &scenarios, column: "tab", users: Some(&users) };
        let evaluation = evaluate(&judged.collect::<Vec<_>>(), &slices).unwrap();
        let constants = Constants::of(&rates, &evaluation);
        let bins = TASKS.iter().enumerate().map(|(t, task)| {
            ((*task).to_owned(), reliability(&Ranked::new(&p[t], &y[t], None).unwrap(), 10))
        });
        (Part { evaluation, constants, auxiliary: vec![] }, bins.collect())
    };
    let (test, reliability) = part(12_614, 1);
    let (valid, _) = part(3_896, 2);
    ReportData {
        title: "mmoe on quickstart".to_owned(),
        facts: [
            ("model", "mmoe, 4 experts [128, 64]"),
            ("data", "quickstart, 50,680 rows"),
            ("seed", "1"),
            ("date", "2026-03-01 12:00 UTC"),
            ("training time", "2.4 s"),
            ("parameters", "538,596 (254,244 without tables)"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        tasks: TASKS.map(str::to_owned).to_vec(),
        losses: TASKS.map(str::to_owned).to_vec(),
        training: training(),
        validation: (1..=6).map(|i| validation(i * 25, &valid.evaluation)).collect(),
        chosen_step: Some(125),
        chosen_by_task: Ordered::default(),
        floors: Some(serde_json::from_str(FLOORS).unwrap()),
        test: Some(test),
        valid: Some(valid),
        reliability,
    }
}

pub(super) const FLOORS: &str = r#"{
    "LR": {
        "is_click": {"all": 0.7197, "tab=1": 0.6713, "tab=0": 0.6585, "tab=4": 0.617, "tab=6": 0.788, "tab=2": 0.701},
        "long_view": {"all": 0.7135, "tab=1": 0.6696, "tab=0": 0.6517, "tab=4": 0.6688},
        "is_like": {"all": 0.75, "tab=1": 0.7581}},
    "GBDT": {
        "is_click": {"all": 0.7244, "tab=1": 0.6747, "tab=0": 0.6237, "tab=4": 0.64, "tab=6": 0.7478, "tab=2": 0.7446},
        "is_like": {"all": 0.7854, "tab=1": 0.7962}}}"#;

type Columns = Vec<Vec<f32>>;

/// Predictions, labels, scenarios, users: the truth is a logistic model, the prediction sees part of it.
fn rows_of(rows: u64, seed: u64) -> (Columns, Columns, Vec<u32>, Vec<u32>) {
    let noise = Stream::new(seed, 0, 0);
    let scenario: Vec<u32> = (0..rows)
        .map(|r| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4][noise.below(r, 0, 19) as usize])
        .collect();
    let users = (0..rows).map(|r| noise.below(r, 1, 3_000) as u32).collect();
    let (mut predicted, mut labels) = (Vec::new(), Vec::new());
    for (t, rate) in RATES.iter().enumerate() {
        let (mut p, mut y) = (Vec::new(), Vec::new());
        for r in 0..rows {
            let seen = f64::from(noise.normal(r, 10 + t as u64));
            let hidden = f64::from(noise.normal(r, 20 + t as u64));
            let shift = [0.0, -1.6, 0.3, -1.2, 0.2][scenario[r as usize] as usize];
            let base = (rate / (1.0 - rate)).ln();
            let truth = 1.0 / (1.0 + (-(base + shift + 0.8 * seen + 0.6 * hidden)).exp());
            let told = 1.0 / (1.0 + (-(base + 0.7 * shift + 1.1 * seen)).exp());
            y.push(f32::from(u8::from(f64::from(noise.uniform(r, 30 + t as u64)) < truth)));
            p.push(told as f32);
        }
        predicted.push(p);
        labels.push(y);
    }
    (predicted, labels, scenario, users)
}

fn training() -> Vec<TrainingPoint> {
    let noise = Stream::new(3, 0, 0);
    let finals = [0.58, 0.53, 0.068, 0.079];
    let loss = |step: u64, t: usize| {
        let start = std::f64::consts::LN_2 - finals[t];
        let scatter = 0.05 * finals[t].sqrt() * f64::from(noise.normal(step, t as u64)) * 0.4;
        finals[t] + start * (-(step as f64) / 8.0).exp() + 0.04 * (-(step as f64) / 80.0).exp() + scatter
    };
    (1..=150).map(|step| TrainingPoint { step, loss: (0..4).map(|t| loss(step, t)).collect() }).collect()
}

/// The final metrics, with AUC still to gain before step 125 and lost after.
fn validation(step: u64, last: &Evaluation) -> ValidationPoint {
    let away = (125.0 - step as f64).abs() / 125.0;
    let tasks = last.tasks.iter().map(|(task, slices)| {
        let slices = slices.iter().filter(|(slice, _)| *slice == "all").map(|(slice, m)| {
            let mut m = *m;
            m.auc = m.auc.map(|auc| auc - 0.08 * away * away);
            m.logloss = m.logloss.map(|loss| loss * (1.0 + 0.08 * away * away));
            (slice.to_owned(), m)
        });
        (task.to_owned(), slices.collect())
    });
    ValidationPoint { step, evaluation: Evaluation { tasks: tasks.collect() } }
}
