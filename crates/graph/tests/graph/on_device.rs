//! What a device cannot take is said before anything is put there.

use manygate_graph::device::{Capacity, copy_bytes};
use manygate_graph::ops::{
    GateCombine, GateCombineSeen, Linear, LookupTrunk, OuterGradient, PairProducts, Piece, PositionEmbedding,
};
use manygate_graph::{Graph, LossPart, Mode, Op, Over, Plan, PlanOptions, Shape, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::gate::Seen;

/// What a device says of a plan with `op` over inputs of so many columns, as [`None`] where it takes it.
fn refusal(op: impl Op + 'static, widths: &[usize]) -> Option<String> {
    let mut g = Graph::new(Mode::Evaluation);
    let width = widths.iter().sum();
    let x = g.add("numbers", LookupTrunk::new(vec![Piece::Dense { width }]), &[]).unwrap();
    let mut from = 0;
    let inputs: Vec<Value> = widths
        .iter()
        .map(|&width| {
            from += width;
            g.columns(x, from - width, width).unwrap()
        })
        .collect();
    let out = g.add("wide", op, &inputs).unwrap();
    g.output("out", out);
    let plan = Plan::compile(g, PlanOptions::default()).unwrap();
    plan.check_device().err().map(|error| error.to_string())
}

#[test]
fn rows_that_do_not_fit_shared_memory_are_refused_by_name() {
    let seen = |experts: usize| GateCombineSeen::new(Seen::new(experts, &[(0..experts).collect()]).unwrap());
    assert_eq!(refusal(PairProducts::new(100), &[1600]), None);
    assert_eq!(refusal(GateCombine::new(2, 1500), &[3000, 1500]), None);
    assert_eq!(refusal(seen(6144), &[6144, 6144]), None);
    for refused in [
        refusal(PairProducts::new(100), &[12800]),
        refusal(GateCombine::new(2, 1600), &[3200, 1600]),
        refusal(seen(6145), &[6145, 6145]),
    ] {
        let told = refused.expect("it does not fit");
        assert!(told.contains("wide: ") && told.contains("do not fit the shared memory"), "{told}");
        assert!(told.ends_with("run it with `--device cpu`"), "{told}");
    }
}

#[test]
fn an_op_without_kernels_is_named() {
    let mut g = Graph::new(Mode::Training);
    let x = g.add("numbers", LookupTrunk::new(vec![Piece::Dense { width: 2 }]), &[]).unwrap();
    let [y, v] = [0, 1].map(|column| g.columns(x, column, 1).unwrap());
    let loss = g.loss(LossPart::new("loss", 1.0, Over::Once)).unwrap();
    g.add("outer", OuterGradient::new(loss), &[y, v]).unwrap();
    let plan = Plan::compile(g, PlanOptions::default()).unwrap();
    let told = plan.check_device().unwrap_err().to_string();
    let expected = "outer: the op `outer_gradient` has no CUDA kernel yet; run the model with `--device cpu`";
    assert!(told.ends_with(expected), "{told}");
}

#[test]
fn more_places_than_a_grid_has_are_refused() {
    let refusal = |places: usize| {
        let shapes = [Shape::batch(4), Shape::once(places, 4)];
        PositionEmbedding::new(0).on_device().expect("launches").refuses(&shapes)
    };
    assert_eq!(refusal(65_535), None);
    let told = refusal(65_536).expect("it does not fit");
    assert!(told.starts_with("65536 places of a list"), "{told}");
}

#[test]
fn what_exists_once_has_its_own_rows_of_scratch_however_few_a_batch_has() {
    let (few, linear) = (Capacity { rows: 1, ids: Vec::new() }, Linear::new(9, true, Activation::Tanh));
    let shapes = [Shape::once(300, 5), Shape::once(9, 5), Shape::once(9, 1)];
    let scratch = linear.on_device().expect("launches").scratch(&few, &shapes);
    assert!(scratch >= copy_bytes(300, 9), "{scratch} bytes for a gradient of 300 rows");
}
