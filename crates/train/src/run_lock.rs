//! One process at a time trains in a run folder.

use manygate_core::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// File that is locked while a process trains; it holds that process' number. The lock is the system's: it goes with
/// the process, however that ends, and a file that was left behind locks nothing.
pub const LOCK_FILE: &str = "train.lock";

/// The right to train in a folder, until it is dropped.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks a folder that exists.
    ///
    /// # Errors
    /// [`Error::Format`] when another process trains there; [`Error::Io`] when the file cannot be made.
    pub fn take(folder: &Path) -> Result<RunLock> {
        let path = folder.join(LOCK_FILE);
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let mut file = open.map_err(Error::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(is_taken(folder)),
            // Some network file systems have no locks; a run must be possible there.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path)(e)),
        }
        let mut number = || -> std::io::Result<()> {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        // The number is for messages alone: a full disk is told where it matters.
        let _ = number();
        Ok(RunLock { _file: file })
    }

    /// Locks a folder where some process has trained before; [`None`] where none has.
    ///
    /// # Errors
    /// As [`RunLock::take`].
    pub fn take_again(folder: &Path) -> Result<Option<RunLock>> {
        folder.join(LOCK_FILE).exists().then(|| RunLock::take(folder)).transpose()
    }
}

fn is_taken(folder: &Path) -> Error {
    let number =
        fs::read_to_string(folder.join(LOCK_FILE)).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let process = number.map_or_else(|| "another process".to_owned(), |number| format!("process {number}"));
    Error::format(
        folder,
        format!("{process} trains in this folder; wait for it to end, or give another folder with --out"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_until_the_lock_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        assert!(RunLock::take_again(folder.path()).unwrap().is_none());
        fs::write(folder.path().join(LOCK_FILE), "a lock file that a killed process left").unwrap();
        let lock = RunLock::take(folder.path()).unwrap();
        let refused = RunLock::take_again(folder.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(lock);
        assert!(RunLock::take_again(folder.path()).unwrap().is_some());
    }
}
