//! Experts of all, of domains and of tasks as one state a task: `h_t = S_t + α_d D + α_t T_t`.
//!
//! ```text
//! D   = β_d f_s + (1 − β_d) / (domains − 1) Σ_{d≠s} f_d     s the row's scenario; D = f_s of a single one
//! T_t = β_t e_t + (1 − β_t) / (tasks − 1) Σ_{j≠t} e_j       T_t = e_t of a single one
//! ```
//!
//! S `[batch, tasks · n]`, f `[batch, domains · n]`, e `[batch, tasks · n]`, h `[batch, tasks · n]`; of four numbers
//! `[4, 1]`, the logistic functions are α_d, α_t, β_d, β_t. Z. Zhang et al., *M3oE: Multi-Domain Multi-Task
//! Mixture-of-Experts Recommendation Framework*, SIGIR 2024, equations 5 to 7.
//!
//! Backward, with a level's weights own and other, `d = Σ_t dh_t`: `dS = dh`, `df_s = α_d own d`, `df_d = α_d other d`,
//! `de_j = α_t (own dh_j + other (d − dh_j))`; the numbers need four dot products: `d · f_s`, `d · Σ f`, `Σ dh_t · e_t`
//! and `d · Σ e`.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::scenario as cuda;

/// Two levels of fusion, see the [module](self). Inputs: S, f, e, and the four numbers.
#[derive(Clone, Debug)]
pub struct LevelFusion {
    domains: usize,
    tasks: usize,
}

/// How a level of `count` experts is weighed.
#[derive(Clone, Copy, Debug)]
struct Level {
    alpha: f32,
    beta: f32,
    count: usize,
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl Level {
    /// Weights, α included, of the own expert and of each other.
    fn weights(&self) -> (f32, f32) {
        match self.count {
            1 => (self.alpha, 0.0),
            count => (self.alpha * self.beta, self.alpha * (1.0 - self.beta) / (count - 1) as f32),
        }
    }

    /// Gradients of the numbers behind α and β, from the gradient's products with the own experts and with all.
    fn slopes(&self, own: f64, all: f64) -> (f64, f64) {
        let (alpha, beta) = (f64::from(self.alpha), f64::from(self.beta));
        if self.count == 1 {
            return (own * alpha * (1.0 - alpha), 0.0);
        }
        let others = (all - own) / (self.count - 1) as f64;
        let mixed = beta * own + (1.0 - beta) * others;
        (mixed * alpha * (1.0 - alpha), alpha * (own - others) * beta * (1.0 - beta))
    }
}

/// Σ over the parts of `bank`, each as wide as `sum`.
fn sum_parts(bank: &[f32], sum: &mut [f32]) {
    sum.fill(0.0);
    for part in bank.chunks_exact(sum.len()) {
        sum.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    f64::from(a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())
}

impl LevelFusion {
    /// Of the experts of `domains` domains and `tasks` tasks.
    pub fn new(domains: usize, tasks: usize) -> LevelFusion {
        LevelFusion { domains, tasks }
    }

    fn levels(&self, numbers: &[f32]) -> [Level; 2] {
        let level =
            |i: usize, count| Level { alpha: logistic(numbers[i]), beta: logistic(numbers[2 + i]), count };
        [level(0, self.domains), level(1, self.tasks)]
    }
}

impl Op for LevelFusion {
    fn name(&self) -> &'static str {
        "level_fusion"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [shared, domains, tasks, numbers]
                if shared.space == Space::Batch
                    && self.domains * self.tasks > 0
                    && shared == tasks
                    && shared.cols.is_multiple_of(self.tasks)
                    && *domains == shared.with_cols(self.domains * (shared.cols / self.tasks))
                    && *numbers == Shape::once(4, 1) =>
            {
                Ok(*shared)
            }
            _ => Err(format!(
                "states of {} tasks, experts of {} domains and of tasks, and four numbers are needed, not {inputs:?}",
                self.tasks, self.domains
            )),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1110, output: false }
    }

    fn scratch(&self, _rows: usize, inputs: &[Shape]) -> usize {
        2 * inputs[0].cols / self.tasks
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: Some(self.domains), ..Reads::default() }
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[1].cols + 2 * inputs[2].cols
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::same(output, reached),
            1 | 2 => reach::at_same_place(output, reached, output.len() / self.tasks),
            _ => reached.copy_from_slice(&[true, true, self.domains > 1, self.tasks > 1]),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let scenario = &tile.at.batch.scenario[tile.at.range()];
        let [shared, domains, tasks] = [0, 1, 2].map(|i| tile.input(i));
        let [of_domain, of_task] = self.levels(tile.input(3).contiguous()).map(|level| level.weights());
        let (mut y, scratch) = (tile.take_output(), tile.take_scratch());
        let n = y.cols() / self.tasks;
        let (common, sum) = scratch.split_at_mut(n);
        let sum = &mut sum[..n];
        for (r, &s) in scenario.iter().enumerate() {
            sum_parts(domains.row(r), sum);
            let own = &domains.row(r)[s as usize * n..][..n];
            for ((to, &own), &all) in common.iter_mut().zip(own).zip(sum.iter()) {
                *to = of_domain.0 * own + of_domain.1 * (all - own);
            }
            sum_parts(tasks.row(r), sum);
            let parts = shared.row(r).chunks_exact(n).zip(tasks.row(r).chunks_exact(n));
            for (y, (shared, own)) in y.row_mut(r).chunks_exact_mut(n).zip(parts) {
                for c in 0..n {
                    y[c] = shared[c] + common[c] + of_task.0 * own[c] + of_task.1 * (sum[c] - own[c]);
                }
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let scenario = &tile.at.batch.scenario[tile.at.range()];
        let [domains, tasks] = [1, 2].map(|i| tile.input(i));
        let levels = self.levels(tile.input(3).contiguous());
        let [of_domain, of_task] = levels.map(|level| level.weights());
        let dy = tile.take_output_gradient();
        let n = dy.cols() / self.tasks;
        let [mut d_shared, mut d_domains, mut d_tasks, d_numbers] =
            [0, 1, 2, 3].map(|i| tile.take_gradient(i));
        let (d_all, sum) = tile.take_scratch().split_at_mut(n);
        let sum = &mut sum[..n];
        let mut products = [[0.0; 2]; 2];
        for (r, &s) in scenario.iter().enumerate() {
            sum_parts(dy.row(r), d_all);
            if d_numbers.is_some() {
                sum_parts(domains.row(r), sum);
                products[0][0] += dot(d_all, &domains.row(r)[s as usize * n..][..n]);
                products[0][1] += dot(d_all, sum);
                sum_parts(tasks.row(r), sum);
                products[1][0] += dot(dy.row(r), tasks.row(r));
                products[1][1] += dot(d_all, sum);
            }
            if let Some(to) = &mut d_shared {
                to.put(r, dy.row(r).iter().copied());
            }
            if let Some(to) = &mut d_domains {
                let weight = |d: usize| if d == s as usize { of_domain.0 } else { of_domain.1 };
                let d_all = &*d_all;
                to.put(r, (0..self.domains).flat_map(|d| d_all.iter().map(move |v| weight(d) * v)));
            }
            if let Some(to) = &mut d_tasks {
                let all = d_all.iter().cycle();
                let slopes =
                    dy.row(r).iter().zip(all).map(|(own, all)| of_task.0 * own + of_task.1 * (all - own));
                to.put(r, slopes);
            }
        }
        if let Some(mut to) = d_numbers {
            let [domain, task] = [0, 1].map(|i| levels[i].slopes(products[i][0], products[i][1]));
            for (i, slope) in [domain.0, task.0, domain.1, task.1].into_iter().enumerate() {
                to.put(i, std::iter::once(slope as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let [shared, domains, tasks, numbers] = [0, 1, 2, 3].map(|i| &inputs[i]);
        let [alpha_d, alpha_t, beta_d, beta_t] = [0, 1, 2, 3].map(|i| 1.0 / (1.0 + (-numbers.data[i]).exp()));
        let n = shared.cols / self.tasks;
        let level = |experts: &Matrix, r: usize, c: usize, own: usize, count: usize, beta: f64| {
            let others = (0..count).filter(|&e| e != own).map(|e| experts.at(r, e * n + c)).sum::<f64>();
            let own = experts.at(r, own * n + c);
            if count == 1 { own } else { beta * own + (1.0 - beta) / (count - 1) as f64 * others }
        };
        let mut y = shared.clone();
        for (r, at) in (0..y.rows).flat_map(|r| (0..self.tasks * n).map(move |at| (r, at))) {
            let (t, c) = (at / n, at % n);
            let domain = level(domains, r, c, batch.scenario[r] as usize, self.domains, beta_d);
            let task = level(tasks, r, c, t, self.tasks, beta_t);
            y.set(r, at, shared.at(r, at) + alpha_d * domain + alpha_t * task);
        }
        y
    }
}

impl DeviceOp for LevelFusion {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b111, output: true }
    }

    fn scratch(&self, _capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        cuda::level_fusion_scratch()
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let [shared, domains, tasks] = [0, 1, 2].map(|i| step.input(i));
        step.launch(cuda::level_fusion(self.fusion(step), shared, domains, tasks, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (fusion, dy) = (self.fusion(step), step.output_gradient());
        let [d_shared, d_domains, d_tasks] =
            [0, 1, 2].map(|i| step.take_gradient(i).map(|to| (to.to, to.accumulate)));
        step.launch_all(Vec::from_iter(cuda::level_fusion_backward(
            fusion, dy, d_shared, d_domains, d_tasks,
        )));
        if let Some(to) = step.take_gradient(3) {
            let (domains, tasks, scratch) = (step.input(1), step.input(2), step.scratch());
            let (add, to) = (to.accumulate, to.to.address);
            step.launch_all(cuda::level_fusion_dnumbers(fusion, domains, tasks, dy, to, add, scratch).into());
        }
    }
}

impl LevelFusion {
    fn fusion(&self, step: &DeviceStep<'_>) -> cuda::Fusion {
        let (scenario, numbers) = (step.batch().scenario, step.input(3).address);
        cuda::Fusion { scenario, numbers, domains: self.domains as u32, tasks: self.tasks as u32 }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, domains: usize, tasks: usize, n: usize| {
        let case = Case::new(name, move |g, x| g.add("op", LevelFusion::new(domains, tasks), x));
        case.rows(tasks * n).rows(domains * n).rows(tasks * n).once(4, 1)
    };
    vec![
        case("level_fusion/one_and_one", 1, 1, 3),
        case("level_fusion/one_task", 3, 1, 17),
        case("level_fusion/one_domain", 1, 2, 5),
        case("level_fusion/several", 4, 3, 9),
    ]
}
