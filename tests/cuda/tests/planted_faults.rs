//! That the checks see the mistakes that kernels of this kind are prone to: each is planted in the PTX as it ships, one
//! instruction at a time, in every place where it could stand.

use manygate_cuda::gemm::{self, BiasGradient, Heads};
use manygate_cuda::gemm_gradients::{self, InputGradient};
use manygate_cuda::{DeviceMat, Element, Family, Launch, Precision, gate};
use manygate_cuda_tests::{Gpu, Window};
use manygate_kernels::activation::Activation;

/// A product of one tile, which it fills in part, and of several pieces of the inner index.
fn linear(precision: Precision) -> (Gpu, Launch) {
    linear_on((8, 0), precision)
}

/// The same by the instructions of Hopper.
fn linear_on_hopper() -> (Gpu, Launch) {
    let (gpu, launch) = linear_on((9, 0), Precision::Bf16);
    (gpu, *launch.on_hopper.expect("kernels for Hopper"))
}

/// The same in wide tiles: two of them, one after the other, and more pieces in each than there are stages.
fn linear_in_wide_tiles() -> (Gpu, Launch) {
    let (gpu, launch) = linear_of((9, 0), Precision::Bf16, 270);
    (gpu, Launch { grid: [1; 3], ..gemm::in_wide_tiles(&launch.on_hopper.expect("kernels for Hopper")) })
}

fn linear_on(capability: (u32, u32), precision: Precision) -> (Gpu, Launch) {
    linear_of(capability, precision, 21)
}

fn linear_of(capability: (u32, u32), precision: Precision, rows: usize) -> (Gpu, Launch) {
    let mut gpu = Gpu::of_capability(capability);
    let element = if precision == Precision::Bf16 { Element::Bf16 } else { Element::F32 };
    let (x, weight) =
        (Window { element, ..Window::whole(rows, 208) }, Window { element, ..Window::whole(19, 208) });
    let (x, weight) =
        (x.upload(&mut gpu, &x.values(1, 1.0)), weight.upload(&mut gpu, &weight.values(2, 1.0)));
    let y = DeviceMat::new(gpu.allocate::<f32>(rows * 19), rows as u32, 19);
    (gpu, gemm::linear(precision, x, weight, &Heads::one(19, 0, Activation::Identity), y))
}

/// Both gradients of a layer there: more pieces than stages, the last of which is filled in part.
fn gradients_on_hopper() -> (Gpu, Launch) {
    let mut gpu = Gpu::of_capability((9, 0));
    let (rows, inputs, outputs) = (250, 136, 72);
    let upload = |gpu: &mut Gpu, rows: usize, cols: usize| {
        let window = Window { element: Element::Bf16, ..Window::whole(rows, cols) };
        window.upload(gpu, &window.values(cols as u64, 1.0))
    };
    let [dy, x, weight] =
        [(rows, outputs), (rows, inputs), (outputs, inputs)].map(|(rows, cols)| upload(&mut gpu, rows, cols));
    let to = DeviceMat::new(gpu.allocate::<f32>(outputs * inputs), outputs as u32, inputs as u32);
    let db = BiasGradient { dy, accumulate: false, to: gpu.allocate::<f32>(outputs) };
    let scratch = gpu.allocate::<f32>(gemm::linear_dw_scratch(rows as u32, inputs as u32, outputs as u32, 1));
    let dw = &gemm::linear_dw(Precision::Bf16, dy, x, false, to, Some(db), scratch)[0];
    let dx = InputGradient {
        accumulate: false,
        mask: Some((Activation::Relu, x)),
        to: upload(&mut gpu, rows, inputs),
    };
    (gpu, gemm_gradients::at_once(dw, weight, dx).expect("kernels for Hopper"))
}

/// Two gates over five experts, forward.
fn gates() -> (Gpu, Launch) {
    let mut gpu = Gpu::new();
    let (logits, experts) = (Window::whole(9, 10), Window::whole(9, 5 * 32));
    let (logits, experts) =
        (logits.upload(&mut gpu, &logits.values(1, 1.0)), experts.upload(&mut gpu, &experts.values(2, 1.0)));
    let weights = DeviceMat::new(gpu.allocate::<f32>(90), 9, 10);
    let mixed = DeviceMat::new(gpu.allocate::<f32>(9 * 64), 9, 64);
    (gpu, gate::gate_combine(2, logits, experts, weights, mixed))
}

/// Their gradients.
fn gate_gradients() -> (Gpu, Launch) {
    let mut gpu = Gpu::new();
    let upload = |gpu: &mut Gpu, cols: usize| {
        let window = Window::whole(9, cols);
        window.upload(gpu, &window.values(cols as u64, 1.0))
    };
    let (weights, experts, d_mixed) = (upload(&mut gpu, 10), upload(&mut gpu, 5 * 32), upload(&mut gpu, 64));
    let (d_logits, d_experts) = (upload(&mut gpu, 10), upload(&mut gpu, 5 * 32));
    let launch = gate::gate_combine_dx(2, weights, experts, d_mixed, false, d_logits, false, None, d_experts);
    (gpu, launch)
}

/// `launch` of PTX in which `plant` has changed each line of the kernel that it gives another text, one at a time.
fn planted(launch: &Launch, plant: impl Fn(&str) -> Option<String>) -> Vec<Launch> {
    let lines: Vec<&str> = launch.family.ptx.lines().collect();
    let entry = format!(".entry {}(", launch.kernel);
    let start = lines.iter().position(|line| line.contains(&entry)).expect("the kernel");
    let end = start + lines[start..].iter().position(|&line| line == "}").expect("the end of the kernel");
    let changed = (start..end).filter_map(|at| Some((at, plant(lines[at])?)));
    let with = |(at, text): (usize, String)| {
        let mut lines = lines.clone();
        lines[at] = &text;
        let ptx = lines.join("\n").leak();
        let family = Box::leak(Box::new(Family { ptx, ..*launch.family }));
        Launch { family, on_hopper: None, ..launch.clone() }
    };
    changed.map(with).collect()
}

/// Asserts that `count` planted faults are reported, in words that have one of `reports`: all but those in parts of the
/// kernel that the launch does not run, for other elements than its matrices have.
fn assert_reported(
    of: impl Fn() -> (Gpu, Launch),
    reports: &[&str],
    count: usize,
    plant: impl Fn(&str) -> Option<String>,
) {
    let (mut gpu, launch) = of();
    gpu.launch(&launch);
    let messages = planted(&launch, plant).into_iter().filter_map(|fault| of().0.try_launch(&fault).err());
    let messages: Vec<String> = messages.collect();
    assert_eq!(messages.len(), count, "{}: {messages:#?}", launch.kernel);
    for message in messages {
        assert!(reports.iter().any(|report| message.contains(report)), "{message}");
    }
}

/// Without the instruction `name`.
fn without(name: &str) -> impl Fn(&str) -> Option<String> {
    move |line| line.trim().starts_with(name).then(String::new)
}

#[test]
fn missing_barriers_are_races() {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        assert_reported(|| linear(precision), &["race: "], 3, without("bar.sync"));
    }
    assert_reported(gates, &["race: "], 2, without("bar.warp.sync"));
    assert_reported(gate_gradients, &["race: "], 3, without("bar.warp.sync"));
}

#[test]
fn waits_that_leave_a_copy_pending_are_seen() {
    for (precision, pending) in [(Precision::F32, 2), (Precision::Tf32, 1), (Precision::Bf16, 1)] {
        let weaker = |line: &str| {
            let wait = format!("cp.async.wait_group {pending};");
            line.contains(&wait)
                .then(|| line.replace(&wait, &format!("cp.async.wait_group {};", pending + 1)))
        };
        assert_reported(|| linear(precision), &["was not waited for"], 1, weaker);
    }
}

#[test]
fn copies_of_what_is_not_there_are_out_of_bounds() {
    for (precision, bytes, count) in
        [(Precision::F32, 4, 8), (Precision::Tf32, 16, 2), (Precision::Bf16, 16, 2)]
    {
        let all = |line: &str| {
            let size = format!("], {bytes}, ");
            let at = line.contains("cp.async.c").then(|| line.find(&size))??;
            Some(format!("{}], {bytes};", &line[..at]))
        };
        // Some of it is in another matrix, which has no values yet.
        assert_reported(|| linear(precision), &["out of bounds", "nothing was written to"], count, all);
    }
}

#[test]
fn shuffles_that_lanes_skip_are_seen() {
    let skip = "{ .reg .pred %upper; .reg .u32 %lane; mov.u32 %lane, %laneid; setp.ge.u32 %upper, %lane, 16;";
    let lower_half = |line: &str| {
        let is_shuffle = line.trim().starts_with("shfl.sync");
        is_shuffle.then(|| format!("{skip} @%upper bra $PLANTED; {line} }} $PLANTED:"))
    };
    assert_reported(gates, &["nothing was written to"], 2, lower_half);
    assert_reported(gate_gradients, &["nothing was written to"], 10, lower_half);
}

#[test]
fn products_of_hopper_need_their_fences_and_waits() {
    assert_reported(linear_on_hopper, &["race: ", "no thread has written to"], 2, without("bar.sync"));
    assert_reported(linear_on_hopper, &["fence.proxy.async"], 1, without("fence.proxy.async"));
    assert_reported(linear_on_hopper, &["wgmma.fence"], 1, without("wgmma.fence"));
    let running = ["accumulator of a product that was not waited for", "read what thread"];
    assert_reported(linear_on_hopper, &running, 1, without("wgmma.commit_group"));
    assert_reported(linear_on_hopper, &running, 2, without("wgmma.wait_group"));
}

#[test]
fn wide_tiles_need_their_barriers_fences_and_waits() {
    let fault = |reports: &[&str], count, name: &str| {
        assert_reported(linear_in_wide_tiles, reports, count, without(name));
    };
    // The third is there so that no barrier is left with some who have come; below, the fourth for tiles without pieces.
    fault(&["arrives again", "no thread has written to"], 2, "bar.sync");
    fault(&["deadlock"], 4, "bar.arrive");
    fault(&["race: "], 3, "bar.warp.sync");
    fault(&["fence.proxy.async"], 1, "fence.proxy.async");
    fault(&["wgmma.fence"], 1, "wgmma.fence");
    fault(&["accumulator of a product that was not waited for", "read what thread"], 1, "wgmma.commit_group");
    fault(&["accumulator of a product that was not waited for", "read what thread"], 2, "wgmma.wait_group");
    fault(&["was not waited for", "no thread has written to", "asynchronous copy"], 1, "cp.async.wait_group");
}

#[test]
fn both_gradients_need_their_barriers_fences_and_waits() {
    let fault = |reports: &[&str], count, name: &str| {
        assert_reported(gradients_on_hopper, reports, count, without(name));
    };
    // The seventh is there so that no barrier is left with some who have come.
    fault(&["arrives again", "race: "], 6, "bar.sync");
    fault(&["deadlock"], 3, "bar.arrive");
    fault(&["race: "], 3, "bar.warp.sync");
    fault(&["fence.proxy.async"], 2, "fence.proxy.async");
    fault(&["wgmma.fence"], 2, "wgmma.fence");
    fault(&["accumulator of a product that was not waited for"], 3, "wgmma.commit_group");
    fault(&["accumulator of a product that was not waited for"], 2, "wgmma.wait_group");
    fault(&["asynchronous copy"], 2, "cp.async.wait_group");
}
