//! Run folders: their names, `runs/<configuration>-<number>`, and how a run takes one over.

use crate::checkpoint::CHECKPOINT_FILE;
use crate::run_lock::RunLock;
use manygate_core::{Error, Result, write_atomically};
use manygate_features::Encoder;
use manygate_runtime::{CONFIG_FILE, MODEL_FILE, VOCAB_FOLDER};
use std::fs;
use std::path::{Path, PathBuf};

/// Parent of the run folders that nobody named.
pub const RUNS: &str = "runs";

/// A folder for a run of this configuration: a new one, or the newest with a checkpoint to resume.
///
/// # Errors
/// When a run is to be resumed and there is none.
pub fn default_folder(config: &Path, resume: bool) -> Result<PathBuf> {
    let stem = config.file_stem().map_or_else(|| "run".into(), |s| s.to_string_lossy().into_owned());
    choose(Path::new(RUNS), &stem, resume)
}

/// Locks the folder of a run that is to begin or to go on, where there is one by now.
///
/// # Errors
/// When another process trains there, or a run is there and not to be resumed.
pub(crate) fn claim(folder: &Path, resume: bool) -> Result<Option<RunLock>> {
    let lock = RunLock::take_again(folder)?;
    if !resume && has_run(folder) {
        let message = "already holds a run; give another folder with --out, or go on with --resume";
        return Err(Error::format(folder, message));
    }
    Ok(lock)
}

/// Makes the folder of a run and locks it, once its data is read: a run that cannot begin leaves nothing behind. `lock`
/// is what [`claim`] gave.
///
/// A run that was killed before its first checkpoint leaves a folder without one, perhaps with a model: resuming starts
/// it again, which gives the same result, as long as it is the same configuration.
///
/// # Errors
/// As [`claim`], and when the folder is that of another configuration or cannot be written.
pub(crate) fn prepare(
    folder: &Path,
    lock: Option<RunLock>,
    resolved: &str,
    encoder: &Encoder,
    resume: bool,
) -> Result<RunLock> {
    fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    let lock = match lock {
        Some(lock) => lock,
        // Another process may have made it meanwhile.
        None => match claim(folder, resume)? {
            Some(lock) => lock,
            None => RunLock::take(folder)?,
        },
    };
    if folder.join(CHECKPOINT_FILE).exists() {
        return Ok(lock);
    }
    let config = folder.join(CONFIG_FILE);
    if has_run(folder) && fs::read_to_string(&config).map_err(Error::io("read", &config))? != resolved {
        let message =
            "belongs to a run with another configuration; resume with that one, or give another --out";
        return Err(Error::format(&config, message));
    }
    write_atomically(&config, resolved.as_bytes())?;
    encoder.save(&folder.join(VOCAB_FOLDER))?;
    Ok(lock)
}

fn has_run(folder: &Path) -> bool {
    folder.join(CHECKPOINT_FILE).exists() || folder.join(MODEL_FILE).exists()
}

fn choose(runs: &Path, stem: &str, resume: bool) -> Result<PathBuf> {
    let mut numbers: Vec<u64> = std::fs::read_dir(runs)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix(stem)?.strip_prefix('-')?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    let folder = |number: u64| runs.join(format!("{stem}-{number}"));
    if !resume {
        return Ok(folder(numbers.last().map_or(1, |n| n + 1)));
    }
    let found = numbers.into_iter().rev().map(folder).find(|f| f.join(CHECKPOINT_FILE).exists());
    found.ok_or_else(|| {
        let message = format!("there is no run of `{stem}` with a checkpoint under {}", runs.display());
        Error::config("--resume", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_resume_takes_the_newest_with_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path();
        assert_eq!(choose(runs, "a", false).unwrap(), runs.join("a-1"));
        for name in ["a-1", "a-9", "a-10", "a-x", "ab-99"] {
            std::fs::create_dir(runs.join(name)).unwrap();
        }
        assert_eq!(choose(runs, "a", false).unwrap(), runs.join("a-11"));
        assert!(choose(runs, "a", true).unwrap_err().to_string().contains("no run of `a`"));
        std::fs::write(runs.join("a-9").join(CHECKPOINT_FILE), "").unwrap();
        assert_eq!(choose(runs, "a", true).unwrap(), runs.join("a-9"));
    }
}
