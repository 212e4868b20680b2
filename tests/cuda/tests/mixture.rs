//! Mixtures of experts of cross layers on the device, against plain loops.

use manygate_cuda::{DeviceMat, Launch, mixture as cuda};
use manygate_cuda_tests::{Gpu, Window};
use proptest::prelude::*;

/// Groups of columns.
#[derive(Clone, Debug)]
struct Groups {
    count: usize,
    width: usize,
    rows: Window,
    gated: bool,
    accumulate: bool,
    seed: u64,
}

impl Groups {
    fn any() -> impl Strategy<Value = Groups> {
        let width = prop_oneof![4 => 1usize..10, 1 => 30usize..36];
        (Window::any(), 1usize..5, width, any::<[bool; 2]>(), any::<u64>()).prop_map(
            |(rows, count, width, [gated, accumulate], seed)| Groups {
                count,
                width,
                rows,
                gated,
                accumulate,
                seed,
            },
        )
    }

    fn window(&self, cols: usize) -> Window {
        Window { cols, ..self.rows }
    }

    /// That a launch from `inputs` to `to` adds what `terms` does of rows to what is there or not.
    fn check(
        &self,
        inputs: &[Window],
        to: Window,
        accumulate: bool,
        launch: impl Fn(&[DeviceMat], DeviceMat) -> Launch,
        terms: impl Fn(&[&[f32]], &mut [f32]),
    ) -> Result<(), TestCaseError> {
        let mut gpu = Gpu::with_order(self.seed);
        let all: Vec<Vec<f32>> =
            inputs.iter().enumerate().map(|(i, window)| window.values(self.seed ^ i as u64, 2.0)).collect();
        let before = to.values(self.seed ^ 9, 1.0);
        let mut wanted = to.live_values(&before);
        if !accumulate {
            wanted.fill(0.0);
        }
        let live: Vec<Vec<f32>> =
            inputs.iter().zip(&all).map(|(window, all)| window.live_values(all)).collect();
        for (r, to) in wanted.chunks_exact_mut(to.cols).enumerate() {
            let rows: Vec<&[f32]> =
                live.iter().zip(inputs).map(|(live, of)| &live[r * of.cols..][..of.cols]).collect();
            terms(&rows, to);
        }
        let from: Vec<DeviceMat> =
            inputs.iter().zip(&all).map(|(window, all)| window.upload(&mut gpu, all)).collect();
        let at = to.upload(&mut gpu, &before);
        gpu.launch(&launch(&from, at));
        let scale: Vec<f32> = wanted.iter().map(|v| 16.0 + v.abs()).collect();
        prop_assert_eq!(to.difference(&before, &to.download(&mut gpu, at), &wanted, &scale, 2e-6), None);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn gated_groups(groups in Groups::any()) {
        let Groups { count, width, gated, accumulate, .. } = groups;
        let cols = count * width;
        let (of_z, of_g, of_y) = (groups.window(cols), groups.window(count), groups.window(cols + 1));
        let gate = |g: &[f32], c: usize| if gated { g[c / width] } else { 1.0 };
        let launch = |x: &[DeviceMat], y| cuda::gate_groups(count as u32, x[0], gated.then_some(x[1]), y);
        groups.check(&[of_z, of_g], of_y, false, launch, |x, y| {
            (0..cols).for_each(|c| y[c] = gate(x[1], c) * x[0][c]);
            y[cols] = if gated { x[1].iter().sum() } else { count as f32 };
        })?;
        let launch = |x: &[DeviceMat], dz| {
            cuda::gate_groups_dz(count as u32, gated.then_some(x[1]), x[0], accumulate, dz)
        };
        groups.check(&[of_y, of_g], of_z, accumulate, launch, |x, dz| {
            (0..cols).for_each(|c| dz[c] += gate(x[1], c) * x[0][c]);
        })?;
        let launch = |x: &[DeviceMat], dg| cuda::gate_groups_dg(x[0], x[1], accumulate, dg);
        groups.check(&[of_z, of_y], of_g, accumulate, launch, |x, dg| {
            (0..cols).for_each(|c| dg[c / width] += x[0][c] * x[1][c]);
            dg.iter_mut().for_each(|dg| *dg += x[1][cols]);
        })?;
    }

    #[test]
    fn hard_tangents(groups in Groups::any()) {
        let x = groups.window(groups.width);
        groups.check(&[x], x, false, |x, y| cuda::hard_tanh(x[0], y), |x, y| {
            y.iter_mut().zip(x[0]).for_each(|(y, x)| *y = x.clamp(-1.0, 1.0));
        })?;
        let accumulate = groups.accumulate;
        let launch = |x: &[DeviceMat], dx| cuda::hard_tanh_dx(x[0], x[1], accumulate, dx);
        groups.check(&[x, x], x, accumulate, launch, |x, dx| {
            let inside = dx.iter_mut().zip(x[0].iter().zip(x[1])).filter(|(_, (y, _))| y.abs() < 1.0);
            inside.for_each(|(dx, (_, dy))| *dx += dy);
        })?;
    }
}
