//! What streams record, and the rules for it.

use crate::device::Device;
use crate::refusal::{Answer, refuse};
use crate::work::{LEGACY, Marks, Stream, Work};
use cudarc::driver::sys::CUresult;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::{self, ThreadId};

/// What a recording forbids, and to whom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    /// To every thread.
    Global,
    /// To the thread that records.
    ThreadLocal,
    /// To nobody.
    Relaxed,
}

thread_local! {
    /// What this thread lets recordings forbid to it.
    static OBEYS: Cell<Mode> = const { Cell::new(Mode::Global) };
}

/// Changes what this thread lets recordings forbid to it; gives what it was.
pub(crate) fn exchange_mode(mode: Mode) -> Mode {
    OBEYS.replace(mode)
}

/// A recording that is open.
pub(crate) struct Capture {
    origin: usize,
    mode: Mode,
    thread: ThreadId,
    nodes: Vec<Work>,
    /// By stream that takes part: its own last node, and all that must run before what it does next.
    streams: BTreeMap<usize, (Option<usize>, BTreeSet<usize>)>,
    is_spoiled: bool,
}

/// What was recorded, in an order in which it may run.
pub(crate) struct Graph(Vec<Work>);

impl Graph {
    pub(crate) fn work(&self) -> &[Work] {
        &self.0
    }
}

impl Device {
    pub(crate) fn begin_capture(&mut self, stream: usize, mode: Mode) -> Answer {
        if stream == LEGACY {
            let why = "the legacy stream cannot record";
            return refuse(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, why);
        }
        if self.streams.get(stream)?.capture.is_some() {
            return refuse(CUresult::CUDA_ERROR_ILLEGAL_STATE, "the stream records already");
        }
        let capture = self.captures.insert(Capture {
            origin: stream,
            mode,
            thread: thread::current().id(),
            nodes: Vec::new(),
            streams: BTreeMap::from([(stream, Default::default())]),
            is_spoiled: false,
        });
        self.streams.get_mut(stream)?.capture = Some(capture);
        Ok(())
    }

    /// Ends a recording; gives the handle of its graph.
    pub(crate) fn end_capture(&mut self, stream: usize) -> Answer<usize> {
        let Some(handle) = self.streams.get(stream)?.capture else {
            return refuse(CUresult::CUDA_ERROR_ILLEGAL_STATE, "the stream does not record");
        };
        let capture = self.captures.get(handle)?;
        if capture.origin != stream {
            return refuse(
                CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
                "another stream began the recording",
            );
        }
        if capture.mode != Mode::Relaxed && capture.thread != thread::current().id() {
            return refuse(CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "another thread began it");
        }
        let Capture { nodes, streams, is_spoiled, .. } = self.captures.remove(handle)?;
        for stream in streams.keys() {
            if let Ok(Stream { capture, .. }) = self.streams.get_mut(*stream) {
                *capture = None;
            }
        }
        if is_spoiled {
            let why = "something in the recording was not allowed";
            return refuse(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, why);
        }
        let (_, joined) = &streams[&stream];
        if streams.values().any(|(last, _)| last.is_some_and(|last| !joined.contains(&last))) {
            let why = "the work of another stream does not come together with that which records";
            return refuse(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED, why);
        }
        Ok(self.graphs.insert(Arc::new(Graph(nodes))))
    }

    /// Whether a stream records, and whether that is spoiled.
    pub(crate) fn capture_status(&self, stream: usize) -> Answer<Option<bool>> {
        if stream == LEGACY {
            return Ok(None);
        }
        let capture = self.streams.get(stream)?.capture;
        capture.map(|capture| Ok(self.captures.get(capture)?.is_spoiled)).transpose()
    }

    /// Adds work to what a stream records.
    pub(crate) fn record_work(&mut self, stream: usize, work: Work) -> Answer {
        let capture = self.open_capture(stream)?;
        let node = capture.nodes.len();
        capture.nodes.push(work);
        let (last, before) = capture.streams.entry(stream).or_default();
        *last = Some(node);
        before.insert(node);
        Ok(())
    }

    /// What a stream records, if it can go on.
    fn open_capture(&mut self, stream: usize) -> Answer<&mut Capture> {
        let Some(handle) = self.streams.get(stream)?.capture else {
            return refuse(CUresult::CUDA_ERROR_ILLEGAL_STATE, "the stream does not record");
        };
        let capture = self.captures.get_mut(handle)?;
        if capture.is_spoiled {
            return refuse(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the recording is spoiled");
        }
        Ok(capture)
    }

    /// What an event marks that is recorded now.
    pub(crate) fn marks_of_capture(&mut self, capture: usize, stream: usize) -> Answer<Marks> {
        let (_, before) = self.open_capture(stream)?.streams.entry(stream).or_default();
        Ok(Marks::Recorded { capture, nodes: before.iter().copied().collect() })
    }

    /// Lets a stream wait for nodes of a recording: it takes part from now on.
    pub(crate) fn join_capture(&mut self, stream: usize, capture: usize, nodes: &[usize]) -> Answer {
        if self.captures.get(capture).is_err() {
            let why = "the event was recorded in a recording that has ended";
            return refuse(CUresult::CUDA_ERROR_CAPTURED_EVENT, why);
        }
        if stream == LEGACY {
            let why = "the legacy stream waits for what is recorded";
            return self.spoil(capture, CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, why);
        }
        let own = self.streams.get(stream)?.capture;
        if let Some(other) = own.filter(|own| *own != capture) {
            let why = "two recordings would become one";
            let _ = self.spoil::<()>(other, CUresult::CUDA_ERROR_STREAM_CAPTURE_MERGE, why);
            return self.spoil(capture, CUresult::CUDA_ERROR_STREAM_CAPTURE_MERGE, why);
        }
        self.streams.get_mut(stream)?.capture = Some(capture);
        let (_, before) = self.open_capture(stream)?.streams.entry(stream).or_default();
        before.extend(nodes);
        Ok(())
    }

    /// Refuses something that spoils a recording.
    pub(crate) fn spoil<T>(&mut self, capture: usize, code: CUresult, why: &str) -> Answer<T> {
        self.captures.get_mut(capture)?.is_spoiled = true;
        refuse(code, why)
    }

    /// Refuses to wait for a stream, or to look at it, while it records.
    pub(crate) fn forbid_on_recording(&mut self, stream: usize, what: &str) -> Answer {
        match self.streams.get(stream)?.capture {
            Some(capture) => self.spoil(capture, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, what),
            None => Ok(()),
        }
    }

    /// Refuses to wait for an event, or to look at it, that is recorded.
    pub(crate) fn forbid_on_recorded(&mut self, event: usize, what: &str) -> Answer {
        match self.events.get(event)?.marks {
            Marks::Recorded { capture, .. } if self.captures.get(capture).is_ok() => {
                self.spoil(capture, CUresult::CUDA_ERROR_CAPTURED_EVENT, what)
            }
            Marks::Recorded { .. } => refuse(CUresult::CUDA_ERROR_CAPTURED_EVENT, what),
            _ => Ok(()),
        }
    }

    /// Refuses what recordings forbid to this thread.
    pub(crate) fn forbid_while_recording(&mut self, what: &str) -> Answer {
        let (here, obeys) = (thread::current().id(), OBEYS.get());
        let mut is_forbidden = false;
        for capture in self.captures.values_mut() {
            let forbids = match obeys {
                Mode::Relaxed => false,
                Mode::ThreadLocal => capture.thread == here && capture.mode != Mode::Relaxed,
                Mode::Global if capture.thread == here => capture.mode != Mode::Relaxed,
                Mode::Global => capture.mode == Mode::Global,
            };
            capture.is_spoiled |= forbids;
            is_forbidden |= forbids;
        }
        if !is_forbidden {
            return Ok(());
        }
        refuse(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, format!("{what} while a stream records"))
    }

    /// Refuses to wait for the whole device while anything records.
    pub(crate) fn forbid_device_wait(&mut self) -> Answer {
        if self.captures.len() == 0 {
            return Ok(());
        }
        self.captures.values_mut().for_each(|capture| capture.is_spoiled = true);
        refuse(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "waiting for a device while a stream records")
    }

    /// Refuses work on the legacy stream while anything records.
    pub(crate) fn forbid_legacy(&mut self) -> Answer {
        if self.captures.len() == 0 {
            return Ok(());
        }
        self.captures.values_mut().for_each(|capture| capture.is_spoiled = true);
        refuse(
            CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
            "work on the legacy stream while another records",
        )
    }
}
