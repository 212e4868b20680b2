//! Names of run folders: `runs/<configuration>-<number>`.

use crate::checkpoint::CHECKPOINT_FILE;
use manygate_core::{Error, Result};
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
