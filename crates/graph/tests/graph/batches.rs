//! Batches of every size, and those that do not fit.

use crate::support::{Setup, batch, batch_norm, counted_task, linear, small, task, trunk};
use manygate_core::{Pool, Result, Serial};
use manygate_graph::ops::Sigmoid;
use manygate_graph::{Graph, Mode, PlanOptions, Workspace};
use manygate_kernels::Isa;
use manygate_kernels::activation::Activation::{Identity, Relu};

fn model(g: &mut Graph) -> Result<()> {
    let x = trunk(g)?;
    let z = linear(g, "bottom", x, 19, Identity)?;
    let h = batch_norm(g, "norm", z, Relu)?;
    let logit = linear(g, "click", h, 1, Identity)?;
    let p = g.add("p", Sigmoid, &[logit])?;
    g.output("hidden", h);
    g.output("click", p);
    task(g, "click", 0, logit)
}

#[test]
fn the_tile_changes_nothing_but_rounding() {
    for rows in [1, 4, 5, 6, 31, 32, 70] {
        let losses: Vec<f64> = [1, 5, 32, 128]
            .map(|tile_rows| {
                let setup = Setup::new(rows, PlanOptions { tile_rows, ..small() }, model);
                setup.run().part_losses()[0]
            })
            .to_vec();
        assert!(losses.iter().all(|l| (l - losses[0]).abs() < 1e-6 && l.is_finite()), "{rows}: {losses:?}");
    }
}

#[test]
fn a_smaller_batch_fits_the_memory_of_a_larger_one() {
    let mut setup = Setup::new(100, PlanOptions { lane_rows: 3, ..small() }, model);
    let lanes: Vec<usize> = (1..=5000).map(|rows| setup.plan.lanes(rows)).collect();
    assert!(lanes.is_sorted() && lanes[0] == 1 && lanes[4999] <= 16);
    let mut ws = Workspace::new(&setup.plan, 1, 100);
    setup.plan.pack(&Serial, &mut ws, &setup.params);
    for rows in [100, 1, 7, 100, 50] {
        setup.batch = batch(rows);
        setup.with_input(|input| setup.plan.run(&Serial, &mut ws, input)).unwrap();
        // Nothing of an earlier batch is left.
        assert_eq!(setup.bits(&ws), setup.bits(&setup.run()), "{rows} rows");
    }
}

#[test]
fn a_label_space_counts_its_rows_alone() {
    let model = |g: &mut Graph, counted: Option<usize>| {
        let x = trunk(g)?;
        let (click, like) = (linear(g, "click", x, 1, Identity)?, linear(g, "like", x, 1, Identity)?);
        task(g, "click", 0, click)?;
        counted_task(g, "like", 1, like, counted)
    };
    let mut setup = Setup::new(40, small(), |g| model(g, Some(0)));
    setup.check();
    let ws = setup.run();
    // As if the other rows were not there.
    let mut clicked = Setup::new(40, small(), |g| model(g, None));
    let is_clicked = |r: &u32| setup.batch.labels[0][*r as usize] == 1.0;
    let rows: Vec<u32> = (0..40).filter(is_clicked).collect();
    clicked.batch.gather(&setup.batch, &rows);
    let alone = clicked.run();
    assert!(rows.len() > 5 && rows.len() < 35);
    assert!((ws.part_losses()[1] - alone.part_losses()[1]).abs() < 1e-6);
    let gradients = [setup.gradient(&ws, "like.weight"), clicked.gradient(&alone, "like.weight")];
    assert!(gradients[0].iter().zip(&gradients[1]).all(|(a, b)| (a - b).abs() < 1e-6));
    // Without any such row there is no loss and no gradient.
    setup.batch.labels[0].fill(0.0);
    setup.check();
    let ws = setup.run();
    assert_eq!(ws.part_losses()[1], 0.0);
    assert!(setup.gradient(&ws, "like.weight").iter().all(|&v| v == 0.0));
}

#[test]
fn a_row_does_not_know_who_else_is_in_the_batch() {
    for isa in Isa::available() {
        let options = PlanOptions { isa, ..small() };
        let mut setup = Setup::of(Mode::Evaluation, 40, options, model);
        let (all, together) = (batch(40), setup.run());
        for row in 0..40 {
            setup.batch.gather(&all, &[row]);
            let alone = setup.run();
            for name in ["hidden", "click"] {
                let bits = |ws, row| {
                    let output = setup.plan.output(ws, name).unwrap();
                    output.row(row).iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                };
                assert_eq!(bits(&alone, 0), bits(&together, row as usize), "{isa}, row {row}, {name}");
            }
        }
    }
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let says = |change: &dyn Fn(&mut Setup), what: &str| {
        let mut setup = Setup::new(8, small(), model);
        change(&mut setup);
        let message = setup.error();
        assert!(message.contains(what), "{message}");
    };
    says(&|s| s.batch = batch(0), "the batch has no rows");
    says(&|s| s.batch = batch(65), "65 rows, the workspace was made for 64");
    says(&|s| s.batch.ids.clear(), "the batch has 0 id columns, the model reads 1");
    says(&|s| s.batch.bags.clear(), "the batch has 0 bags, the model reads 1");
    says(&|s| s.batch.labels.clear(), "the batch has 0 label columns, the model reads 1");
    says(&|s| s.batch.ids[0].truncate(7), "id column 0 has 7 values, 8 are needed");
    says(&|s| s.batch.ids[0][3] = 7, "id column 0 has id 7 at position 3, `user` has 7 rows");
    says(&|s| s.batch.bags[0].ids[2] = 99, "bag 0 has id 99 at position 2, `tag` has 6 rows");
    let narrow = |s: &mut Setup| {
        s.batch.dense_width = 2;
        s.batch.dense.truncate(16);
    };
    says(&narrow, "the batch has 2 numbers a row, the model reads 4");
    says(&|s| s.seeds.push(1.0), "2 seeds for 1 parts of the loss");
}

#[test]
fn strangers_are_refused() {
    let setup = Setup::new(8, small(), model);
    let other = Setup::new(8, small(), |g| {
        let x = trunk(g)?;
        let logit = linear(g, "click", x, 1, Identity)?;
        task(g, "click", 0, logit)
    });
    let run = |ws: &mut Workspace| setup.with_input(|input| setup.plan.run(&Serial, ws, input));
    let mut ws = other.run();
    assert!(run(&mut ws).unwrap_err().to_string().contains("the workspace was made for another plan"));
    let mut ws = Workspace::new(&setup.plan, 1, 8);
    assert!(run(&mut ws).unwrap_err().to_string().contains("no weights were packed"));
    let mut ws = setup.run();
    let swapped = other.with_input(|input| setup.plan.run(&Serial, &mut ws, input)).unwrap_err();
    assert!(swapped.to_string().contains("the parameters belong to another model"));
    let threads = Pool::new(2).unwrap().enter(|exec| {
        setup.with_input(|input| setup.plan.run(exec, &mut ws, input)).unwrap_err().to_string()
    });
    assert!(threads.contains("2 threads, the workspace was made for 1"));
}
