//! Signals that end a program: Ctrl-C (SIGINT) and SIGTERM.
//!
//! Until [`Interrupt::listen`], and in commands that never listen, they end it at once, as ever: there is nothing to
//! save. Then the first one asks the run to stop, and the second ends it at once.

use manygate_train::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Added to a signal's number, this is the exit code of a program that it ended.
const BASE: usize = 128;

/// A stop that a signal asks for. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    cancel: Cancel,
    /// The exit code of the signal that came.
    code: Arc<AtomicUsize>,
}

impl Interrupt {
    /// What the run has to look at.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Begins to listen. Where the system refuses, a signal goes on ending the program at once.
    pub(crate) fn listen(&self) {
        for signal in [SIGINT, SIGTERM] {
            let code = BASE + signal as usize;
            // In this order: the one that ends the program must see what an earlier signal left.
            let _ = flag::register_conditional_shutdown(signal, code as i32, self.cancel.flag())
                .and_then(|_| flag::register_usize(signal, Arc::clone(&self.code), code))
                .and_then(|_| flag::register(signal, self.cancel.flag()));
        }
    }

    /// The exit code that belongs to the signal.
    pub(crate) fn exit_code(&self) -> u8 {
        self.code.load(Ordering::SeqCst) as u8
    }
}

/// Lets a write beyond `ulimit -f` fail with an error, which has a message, and not end the program with a signal.
#[cfg(unix)]
pub(crate) fn report_size_limits() {
    let _ = flag::register(signal_hook::consts::SIGXFSZ, Arc::<std::sync::atomic::AtomicBool>::default());
}
