//! What a run shows while it works: a progress bar on a terminal, plain lines elsewhere, and the same lines in the run
//! folder's `train.log`.

use crate::interrupt::Interrupt;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use manygate_core::Error;
use manygate_train::start_from::Beginning;
use manygate_train::{Event, Observer};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// File of the log in a run folder.
const LOG_FILE: &str = "train.log";
/// Between two plain progress lines.
const INTERVAL: Duration = Duration::from_secs(2);

/// Says now and then how many rows were read or written.
pub(crate) struct Rows {
    done: &'static str,
    last_line: Instant,
}

impl Rows {
    /// What is done with rows, as a participle.
    pub(crate) fn new(done: &'static str) -> Rows {
        Rows { done, last_line: Instant::now() }
    }

    pub(crate) fn tell(&mut self, rows: u64) {
        if self.last_line.elapsed() >= INTERVAL {
            self.last_line = Instant::now();
            output::say(&format!("{rows} rows {}", self.done));
        }
    }
}

/// Shows events on stderr and logs them.
pub(crate) struct Terminal {
    folder: PathBuf,
    interrupt: Interrupt,
    /// Open from the moment the run folder is there.
    log: Option<File>,
    bar: Option<ProgressBar>,
    started: Instant,
    /// When steps began, and at which step.
    stepping: (Instant, u64),
    last_line: Instant,
    reading: Rows,
    rows: u64,
    /// Exponential moving average of the loss.
    loss: Option<f64>,
}

impl Terminal {
    /// Logs into the run folder `folder`, once the run has made it: a run that cannot begin leaves nothing behind.
    /// From then on `interrupt` listens, as there is something to keep.
    pub(crate) fn new(folder: &Path, interrupt: &Interrupt) -> Terminal {
        let now = Instant::now();
        Terminal {
            folder: folder.to_path_buf(),
            interrupt: interrupt.clone(),
            log: None,
            bar: None,
            started: now,
            stepping: (now, 0),
            last_line: now,
            reading: Rows::new("read"),
            rows: 0,
            loss: None,
        }
    }

    /// Ends the bar and logs how the run ended.
    pub(crate) fn finish(&mut self, error: Option<&Error>) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        match error {
            Some(error) => self.log_line(&format!("stopped: {error}")),
            None => self.log_line("finished"),
        }
    }

    /// A log that cannot be written must not end a run.
    fn log_line(&mut self, line: &str) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{:9.3} {line}", self.started.elapsed().as_secs_f64());
        }
    }

    fn line(&mut self, line: &str) {
        self.log_line(line);
        match &self.bar {
            Some(bar) => bar.println(line),
            None => output::say(line),
        }
    }

    fn step(&mut self, step: u64, steps: u64, rows: usize, loss: f64, rate_factor: f64) {
        let (since, first) = self.stepping;
        self.rows += rows as u64;
        let smooth = self.loss.map_or(loss, |old| 0.9 * old + 0.1 * loss);
        self.loss = Some(smooth);
        let seconds = since.elapsed().as_secs_f64().max(1e-9);
        let rate = self.rows as f64 / seconds;
        let left = seconds / (step - first) as f64 * (steps - step) as f64;
        if let Some(bar) = &self.bar {
            // A stage that ended early has shortened the run.
            bar.set_length(steps);
            bar.set_position(step);
            bar.set_message(format!("{rate:.0} rows/s  loss {smooth:.4}"));
        } else if self.last_line.elapsed() >= INTERVAL || step == steps {
            self.last_line = Instant::now();
            output::say(&format!(
                "step {step}/{steps}  {rate:.0} rows/s  loss {smooth:.4}  {left:.0} s left"
            ));
        }
        let factor = if rate_factor == 1.0 { String::new() } else { format!(" rates x {rate_factor:.4}") };
        self.log_line(&format!("step {step}/{steps} loss {loss:.6}{factor} {rate:.0} rows/s"));
    }
}

impl Observer for Terminal {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Reading { rows } => self.reading.tell(*rows),
            Event::Ready {
                fit_rows,
                valid_rows,
                test_rows,
                model,
                dense,
                tables,
                threads,
                isa,
                steps,
                resumed_at,
            } => {
                self.interrupt.listen();
                self.log = OpenOptions::new().create(true).append(true).open(self.folder.join(LOG_FILE)).ok();
                self.line(&format!("rows: {fit_rows} to fit, {valid_rows} to validate, {test_rows} to test"));
                self.line(&format!(
                    "{model}: {dense} parameters and {tables} in tables; {threads} threads, {isa}"
                ));
                self.stepping = (Instant::now(), resumed_at.unwrap_or(0));
                if let Some(step) = resumed_at {
                    self.line(&format!("going on after step {step} of {steps}"));
                }
                if std::io::stderr().is_terminal() {
                    let bar = ProgressBar::new(*steps);
                    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {msg}  {eta} left");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    bar.set_position(resumed_at.unwrap_or(0));
                    self.bar = Some(bar);
                }
            }
            Event::Stage { name, number, stages, steps } => {
                // The average of another loss says nothing about this one.
                self.loss = None;
                self.line(&format!("stage {number} of {stages}, {name}: {steps} steps at most"));
            }
            Event::Balanced { weights } => {
                let told: Vec<String> = weights.iter().map(|(name, w)| format!("{name} {w:.3}")).collect();
                self.line(&format!("weights of losses: {}", told.join(", ")));
            }
            Event::Step { step, steps, rows, loss, rate_factor } => {
                self.step(*step, *steps, *rows, *loss, *rate_factor);
            }
            Event::Warning { message } => self.line(&format!("warning: {message}")),
            Event::Validated { step, epochs, evaluation, score: (name, score), best, best_of } => {
                let of =
                    if best_of.is_empty() { String::new() } else { format!(" of {}", best_of.join(", ")) };
                let mark = if *best { format!("  best so far{of}") } else { String::new() };
                let score = score.map_or_else(|| "-".to_owned(), |score| format!("{score:.4}"));
                let figures = output::figures(evaluation);
                self.line(&format!(
                    "epoch {epochs:.1}, step {step}: validation {figures}, mean {name} {score}{mark}"
                ));
            }
            Event::Begun { beginning } => self.line(&told(beginning)),
            Event::Violated { violations } => {
                violations.iter().for_each(|violation| self.line(&violation.to_string()));
            }
        }
    }
}

/// How a run begins from another one.
fn told(beginning: &Beginning) -> String {
    let Beginning { folder, added, rows, difference, is_exact } = beginning;
    let added = if added.is_empty() { "nothing".to_owned() } else { added.join(", ") };
    let same = match is_exact {
        true => "bit for bit as there".to_owned(),
        false => format!("as there but for {difference:e} at most"),
    };
    format!("begins from {}, with {added} added: predicts {rows} validation rows {same}", folder.display())
}
