//! The dense optimiser over all parameters of a network, from the gradients of several lanes.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::optim::{
    AdagradStep, AdamStep, MomentumStep, SgdStep, adagrad, adam, clamp, momentum, scale, sgd, sum_lanes,
    sum_squares,
};
use manygate_kernels::{Isa, Mat};
use std::hint::black_box;

const PARAMETERS: usize = 2_900_000;

fn bytes(values: usize) -> Work {
    Work { flops: 0.0, bytes: (values * size_of::<f32>()) as f64 }
}

fn optimisers(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("optim {isa}"));
    let mut weights = values(PARAMETERS);
    let (mut first, mut second) = (Aligned::zeros(PARAMETERS), Aligned::zeros(PARAMETERS));
    let step = AdamStep {
        rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        correction1: 0.5,
        correction2: 0.1,
        l2: 0.0,
        weight_decay: 0.0,
    };
    let descent = SgdStep { rate: 1e-3, l2: 0.0 };
    let ball = MomentumStep { rate: 1e-3, momentum: 0.9, nesterov: true, l2: 0.0, weight_decay: 0.0 };
    let by_value = AdagradStep { rate: 1e-3, epsilon: 1e-8, l2: 0.0 };
    for lanes in [1, 8] {
        let gradients = values(lanes * PARAMETERS);
        let gradients = Mat::new(gradients.as_ref(), lanes, PARAMETERS);
        let name = format!("adam, {PARAMETERS} parameters, {lanes} lanes");
        case(&mut group, machine, &name, bytes(PARAMETERS * (lanes + 6)), || {
            adam(isa, weights.as_mut(), gradients, first.as_mut(), second.as_mut(), &step);
        });
        let name = format!("sgd, {PARAMETERS} parameters, {lanes} lanes");
        case(&mut group, machine, &name, bytes(PARAMETERS * (lanes + 2)), || {
            sgd(isa, weights.as_mut(), gradients, &descent);
        });
        let name = format!("momentum, {PARAMETERS} parameters, {lanes} lanes");
        case(&mut group, machine, &name, bytes(PARAMETERS * (lanes + 4)), || {
            momentum(isa, weights.as_mut(), gradients, first.as_mut(), &ball);
        });
        let name = format!("adagrad, {PARAMETERS} parameters, {lanes} lanes");
        case(&mut group, machine, &name, bytes(PARAMETERS * (lanes + 4)), || {
            adagrad(isa, weights.as_mut(), gradients, second.as_mut(), &by_value);
        });
        let name = format!("sum of {lanes} lanes, {PARAMETERS} parameters");
        case(&mut group, machine, &name, bytes(PARAMETERS * (lanes + 1)), || {
            sum_lanes(isa, gradients, first.as_mut());
        });
    }
    let name = format!("sum of squares, {PARAMETERS} parameters");
    case(&mut group, machine, &name, bytes(PARAMETERS), || {
        black_box(sum_squares(isa, first.as_ref()));
    });
    // By 1, and to a limit that none reaches: the values must last for many repetitions.
    let name = format!("scale, {PARAMETERS} parameters");
    case(&mut group, machine, &name, bytes(PARAMETERS * 2), || scale(isa, first.as_mut(), 1.0));
    let name = format!("clamp, {PARAMETERS} parameters");
    case(&mut group, machine, &name, bytes(PARAMETERS * 2), || clamp(isa, first.as_mut(), 1e30));
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    optimisers(&mut criterion, isa, &Machine::measure(isa));
    criterion.final_summary();
}

criterion_main!(benches);
