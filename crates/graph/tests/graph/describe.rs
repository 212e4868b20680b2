//! The description of a plan.

use crate::support::{Setup, batch_norm, linear, segments, task, trunk};
use manygate_graph::ops::Segment;
use manygate_graph::plan::describe::Memory;
use manygate_graph::{Mode, PlanOptions};
use manygate_kernels::activation::Activation::{Identity, Relu};

fn model(mode: Mode) -> Setup {
    Setup::of(mode, 8, PlanOptions::default(), |g| {
        let x = trunk(g)?;
        let relu = Segment { out: 64, bias: true, activation: Relu };
        let bottom =
            segments(g, "a_network_with_a_name_that_is_longer_than_its_column", x, vec![relu, relu])?;
        let z = linear(g, "second", bottom, 32, Identity)?;
        let h = batch_norm(g, "norm", z, Relu)?;
        let logit = linear(g, "click", h, 1, Identity)?;
        g.output("click", logit);
        task(g, "click", 0, logit)
    })
}

#[test]
fn it_fits_a_terminal_and_names_everything() {
    for mode in [Mode::Training, Mode::Evaluation] {
        let description = model(mode).plan.describe();
        let text = description.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        let parts = ["lookup", "trunk", "normalise", "second", "packed weights", "lanes: 1 for 1 rows", "…"];
        for part in parts {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let training = mode == Mode::Training;
        assert_eq!(text.contains("gradient of trunk"), training);
        assert_eq!(text.contains("join norm.moments"), training);
        assert_eq!(text.contains("gradient sums"), training);
        assert_eq!(description.phases.len(), if training { 3 } else { 1 });
    }
}

#[test]
fn it_counts_bytes_and_operations() {
    let description = model(Mode::Training).plan.describe();
    let products = 9 * 128 + 128 * 32 + 32;
    assert_eq!(description.flops_a_row, 6 * products);
    assert_eq!(description.parameters, products + 128 + 32 + 1 + 2 * 32);
    let buffer = |name: &str| description.buffers.iter().find(|b| b.name == name).map(|b| (b.bytes, b.each));
    // Padded to a cache line.
    assert_eq!(buffer("gradient of trunk"), Some((9 * 4, "row")));
    assert_eq!(buffer("second"), Some((32 * 4, "row")));
    assert_eq!(buffer("norm"), None);
    let step = |node: &str, backward: bool| {
        let mut steps = description.phases.iter().flat_map(|p| &p.steps);
        steps.find(|s| s.node == node && s.backward == backward).unwrap()
    };
    let memory = |slots: &[manygate_graph::plan::describe::SlotDescription]| {
        slots.iter().map(|s| (s.memory, s.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(memory(&step("trunk", false).reads), [(Memory::Table, 5 * 4)]);
    // Panels of 16 columns: W' [128, 32] forward, W [32, 128] backward.
    let packed = (Memory::Packed, 128 * 32 * 4);
    assert_eq!(memory(&step("second", false).reads), [(Memory::Kept, 512), packed, (Memory::Parameter, 128)]);
    assert_eq!(memory(&step("second", true).reads), [(Memory::Kept, 512), packed, (Memory::Kept, 128)]);
    assert_eq!(memory(&step("second", false).writes), [(Memory::Kept, 128)]);
    assert_eq!(memory(&step("norm", false).reads)[1], (Memory::Join, 256));
    assert_eq!(memory(&step("click", true).writes)[1], (Memory::LaneSum, 128));
}
