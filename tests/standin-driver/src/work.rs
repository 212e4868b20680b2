//! Work on streams, and when it runs.

use crate::capture::Graph;
use crate::device::Device;
use crate::kernel::Launch;
use crate::refusal::{Answer, Refusal, refuse};
use cudarc::driver::sys::CUresult;
use std::collections::VecDeque;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::slice;
use std::sync::Arc;
use std::time::Instant;

/// Something that a stream does.
#[derive(Clone)]
pub(crate) enum Work {
    Launch(Launch),
    /// Bytes that the host handed over, to an address of the device.
    Store {
        bytes: Arc<[u8]>,
        to: u64,
    },
    /// From pinned memory.
    Upload {
        from: usize,
        to: u64,
        len: usize,
    },
    /// To pinned memory.
    Download {
        from: u64,
        to: usize,
        len: usize,
    },
    Copy {
        from: u64,
        to: u64,
        len: usize,
    },
    Fill {
        byte: u8,
        to: u64,
        len: usize,
    },
    /// Reaches the mark of an event.
    Record {
        event: usize,
        mark: Mark,
    },
    Wait(Mark),
    Replay(Arc<Graph>),
}

/// A place in the work of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mark {
    stream: usize,
    /// Reached when so much work is done.
    done: u64,
}

#[derive(Default)]
pub(crate) struct Stream {
    /// The legacy stream waits for it.
    is_blocking: bool,
    pub(crate) capture: Option<usize>,
    queue: VecDeque<Work>,
    done: u64,
}

#[derive(Default)]
pub(crate) struct Event {
    has_time: bool,
    pub(crate) marks: Marks,
    reached: Option<Instant>,
}

/// What an event marks.
#[derive(Clone, Default)]
pub(crate) enum Marks {
    #[default]
    Nothing,
    Place(Mark),
    /// Nodes of a recording.
    Recorded {
        capture: usize,
        nodes: Arc<[usize]>,
    },
}

impl Stream {
    pub(crate) fn new(is_blocking: bool) -> Stream {
        Stream { is_blocking, ..Stream::default() }
    }
}

impl Event {
    pub(crate) fn new(has_time: bool) -> Event {
        Event { has_time, ..Event::default() }
    }
}

/// The stream that is there without being made.
pub(crate) const LEGACY: usize = 0;

impl Device {
    /// Puts work on a stream, or into what it records.
    pub(crate) fn put(&mut self, stream: usize, work: Work) -> Answer {
        if stream == LEGACY {
            return self.run_on_legacy(&work);
        }
        if self.streams.get(stream)?.capture.is_some() {
            return self.record_work(stream, work);
        }
        self.streams.get_mut(stream)?.queue.push_back(work);
        self.run_some()
    }

    /// The legacy stream comes after all blocking ones, and before what they do next.
    fn run_on_legacy(&mut self, work: &Work) -> Answer {
        self.forbid_legacy()?;
        for stream in self.streams.handles() {
            if self.streams.get(stream)?.is_blocking {
                self.run(stream)?;
            }
        }
        self.execute_or_fail(work)
    }

    /// Runs all that is on a stream.
    pub(crate) fn run(&mut self, stream: usize) -> Answer {
        let mark = self.end_of(stream)?;
        self.run_to(mark)
    }

    /// Runs all that is on any stream.
    pub(crate) fn run_all(&mut self) -> Answer {
        self.streams.handles().into_iter().try_for_each(|stream| self.run(stream))
    }

    fn end_of(&self, stream: usize) -> Answer<Mark> {
        let Stream { queue, done, .. } = self.streams.get(stream)?;
        Ok(Mark { stream, done: done + queue.len() as u64 })
    }

    /// Runs what comes before a mark.
    pub(crate) fn run_to(&mut self, mark: Mark) -> Answer {
        while !self.is_reached(mark) {
            let Some(work) = self.streams.get_mut(mark.stream)?.queue.pop_front() else { break };
            self.execute_or_fail(&work)?;
            self.streams.get_mut(mark.stream)?.done += 1;
        }
        Ok(())
    }

    /// Whether a mark is reached; one of a stream that was destroyed is.
    pub(crate) fn is_reached(&self, mark: Mark) -> bool {
        self.streams.get(mark.stream).map_or(true, |stream| stream.done >= mark.done)
    }

    /// With a seed, streams also run of their own accord.
    fn run_some(&mut self) -> Answer {
        if self.seed == 0 {
            return Ok(());
        }
        let streams = self.streams.handles();
        for _ in 0..self.next_random() % 3 {
            let stream = streams[self.next_random() as usize % streams.len()];
            let Stream { queue, done, .. } = self.streams.get(stream)?;
            if !queue.is_empty() {
                let mark = Mark { stream, done: done + 1 };
                self.run_to(mark)?;
            }
        }
        Ok(())
    }

    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(self.seed | 1);
        self.random >> 33
    }

    fn execute_or_fail(&mut self, work: &Work) -> Answer {
        self.execute(work).inspect_err(|fault| self.set_fault(fault.clone()))
    }

    fn execute(&mut self, work: &Work) -> Answer {
        match work {
            Work::Launch(launch) => launch.run(&mut self.memory, self.seed),
            Work::Store { bytes, to } => {
                self.memory_at(*to, bytes.len())?.copy_from_slice(bytes);
                Ok(())
            }
            Work::Upload { from, to, len } => {
                self.check_pinned(*from, *len)?;
                // SAFETY: pinned memory, which was written to when it was allocated. Whoever put the copy on the stream
                // promised that nobody writes there before it is done.
                let bytes = unsafe { slice::from_raw_parts(with_exposed_provenance(*from), *len) };
                self.memory_at(*to, *len)?.copy_from_slice(bytes);
                Ok(())
            }
            Work::Download { from, to, len } => {
                self.check_pinned(*to, *len)?;
                // SAFETY: as above, and nobody reads there.
                let bytes = unsafe { slice::from_raw_parts_mut(with_exposed_provenance_mut(*to), *len) };
                bytes.copy_from_slice(self.memory_at(*from, *len)?);
                self.downloaded += *len as u64;
                Ok(())
            }
            Work::Copy { from, to, len } => {
                let bytes = self.memory_at(*from, *len)?.to_vec();
                self.memory_at(*to, *len)?.copy_from_slice(&bytes);
                Ok(())
            }
            Work::Fill { byte, to, len } => {
                self.memory_at(*to, *len)?.fill(*byte);
                Ok(())
            }
            Work::Record { event, mark } => {
                // The event may be gone, or mark something else by now.
                if let Ok(event) = self.events.get_mut(*event)
                    && matches!(event.marks, Marks::Place(now) if now == *mark)
                {
                    event.reached = Some(Instant::now());
                }
                Ok(())
            }
            Work::Wait(mark) => self.run_to(*mark),
            Work::Replay(graph) => graph.work().iter().try_for_each(|work| self.execute(work)),
        }
    }

    fn memory_at(&mut self, address: u64, len: usize) -> Answer<&mut [u8]> {
        self.memory.bytes(address, len).ok_or_else(|| Refusal {
            code: CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
            why: format!("a copy of {len} bytes at {address:#x}, which are not allocated"),
        })
    }

    fn check_pinned(&self, address: usize, len: usize) -> Answer {
        if self.is_pinned(address, len) {
            return Ok(());
        }
        let why = format!("a copy of {len} bytes of the host at {address:#x}, which are not pinned any more");
        refuse(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, why)
    }

    /// Marks what is on a stream by now.
    pub(crate) fn record_event(&mut self, event: usize, stream: usize) -> Answer {
        self.events.get(event)?;
        if stream == LEGACY {
            self.run_on_legacy(&Work::Record { event, mark: Mark { stream, done: 0 } })?;
            self.events.get_mut(event)?.marks = Marks::Nothing;
            return Ok(());
        }
        if let Some(capture) = self.streams.get(stream)?.capture {
            self.events.get_mut(event)?.marks = self.marks_of_capture(capture, stream)?;
            return Ok(());
        }
        let mut mark = self.end_of(stream)?;
        mark.done += 1;
        let marked = self.events.get_mut(event)?;
        (marked.marks, marked.reached) = (Marks::Place(mark), None);
        self.put(stream, Work::Record { event, mark })
    }

    /// Lets a stream wait for what an event marks now.
    pub(crate) fn wait_event(&mut self, stream: usize, event: usize) -> Answer {
        let marks = self.events.get(event)?.marks.clone();
        let recording = if stream == LEGACY { None } else { self.streams.get(stream)?.capture };
        match (marks, recording) {
            (Marks::Nothing, _) => Ok(()),
            (Marks::Place(_), Some(capture)) => self.spoil(
                capture,
                CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                "a stream that records waits for an event that is not recorded",
            ),
            (Marks::Place(mark), None) => self.put(stream, Work::Wait(mark)),
            (Marks::Recorded { capture, nodes }, _) => self.join_capture(stream, capture, &nodes),
        }
    }

    /// Milliseconds between two events.
    pub(crate) fn elapsed(&self, from: usize, to: usize) -> Answer<f32> {
        let reached = |handle: usize| {
            let event = self.events.get(handle)?;
            match (event.has_time, &event.marks, event.reached) {
                (true, Marks::Place(_), Some(time)) => Ok(time),
                (true, Marks::Place(_), None) => refuse(CUresult::CUDA_ERROR_NOT_READY, "not reached yet"),
                _ => refuse(CUresult::CUDA_ERROR_INVALID_HANDLE, "an event without time, or not recorded"),
            }
        };
        let (from, to) = (reached(from)?, reached(to)?);
        let forward = to.saturating_duration_since(from).as_secs_f32();
        Ok((forward - from.saturating_duration_since(to).as_secs_f32()) * 1e3)
    }
}
