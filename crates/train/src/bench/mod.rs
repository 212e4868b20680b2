//! Speed on the yardstick's workload: training steps beside the floor that this machine sets, and single predictions.

mod inference;
mod machine;
mod training;
mod yardstick;

pub use inference::{InferenceOptions, InferenceSpeed, Latency, bench_inference};
pub use machine::{Machine, measure_machine};
pub use training::{BenchOptions, Floor, TrainingSpeed, bench_training};

/// The value below which a share of the sorted `times` lies.
fn quantile(times: &[f64], share: f64) -> f64 {
    times[((times.len() - 1) as f64 * share).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let times = [1.0, 2.0, 3.0, 4.0, 50.0];
        assert_eq!((quantile(&times, 0.1), quantile(&times, 0.5), quantile(&times, 0.9)), (1.0, 3.0, 50.0));
        assert_eq!(quantile(&[7.0], 0.9), 7.0);
    }
}
