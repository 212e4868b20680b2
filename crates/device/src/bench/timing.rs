//! How long work on a device takes, by its own clock.
//!
//! What is measured is recorded as a graph, several times over where it is short, and the graph is replayed: the time of
//! one run holds the gaps between its launches that a training step has, and not what the host needs to launch them.

use super::Size;
use super::workbench::Workbench;
use manygate_cuda::device::{DeviceError, Event, Recorded, Stream};
use std::rc::Rc;
use std::time::Duration;

/// Time that a graph takes at the least, if it is not longer than [`MOST_RUNS`] runs.
const GRAPH: f64 = 1e-3;
/// Most runs in a graph.
const MOST_RUNS: f64 = 200.0;
/// Time of a measurement.
const MEASUREMENT: f64 = 15e-3;
/// Measurements, of which the median counts.
const MEASUREMENTS: usize = 7;

/// Work that was recorded, to be replayed.
pub(super) struct Replays {
    recorded: Recorded,
    /// How often the work is in the graph.
    runs: u32,
    /// Has the memory that the work is on.
    bench: Rc<Workbench>,
    begin: Event,
    end: Event,
}

impl Replays {
    /// Of `work`, which keeps to the memory of `bench` and whose kernels are loaded. May run it once.
    pub(super) fn new(
        bench: &Rc<Workbench>,
        size: Size,
        work: &dyn Fn(&Stream) -> Result<(), DeviceError>,
    ) -> Result<Replays, DeviceError> {
        let once = Replays::of_runs(bench, work, 1)?;
        if size == Size::Small {
            return Ok(once);
        }
        let runs = (GRAPH / once.seconds(1)?).ceil().clamp(1.0, MOST_RUNS) as u32;
        if runs == 1 { Ok(once) } else { Replays::of_runs(bench, work, runs) }
    }

    fn of_runs(
        bench: &Rc<Workbench>,
        work: &dyn Fn(&Stream) -> Result<(), DeviceError>,
        runs: u32,
    ) -> Result<Replays, DeviceError> {
        let recorded = bench.stream.record(|stream| (0..runs).try_for_each(|_| work(stream)))?;
        let (begin, end) = (bench.device.event()?, bench.device.event()?);
        Ok(Replays { recorded, runs, bench: bench.clone(), begin, end })
    }

    /// Seconds of a run, the mean of so many replays.
    pub(super) fn seconds(&self, replays: u32) -> Result<f64, DeviceError> {
        self.begin.record(&self.bench.stream)?;
        for _ in 0..replays {
            // SAFETY: what was recorded keeps to the memory of the workbench, which lives as long as this; all work there
            // is on this one stream.
            unsafe { self.recorded.launch() }?;
        }
        self.end.record(&self.bench.stream)?;
        // A clock that has not moved would make rates infinite.
        let took = self.end.since(&self.begin)?.max(Duration::from_nanos(1));
        Ok(took.as_secs_f64() / f64::from(replays * self.runs))
    }

    /// Seconds of a run: the median of several measurements, each long enough, after one that does not count. Of small
    /// cases just one, which means nothing.
    pub(super) fn median_seconds(&self, size: Size) -> Result<f64, DeviceError> {
        if size == Size::Small {
            return self.seconds(1);
        }
        let replays = |seconds: f64| (MEASUREMENT / (seconds * f64::from(self.runs))).ceil().max(1.0) as u32;
        let warm = self.seconds(replays(self.seconds(1)?))?;
        let measure = |_| self.seconds(replays(warm));
        let mut measured = (0..MEASUREMENTS).map(measure).collect::<Result<Vec<f64>, _>>()?;
        measured.sort_unstable_by(f64::total_cmp);
        Ok(measured[MEASUREMENTS / 2])
    }

    /// How often the work is in a replay.
    pub(super) fn runs(&self) -> u32 {
        self.runs
    }
}
