//! The functions that targets and labels come from.

use manygate_core::{Result, Stream};

use super::options::{LabelRule, SynthOptions, TOPICS};

/// Sines of a target.
const SINES: usize = 10;
/// Standard deviation of the noise of a target: a variance of .01.
const NOISE: f64 = 0.1;
/// Standard deviation of what a scenario adds to a target.
const OFFSET: f64 = 1.0;
/// Standard deviation of what a scenario adds to an input.
const SHIFT: f64 = 0.3;
/// Standard deviation of what a user, and an item, adds to a target.
const ID: f64 = 0.7;
/// What a history adds to a target when all its items have the topic of the row's item.
const TOPIC: f64 = 3.0;
/// Share of a history that is drawn from its favourite topic.
const FAVOURITE: f64 = 0.7;
/// Scale, in targets, of the logistic function that labels are sampled by.
const SCALE: f64 = 0.5;
/// Rows that thresholds are found on; they are not among those written.
const CALIBRATION: u64 = 16_384;

/// A row before it is written. Scenarios, users and items are numbered from 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) inputs: Vec<f64>,
    pub(super) scenario: usize,
    pub(super) user: u32,
    pub(super) item: u32,
    pub(super) history: Vec<u32>,
    pub(super) targets: Vec<f64>,
    pub(super) labels: Vec<bool>,
}

/// Everything that rows have in common. A row is a function of this and its number.
pub(super) struct World<'a> {
    options: &'a SynthOptions,
    /// Weights `[task][input]`.
    weights: Vec<Vec<f64>>,
    /// `a` and `b` of the sines.
    sines: Vec<(f64, f64)>,
    /// Sums of the shares up to each scenario.
    scenarios: Vec<f64>,
    /// The target at which a label is as likely 1 as 0, or becomes 1.
    thresholds: Vec<f64>,
}

/// Streams of random numbers, by what they are for.
#[derive(Clone, Copy)]
enum Purpose {
    Directions = 1,
    Sines,
    Inputs,
    Scenario,
    ScenarioOffset,
    ScenarioShift,
    Ids,
    UserEffect,
    ItemEffect,
    History,
    Noise,
    Label,
}

/// Which rows: those that are written, or those that thresholds are found on.
#[derive(Clone, Copy)]
pub(super) enum Rows {
    Written,
    Calibration,
}

impl<'a> World<'a> {
    pub(super) fn new(options: &'a SynthOptions) -> Result<World<'a>> {
        let rates = options.check()?;
        let total: f64 = options.scenarios.iter().sum();
        let shares = options.scenarios.iter().scan(0.0, |sum, share| {
            *sum += share / total;
            Some(*sum)
        });
        let mut world = World {
            scenarios: shares.collect(),
            weights: Vec::new(),
            sines: Vec::new(),
            thresholds: Vec::new(),
            options,
        };
        let sines = world.stream(Purpose::Sines, Rows::Written);
        world.sines = (0..SINES as u64).map(|i| (normal(&sines, i, 0), normal(&sines, i, 1))).collect();
        world.weights = world.draw_weights();
        world.thresholds = world.find_thresholds(&rates);
        Ok(world)
    }

    fn stream(&self, purpose: Purpose, rows: Rows) -> Stream {
        Stream::new(self.options.seed, rows as u64, purpose as u64)
    }

    /// `w1 = u1`, `wk = p u1 + sqrt(1 - p²) uk` with orthonormal `u`: the method of Gram and Schmidt, on random vectors.
    fn draw_weights(&self) -> Vec<Vec<f64>> {
        let stream = self.stream(Purpose::Directions, Rows::Written);
        let mut directions: Vec<Vec<f64>> = Vec::new();
        for task in 0..self.options.tasks as u64 {
            let mut direction: Vec<f64> =
                (0..self.options.inputs as u64).map(|input| normal(&stream, task, input)).collect();
            // Twice: the first pass leaves rounding errors behind where few inputs are left.
            for other in directions.iter().chain(&directions) {
                let along = dot(&direction, other);
                direction.iter_mut().zip(other).for_each(|(d, o)| *d -= along * o);
            }
            let length = dot(&direction, &direction).sqrt();
            direction.iter_mut().for_each(|d| *d /= length);
            directions.push(direction);
        }
        let first = directions[0].clone();
        let mix = |(task, direction): (usize, Vec<f64>)| -> Vec<f64> {
            direction.iter().zip(&first).map(|(own, first)| self.mix(task, *first, *own)).collect()
        };
        directions.into_iter().enumerate().map(mix).collect()
    }

    /// `own` for the first task, else as much of `first` as the correlation says.
    fn mix(&self, task: usize, first: f64, own: f64) -> f64 {
        let p = self.options.correlation;
        if task == 0 { own } else { p * first + (1.0 - p * p).sqrt() * own }
    }

    /// Draws row `number`.
    pub(super) fn draw(&self, rows: Rows, number: u64, row: &mut Row) {
        let options = self.options;
        let uniform = |purpose, column| uniform(&self.stream(purpose, rows), number, column);
        let scenario = uniform(Purpose::Scenario, 0);
        row.scenario = self
            .scenarios
            .partition_point(|&sum| sum <= scenario)
            .min(self.scenarios.len().saturating_sub(1));
        let (inputs, shift) =
            (self.stream(Purpose::Inputs, rows), self.stream(Purpose::ScenarioShift, Rows::Written));
        row.inputs.clear();
        for input in 0..options.inputs as u64 {
            let mut x = normal(&inputs, number, input);
            if !self.scenarios.is_empty() {
                x += SHIFT * normal(&shift, row.scenario as u64, input);
            }
            row.inputs.push(x);
        }
        if options.ids > 0 {
            row.user = popular(uniform(Purpose::Ids, 0), options.ids);
            row.item = popular(uniform(Purpose::Ids, 1), options.ids);
        }
        self.draw_history(rows, number, row);
        row.targets.clear();
        let noise = self.stream(Purpose::Noise, rows);
        for task in 0..options.tasks {
            row.targets.push(self.target(task, row) + NOISE * normal(&noise, number, task as u64));
        }
        row.labels.clear();
        for (task, &threshold) in self.thresholds.iter().enumerate() {
            let above = row.targets[task] - threshold;
            let positive = match options.labels {
                LabelRule::Threshold => above > 0.0,
                LabelRule::Sample => uniform(Purpose::Label, task as u64) < logistic(above),
            };
            let possible = !options.cascade || row.labels.last().is_none_or(|&before| before);
            row.labels.push(possible && positive);
        }
    }

    /// Up to as many items as asked for, most of one topic.
    fn draw_history(&self, rows: Rows, number: u64, row: &mut Row) {
        row.history.clear();
        if self.options.sequence == 0 {
            return;
        }
        let (stream, ids) = (self.stream(Purpose::History, rows), self.options.ids);
        let favourite = stream.below(number, 0, u64::from(TOPICS)) as u32;
        let length = stream.below(number, 1, self.options.sequence as u64 + 1);
        for place in 0..length {
            let mut item = popular(uniform(&stream, number, 2 + 2 * place), ids);
            if uniform(&stream, number, 3 + 2 * place) < FAVOURITE {
                // The neighbour that has the topic; the last ids may lack one.
                let neighbour = item - item % TOPICS + favourite;
                item = if neighbour < ids { neighbour } else { neighbour - TOPICS };
            }
            row.history.push(item);
        }
    }

    /// `w'x + Σ sin(a w'x + b)`, and what scenario, user, item and history add.
    ///
    /// J. Ma et al., *Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts*, KDD 2018,
    /// section 3.2, with c = 1, and m = 10 sines whose a and b are standard normal.
    fn target(&self, task: usize, row: &Row) -> f64 {
        let along = dot(&self.weights[task], &row.inputs);
        let mut target = along + self.sines.iter().map(|(a, b)| (a * along + b).sin()).sum::<f64>();
        let effect = |purpose, number: u64| {
            let stream = self.stream(purpose, Rows::Written);
            self.mix(task, normal(&stream, number, 0), normal(&stream, number, task as u64))
        };
        if !self.scenarios.is_empty() {
            target += OFFSET * effect(Purpose::ScenarioOffset, row.scenario as u64);
        }
        if self.options.ids > 0 {
            target += ID * effect(Purpose::UserEffect, row.user.into());
            target += ID * effect(Purpose::ItemEffect, row.item.into());
        }
        if !row.history.is_empty() {
            let same = row.history.iter().filter(|item| *item % TOPICS == row.item % TOPICS).count();
            target += TOPIC * same as f64 / row.history.len() as f64;
        }
        target
    }

    /// Thresholds that give the rates, one task after the other: in a cascade over the rows that the tasks before leave.
    fn find_thresholds(&self, rates: &[f64]) -> Vec<f64> {
        let mut row = Row::default();
        let rows = (0..CALIBRATION).map(|number| {
            self.draw(Rows::Calibration, number, &mut row);
            row.targets.clone()
        });
        let targets: Vec<Vec<f64>> = rows.collect();
        // Probability that the tasks before are all positive.
        let mut possible = vec![1.0; targets.len()];
        let mut thresholds = Vec::new();
        for (task, &rate) in rates.iter().enumerate() {
            let probability = |target: f64, threshold: f64| match self.options.labels {
                LabelRule::Threshold => f64::from(u8::from(target > threshold)),
                LabelRule::Sample => logistic(target - threshold),
            };
            let rate_at = |threshold: f64| -> f64 {
                let each = targets.iter().zip(&possible).map(|(t, p)| p * probability(t[task], threshold));
                each.sum::<f64>() / CALIBRATION as f64
            };
            // The rate falls as the threshold rises; both bounds are far outside of any target.
            let (mut low, mut high) = (-1e3, 1e3);
            for _ in 0..60 {
                let middle = 0.5 * (low + high);
                if rate_at(middle) > rate { low = middle } else { high = middle }
            }
            if self.options.cascade {
                for (t, p) in targets.iter().zip(&mut possible) {
                    *p *= probability(t[task], high);
                }
            }
            thresholds.push(high);
        }
        thresholds
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x / SCALE).exp())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn normal(stream: &Stream, row: u64, column: u64) -> f64 {
    stream.normal(row, column).into()
}

/// A number in [0, 1) with 53 random bits.
fn uniform(stream: &Stream, row: u64, column: u64) -> f64 {
    let [a, b, ..] = stream.block(row, column);
    let bits = u64::from(a) << 21 | u64::from(b) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// One of `ids` numbers, the `k`-th with a probability near `1 / k`: Zipf's law with exponent 1, by inversion of its
/// continuous form.
fn popular(at: f64, ids: u32) -> u32 {
    let rank = (at * (f64::from(ids) + 1.0).ln()).exp() as u32;
    rank.clamp(1, ids) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> SynthOptions {
        SynthOptions {
            rows: 1,
            seed: 7,
            inputs: 20,
            tasks: 3,
            correlation: 0.4,
            rates: vec![0.5, 0.2, 0.05],
            labels: LabelRule::Sample,
            targets: false,
            cascade: false,
            scenarios: vec![],
            ids: 0,
            sequence: 0,
        }
    }

    #[test]
    fn weights_have_unit_length_and_the_correlation() {
        let options = SynthOptions { inputs: 3, ..options() };
        let world = World::new(&options).unwrap();
        let w = &world.weights;
        for (a, b, want) in [(0, 0, 1.0), (1, 1, 1.0), (0, 1, 0.4), (0, 2, 0.4), (1, 2, 0.16)] {
            assert!((dot(&w[a], &w[b]) - want).abs() < 1e-12, "{a}, {b}");
        }
    }

    #[test]
    fn targets_follow_the_formula() {
        let options = options();
        let world = World::new(&options).unwrap();
        let mut row = Row::default();
        world.draw(Rows::Written, 3, &mut row);
        for (task, target) in row.targets.iter().enumerate() {
            let along: f64 = world.weights[task].iter().zip(&row.inputs).map(|(w, x)| w * x).sum();
            let sines: f64 = world.sines.iter().map(|(a, b)| (a * along + b).sin()).sum();
            assert!((target - along - sines).abs() < 6.0 * NOISE);
        }
    }

    fn rates(options: &SynthOptions) -> Vec<f64> {
        let world = World::new(options).unwrap();
        let (mut row, mut positives) = (Row::default(), vec![0.0; options.tasks]);
        let rows = 20_000;
        for number in 0..rows {
            world.draw(Rows::Written, number, &mut row);
            positives
                .iter_mut()
                .zip(&row.labels)
                .for_each(|(sum, &label)| *sum += f64::from(u8::from(label)));
            let rising = row.labels.windows(2).any(|pair| pair[1] && !pair[0]);
            assert!(!options.cascade || !rising);
        }
        positives.iter().map(|sum| sum / rows as f64).collect()
    }

    #[test]
    fn rates_are_those_asked_for() {
        for labels in [LabelRule::Sample, LabelRule::Threshold] {
            for cascade in [false, true] {
                let scenarios = vec![0.6, 0.4];
                let options = SynthOptions { labels, cascade, scenarios, ids: 50, sequence: 5, ..options() };
                for (found, want) in rates(&options).into_iter().zip(&options.rates) {
                    assert!((found - want).abs() < 0.015, "{labels:?} {cascade}: {found} for {want}");
                }
            }
        }
    }

    #[test]
    fn first_ids_are_the_most_frequent() {
        assert_eq!((popular(0.0, 1000), popular(0.999_999_999, 1000)), (0, 999));
        let mut counts = [0; 1000];
        (0..100_000).for_each(|i| counts[popular(f64::from(i) / 1e5, 1000) as usize] += 1);
        assert!(counts[0] > 7 * counts[9] && counts[9] > 9 * counts[99] && counts[999] > 0);
        assert_eq!(popular(0.7, 1), 0);
    }
}
