//! How learning rates change over the steps of a stage: a factor of the rates of all groups.

use manygate_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// `[optimizer.schedule]`. Steps are those of the stage: each stage begins anew.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Steps in which rates rise, in a line, to their full size (P. Goyal et al., 2017).
    pub warmup_steps: u64,
    /// What rates do after that.
    pub kind: ScheduleKind,
    /// Step at which cosine and linear end, the warm-up included; that of the stage's end where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Share of the rate at which cosine and linear end; 0 where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_fraction: Option<f64>,
    /// Steps between two decays of the kind step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Factor of each of them; 0.1 where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
}

/// How rates change after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Not at all.
    #[default]
    Constant,
    /// Down half a period of a cosine (I. Loshchilov, F. Hutter, *SGDR*, ICLR 2017, without restarts).
    Cosine,
    /// Down a line.
    Linear,
    /// By a factor at every so many steps.
    Step,
}

/// The schedule of one stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    warmup: u64,
    decay: Decay,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Decay {
    Constant,
    Cosine { steps: u64, end: f64 },
    Linear { steps: u64, end: f64 },
    Step { every: u64, factor: f64 },
}

impl ScheduleConfig {
    /// Checks what can be checked without the number of steps.
    ///
    /// # Errors
    /// When a value is out of its range, is missing, or has no effect.
    pub(super) fn check(&self) -> Result<()> {
        let falls = matches!(self.kind, ScheduleKind::Cosine | ScheduleKind::Linear);
        let steps = self.kind == ScheduleKind::Step;
        let given = [
            ("steps", self.steps.is_some(), falls, "cosine and linear"),
            ("final_fraction", self.final_fraction.is_some(), falls, "cosine and linear"),
            ("every", self.every.is_some(), steps, "step"),
            ("factor", self.factor.is_some(), steps, "step"),
        ];
        if let Some((key, .., kinds)) = given.iter().find(|(_, given, read, _)| *given && !read) {
            return wrong(key, format!("is a key of {kinds} alone"));
        }
        if steps && self.every.is_none_or(|every| every == 0) {
            return wrong("every", "step needs the number of steps between two decays, at least 1".into());
        }
        for (key, share) in [("final_fraction", self.final_fraction), ("factor", self.factor)] {
            if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                return wrong(key, "must be at least 0 and at most 1".into());
            }
        }
        Ok(())
    }

    /// With every default written out.
    pub(super) fn resolved(&self) -> ScheduleConfig {
        let mut resolved = self.clone();
        match self.kind {
            ScheduleKind::Constant => {}
            ScheduleKind::Cosine | ScheduleKind::Linear => {
                resolved.final_fraction.get_or_insert(0.0);
            }
            ScheduleKind::Step => {
                resolved.factor.get_or_insert(0.1);
            }
        }
        resolved
    }

    /// Ends with a stage of `steps` steps, unless it says where to end.
    pub(crate) fn end_with(&mut self, steps: u64) {
        if matches!(self.kind, ScheduleKind::Cosine | ScheduleKind::Linear) {
            self.steps.get_or_insert(steps);
        }
    }

    /// The schedule that this describes.
    ///
    /// # Errors
    /// When it does not say where it ends but has to, or the warm-up leaves no step before.
    pub fn schedule(&self) -> Result<Schedule> {
        let warmup = self.warmup_steps;
        let resolved = self.resolved();
        let end = resolved.final_fraction.unwrap_or_default();
        let steps = || match self.steps {
            Some(steps) if steps > warmup => Ok(steps - warmup),
            Some(steps) => wrong(
                "warmup_steps",
                format!("{warmup} steps leave none of {steps} for the decay after them"),
            ),
            None => wrong("steps", "must be given here: it is not known when training ends".into()),
        };
        let decay = match self.kind {
            ScheduleKind::Constant => Decay::Constant,
            ScheduleKind::Cosine => Decay::Cosine { steps: steps()?, end },
            ScheduleKind::Linear => Decay::Linear { steps: steps()?, end },
            ScheduleKind::Step => {
                Decay::Step { every: self.every.unwrap_or(1), factor: resolved.factor.unwrap_or_default() }
            }
        };
        Ok(Schedule { warmup, decay })
    }
}

fn wrong<T>(key: &str, message: String) -> Result<T> {
    Err(Error::config(format!("optimizer.schedule.{key}"), message))
}

impl Schedule {
    /// The factor of all rates at step `step` of the stage, from 1: `step / warmup` in the warm-up. After it, with the
    /// share `p` of the other steps that are taken, cosine is `end + (1 - end) (1 + cos(π p)) / 2`, linear
    /// `1 - (1 - end) p`, and step `factor` to the power of the decays so far.
    pub fn factor(&self, step: u64) -> f64 {
        let Some(taken) = step.checked_sub(self.warmup + 1) else {
            return step as f64 / self.warmup as f64;
        };
        let share = |steps: u64| (taken as f64 / steps as f64).min(1.0);
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine { steps, end } => {
                end + (1.0 - end) * 0.5 * (1.0 + (std::f64::consts::PI * share(steps)).cos())
            }
            Decay::Linear { steps, end } => 1.0 - (1.0 - end) * share(steps),
            Decay::Step { every, factor } => factor.powf((taken / every) as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ScheduleConfig {
        toml::from_str(text).unwrap()
    }

    fn factors(text: &str, steps: u64) -> Vec<f64> {
        let mut config = config(text);
        config.check().unwrap();
        config.end_with(steps);
        let schedule = config.schedule().unwrap();
        (1..=steps + 2).map(|step| schedule.factor(step)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close && found.len() == expected.len(), "{found:?}, not {expected:?}");
    }

    #[test]
    fn factors_are_those_of_the_formulas() {
        assert_close(&factors("", 3), &[1.0; 5]);
        assert_close(&factors("warmup_steps = 4", 4), &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
        let half = 0.5f64.sqrt() / 2.0;
        let cosine = [1.0, 0.5 + half, 0.5, 0.5 - half, 0.0, 0.0];
        assert_close(&factors("kind = \"cosine\"", 4), &cosine);
        let warm: Vec<f64> = [0.5, 1.0].into_iter().chain(cosine.map(|share| 0.25 + 0.75 * share)).collect();
        assert_close(&factors("kind = \"cosine\"\nwarmup_steps = 2\nfinal_fraction = 0.25", 6), &warm);
        assert_close(&factors("kind = \"linear\"\nfinal_fraction = 0.5", 2), &[1.0, 0.75, 0.5, 0.5]);
        assert_close(&factors("kind = \"linear\"\nsteps = 2", 3), &[1.0, 0.5, 0.0, 0.0, 0.0]);
        let step = "kind = \"step\"\nevery = 2\nfactor = 0.5\nwarmup_steps = 1";
        assert_close(&factors(step, 4), &[1.0, 1.0, 1.0, 0.5, 0.5, 0.25]);
    }

    #[test]
    fn defaults_are_written_out_and_mean_the_same() {
        for (text, line) in [
            ("", "kind = \"constant\""),
            ("", "warmup_steps = 0"),
            ("kind = \"cosine\"", "final_fraction = 0.0"),
            ("kind = \"step\"\nevery = 3", "factor = 0.1"),
        ] {
            let resolved = config(text).resolved();
            let written = toml::to_string(&resolved).unwrap();
            assert!(written.contains(line), "{written}");
            assert_eq!(config(&written), resolved);
            resolved.check().unwrap();
        }
    }

    #[test]
    fn wrong_schedules_are_told() {
        for (text, told) in [
            ("every = 3", "every: is a key of step alone"),
            ("kind = \"step\"\nevery = 2\nsteps = 3", "steps: is a key of cosine and linear alone"),
            ("kind = \"step\"", "every: step needs the number of steps"),
            ("kind = \"step\"\nevery = 0", "every: step needs the number of steps"),
            ("kind = \"step\"\nevery = 1\nfactor = 2", "factor: must be at least 0 and at most 1"),
            ("kind = \"cosine\"\nfinal_fraction = nan", "final_fraction: must be at least 0"),
        ] {
            let found = config(text).check().unwrap_err().to_string();
            assert!(found.contains(&format!("optimizer.schedule.{told}")), "{found}");
        }
        let late =
            config("kind = \"linear\"\nsteps = 5\nwarmup_steps = 5").schedule().unwrap_err().to_string();
        assert!(late.contains("schedule.warmup_steps: 5 steps leave none of 5"), "{late}");
        let endless = config("kind = \"cosine\"").schedule().unwrap_err().to_string();
        assert!(endless.contains("schedule.steps: must be given here"), "{endless}");
    }
}
