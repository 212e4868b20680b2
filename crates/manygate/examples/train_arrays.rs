//! Trains on made-up arrays and leaves a run folder:
//! `cargo run --release -p manygate --example train_arrays -- FOLDER`.
//!
//! The folder `tests/downstream/fixture` was made so.

use manygate::ndarray::{Array1, Array2};
use manygate::{Batch, Columns, Options, Result, Schema, Trainer};

const USERS: u32 = 20;
const ITEMS: u32 = 15;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "runs/arrays".into());
    let schema = Schema::default()
        .field("user", USERS)
        .field("item", ITEMS)
        .sequence("history", "item", 3)
        .number("age")
        .scenarios("tab", ["feed", "search"])
        .task("click")
        .task_within("buy", "click");
    let (fit, valid) = (rows(&schema, 0, 4000)?, rows(&schema, 4000, 1000)?);

    let keys = "experts = 2\nexpert_units = [16]\ntower_units = [8]\nembedding_dim = 4";
    let mut options = Options { epochs: 4, batch_size: 128, ..Options::default() };
    (options.optimizer.dense.rate, options.optimizer.tables.rate) = (Some(0.01), Some(0.01));
    let mut trainer = Trainer::new("mmoe", keys, schema, options)?;
    let fitted = trainer.fit(&fit, &valid)?;
    for (number, epoch) in fitted.epochs.iter().enumerate() {
        let auc = epoch.valid.mean_auc(["click", "buy"].into_iter()).unwrap_or(f64::NAN);
        println!("epoch {number}: losses {:.4?}, AUC on validation {auc:.4}", epoch.losses);
    }
    trainer.save(folder.as_ref())?;
    println!("{folder} has the model of epoch {}", fitted.best);
    Ok(())
}

/// Rows whose labels follow from the item, the last item seen, and age.
fn rows(schema: &Schema, from: u32, rows: usize) -> Result<Batch> {
    // A number from 0 to 1 for row and column, always the same.
    let noise = |row: usize, column: u32| {
        let mixed =
            (from + row as u32).wrapping_mul(0x9e37_79b9).wrapping_add(column.wrapping_mul(0x85eb_ca6b));
        f64::from((mixed ^ mixed >> 15).wrapping_mul(0x2c1b_3c6d) >> 8) / f64::from(1 << 24)
    };
    let below = |row, column, count: u32| (noise(row, column) * f64::from(count)) as u32;
    let ids = Array2::from_shape_fn((rows, 2), |(r, c)| below(r, c as u32, [USERS, ITEMS][c]));
    let history: Vec<Vec<u32>> =
        (0..rows).map(|r| (0..below(r, 2, 4)).map(|i| below(r, 3 + i, ITEMS)).collect()).collect();
    let age = Array2::from_shape_fn((rows, 1), |(r, _)| (2.0 * noise(r, 10) - 1.0) as f32);
    let tab: Array1<u32> = (0..rows).map(|r| below(r, 11, 2)).collect();
    let labels = Array2::from_shape_fn((rows, 2), |(r, task)| {
        let likes = ids[[r, 1]] % 3 == 0;
        let again = history[r].last() == Some(&ids[[r, 1]]);
        let click = 0.15 + 0.4 * f64::from(u8::from(likes)) + 0.3 * f64::from(u8::from(again));
        let clicks = noise(r, 12) < click;
        let buys = clicks && noise(r, 13) < 0.3 + 0.2 * f64::from(age[[r, 0]]);
        f32::from(u8::from([clicks, buys][task]))
    });
    Columns::new(schema)
        .ids(ids.view())?
        .lists("history", &history)?
        .numbers(age.view())?
        .scenario(&tab.to_vec())?
        .labels(labels.view())?
        .finish()
}
