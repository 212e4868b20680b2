//! Checks every golden case: a line each, then `golden: N passed, N failed, N skipped`; fails when one fails.
//!
//! `MANYGATE_GOLDEN=DIR` checks another folder than the project's own.

use manygate_tests::golden::{Summary, Verdict, check_folder};
use std::env;
use std::path::{self, Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let given = env::var_os("MANYGATE_GOLDEN").filter(|dir| !dir.is_empty());
    let complete = given.is_none();
    let root =
        given.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("golden"), |dir| locate(dir.into()));
    println!("golden cases of {}", root.display());
    let mut worst = None;
    let summary = check_folder(&root, complete, |report| {
        println!("{report}");
        if let Verdict::Passed(checked) = &report.verdict
            && worst.as_ref().is_none_or(|(share, _)| checked.worst.share > *share)
        {
            worst = Some((checked.worst.share, format!("{} of {}", checked.worst, report.name)));
        }
    });
    if let Some((_, text)) = worst {
        println!("largest error of the passed cases: {text}");
    }
    println!("{summary}");
    if matches!(summary, Summary { failed: 0, .. }) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A relative folder counts from where cargo was called, which the shell says in `PWD`: cargo itself starts tests in
/// the package's folder. Without it there, from the current folder.
fn locate(dir: PathBuf) -> PathBuf {
    if dir.is_absolute() {
        return dir;
    }
    let from_caller = env::var_os("PWD").map(|caller| Path::new(&caller).join(&dir));
    from_caller.filter(|path| path.is_dir()).or_else(|| path::absolute(&dir).ok()).unwrap_or(dir)
}
