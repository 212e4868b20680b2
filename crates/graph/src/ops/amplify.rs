//! `y = x ⊙ a(r)`: every unit times an amplitude, which is γ·sigmoid(r), e^r or 1 + r.
//!
//! x, y `[batch, n]`. r is `[batch, n]`, what a gate says of each unit; over parts `[batch, parts]`, and one amplitude
//! multiplies all units of a part, as those of a field; by scenario `[scenarios, n]`, a matrix that exists once, of which a
//! row takes that of its scenario. Backward: `dx = dy ⊙ a(r)`, `dr = dy ⊙ x ⊙ a'(r)`, summed over a part or over the rows
//! of a scenario.

use crate::check::Case;
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Reads, Rowset, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_kernels::Mat;
use manygate_kernels::amplitude::{self, Amplitude, Arguments, Target};

/// Units times amplitudes, see the [module](self). Inputs: x, r.
#[derive(Clone, Debug)]
pub struct Amplify {
    amplitude: Amplitude,
    parts: Vec<usize>,
    scenarios: Option<usize>,
}

impl Amplify {
    /// An amplitude for each unit.
    pub fn new(amplitude: Amplitude) -> Amplify {
        Amplify { amplitude, parts: Vec::new(), scenarios: None }
    }

    /// With one amplitude for all units of a part; `parts` are their numbers of units, in order.
    pub fn over_parts(self, parts: Vec<usize>) -> Amplify {
        Amplify { parts, ..self }
    }

    /// With the amplitudes of the row's scenario.
    pub fn by_scenario(self, scenarios: usize) -> Amplify {
        Amplify { scenarios: Some(scenarios), ..self }
    }

    fn arguments<'a>(&'a self, at: &Rowset<'a>, values: Mat<'a>) -> Arguments<'a> {
        let rows = self.scenarios.map(|_| &at.batch.scenario[at.range()]);
        Arguments { values, rows, parts: &self.parts }
    }

    /// The amplitude that multiplies each unit.
    fn sources(&self, units: usize) -> Vec<usize> {
        match &self.parts[..] {
            [] => (0..units).collect(),
            parts => parts.iter().enumerate().flat_map(|(g, &n)| std::iter::repeat_n(g, n)).collect(),
        }
    }
}

impl Op for Amplify {
    fn name(&self) -> &'static str {
        "amplify"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if let Amplitude::Sigmoid(gamma) = self.amplitude
            && !(gamma.is_finite() && gamma > 0.0)
        {
            return Err(format!("amplitudes up to {gamma} are none: a number above 0 is needed"));
        }
        let [x, r] = inputs else { return Err(format!("two inputs are needed, not {inputs:?}")) };
        let divided = self.parts.is_empty() || self.parts.iter().sum::<usize>() == x.cols;
        let cols = if self.parts.is_empty() { x.cols } else { self.parts.len() };
        let wanted = self.scenarios.map_or(Shape::batch(cols), |s| Shape::once(s, cols));
        if x.space != Space::Batch || !divided || *r != wanted {
            return Err(format!("units {x} in parts of {:?} need {wanted}, not {r}", self.parts));
        }
        Ok(*x)
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn masks(&self, input: usize) -> bool {
        input == 0
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: self.scenarios, ..Reads::default() }
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::same(output, reached),
            _ if self.scenarios.is_some() => reached.fill(true),
            _ => {
                let sources = self.sources(output.len());
                reach::marked(output).for_each(|unit| reached[sources[unit]] = true);
            }
        }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, r, y) = (tile.input(0), tile.input(1), tile.take_output());
        amplitude::amplify(tile.at.isa, self.amplitude, x, self.arguments(&tile.at, r), y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, r, dy) = (tile.input(0), tile.input(1), tile.take_output_gradient());
        let (dx, dr) = (tile.take_gradient(0), tile.take_gradient(1));
        let mask = dx.as_ref().and_then(|dx| dx.mask);
        let (isa, arguments) = (tile.at.isa, self.arguments(&tile.at, r));
        let (dx, dr) = (dx.map(target), dr.map(target));
        amplitude::amplify_backward(isa, self.amplitude, x, arguments, dy.as_mat(), dx, mask, dr);
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (mut y, r) = (inputs[0].clone(), &inputs[1]);
        let sources = self.sources(y.cols);
        for (i, unit) in y.data.iter_mut().enumerate() {
            let row = i / inputs[0].cols;
            let row = self.scenarios.map_or(row, |_| batch.scenario[row] as usize);
            let r = r.at(row, sources[i % inputs[0].cols]);
            *unit *= match self.amplitude {
                Amplitude::Sigmoid(gamma) => f64::from(gamma) / (1.0 + (-r).exp()),
                Amplitude::Exp => r.exp(),
                Amplitude::OnePlus => 1.0 + r,
            };
        }
        y
    }
}

fn target(gradient: Gradient<'_>) -> Target<'_> {
    Target { to: gradient.to, accumulate: gradient.accumulate }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let units = |name: &str, amplitude, cols: usize| {
        Case::new(name, move |g, x| g.add("op", Amplify::new(amplitude), x)).rows(cols).rows(cols)
    };
    let over = |name: &str, parts: &[usize]| {
        let (op, number) = (Amplify::new(Amplitude::Sigmoid(2.0)).over_parts(parts.to_vec()), parts.len());
        Case::new(name, move |g, x| g.add("op", op.clone(), x)).rows(parts.iter().sum()).rows(number)
    };
    let by_scenario = |name: &str, amplitude, cols: usize| {
        let op = Amplify::new(amplitude).by_scenario(3);
        Case::new(name, move |g, x| g.add("op", op.clone(), x)).rows(cols).once(3, cols)
    };
    vec![
        units("amplify/one", Amplitude::Sigmoid(2.0), 1),
        units("amplify/sigmoid", Amplitude::Sigmoid(3.0), 19),
        units("amplify/exp", Amplitude::Exp, 17),
        units("amplify/one_plus", Amplitude::OnePlus, 5),
        over("amplify/fields", &[4, 4, 7, 1, 1]),
        by_scenario("amplify/scenario", Amplitude::Sigmoid(2.0), 18),
        by_scenario("amplify/scenario_exp", Amplitude::Exp, 3),
    ]
}
