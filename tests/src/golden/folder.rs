//! A folder of cases, `<model>/<case>/` and `task_optimization/<method>[-<variant>]/`, checked one after the other.

use super::{Case, Checked, balance, check};
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Models without cases of their own: tests/tests/single_task.rs holds it to shared_bottom, bit by bit.
pub const WITHOUT_CASES: [&str; 2] = ["single_scenario", "single_task"];

/// What became of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All tensors agree.
    Passed(Checked),
    /// Why it fails.
    Failed(Vec<String>),
    /// Why it was not looked at.
    Skipped(String),
}

/// One case and its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// `<model>/<case>`.
    pub name: String,
    /// What became of it.
    pub verdict: Verdict,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.verdict {
            Verdict::Passed(checked) => write!(f, "ok  {name} ({} tensors)", checked.tensors),
            Verdict::Failed(why) => write!(f, "FAIL {name}: {}", why.join("; ")),
            Verdict::Skipped(why) => write!(f, "skip {name}: {why}"),
        }
    }
}

/// Numbers of cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// That agree.
    pub passed: usize,
    /// That do not, or cannot be read, or should be there and are not.
    pub failed: usize,
    /// Of models and methods that are not registered.
    pub skipped: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "golden: {} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Checks every case under `root`, and tells `each` as it goes. With `complete`, a registered model or
/// method without a case is a failure; a folder without any case always is.
pub fn check_folder(root: &Path, complete: bool, mut each: impl FnMut(&Report)) -> Summary {
    let mut summary = Summary::default();
    let mut tell = |name: String, verdict: Verdict| {
        *match verdict {
            Verdict::Passed(_) => &mut summary.passed,
            Verdict::Failed(_) => &mut summary.failed,
            Verdict::Skipped(_) => &mut summary.skipped,
        } += 1;
        each(&Report { name, verdict });
    };
    let cases = match cases(root) {
        Ok(cases) => cases,
        Err(message) => {
            tell(root.display().to_string(), Verdict::Failed(vec![message]));
            return summary;
        }
    };
    if cases.is_empty() {
        tell(root.display().to_string(), Verdict::Failed(vec!["there is no <model>/<case>/ in it".into()]));
    }
    if complete {
        let models = manygate_models::MODELS.iter().map(|entry| entry.name);
        let models = models.filter(|model| !WITHOUT_CASES.contains(model));
        for model in models.filter(|model| cases.iter().all(|(m, ..)| m != model)) {
            tell(model.to_owned(), Verdict::Failed(vec!["a registered model without a case".into()]));
        }
        let has = |method: &str| {
            cases.iter().any(|(m, c, _)| m == balance::FOLDER && balance::method_of(c) == method)
        };
        for method in manygate_train::balance::METHODS.iter().map(|entry| entry.name).filter(|m| !has(m)) {
            let name = format!("{}/{method}", balance::FOLDER);
            tell(name, Verdict::Failed(vec!["a registered method without a case".into()]));
        }
    }
    for (model, case, folder) in cases {
        tell(format!("{model}/{case}"), judge(&model, &case, &folder));
    }
    summary
}

/// Model, case and folder, sorted.
fn cases(root: &Path) -> Result<Vec<(String, String, PathBuf)>, String> {
    let mut found = Vec::new();
    for (model, folder) in folders(root)? {
        for (case, folder) in folders(&folder)? {
            found.push((model.clone(), case, folder));
        }
    }
    Ok(found)
}

fn folders(of: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(of).map_err(|e| e.to_string())? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

fn judge(model: &str, case: &str, folder: &Path) -> Verdict {
    let (key, name, registered) = match model {
        balance::FOLDER => {
            let method = balance::method_of(case);
            ("method", method, balance::is_registered(method))
        }
        _ => ("model", model, manygate_models::find(model).is_ok()),
    };
    if !registered {
        return Verdict::Skipped(format!("the {key} is not registered"));
    }
    let case = match Case::read(folder) {
        Ok(case) => case,
        Err(message) => return Verdict::Failed(vec![message]),
    };
    match case.config.get(key).and_then(|stated| stated.as_str()) {
        Some(stated) if stated == name => {}
        other => return Verdict::Failed(vec![format!("its {key} is {other:?}, its folder `{name}`")]),
    }
    // A panic in the engine is this case's failure; the others still have theirs to tell.
    match catch_unwind(AssertUnwindSafe(|| check(&case))) {
        Ok(Ok(checked)) => Verdict::Passed(checked),
        Ok(Err(why)) => Verdict::Failed(why),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
            Verdict::Failed(vec![format!("the engine panicked: {}", text.unwrap_or_default())])
        }
    }
}
