//! A run that is asked to stop after each of its steps, and goes on each time, leaves the bytes of one that was not.

use manygate_core::Error;
use manygate_train::{Cancel, Config, Event, Observer, RunOptions, Silent, train};
use std::fs;
use std::path::Path;

/// Three steps an epoch, validated once.
fn config(folder: &Path, model: &str) -> Config {
    let data = folder.join("train.csv");
    let mut text = String::from("user,tab,price,click,buy\n");
    for row in 0..60u32 {
        let noise = row.wrapping_mul(2_654_435_761) >> 16;
        let click = u32::from(noise % 7 > 2);
        let line = [noise % 5, noise / 5 % 2, noise % 100, click, click * (noise / 3 % 2)];
        text += &(line.map(|cell| cell.to_string()).join(",") + "\n");
    }
    fs::write(&data, text).unwrap();
    let config = format!(
        "[data]\ntrain = [{data:?}]\nvalid = {{ last_fraction = 0.2 }}\nscenario = \"tab\"\n\
         [train]\nepochs = 2\nbatch_size = 16\nvalidations_per_epoch = 1\n\
         [[features]]\nkind = \"categorical\"\ncolumns = [\"user\", \"tab\"]\n\
         [[features]]\nkind = \"numeric\"\ncolumns = [\"price\"]\n\
         [[tasks]]\nname = \"click\"\n[[tasks]]\nname = \"buy\"\n[model]\nembedding_dim = 3\n{model}"
    );
    let path = folder.join("config.toml");
    fs::write(&path, config).unwrap();
    Config::load(&path, &[]).unwrap()
}

/// Asks to stop at the first step that it hears of.
struct Stop(Cancel);

impl Observer for Stop {
    fn event(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Step { .. }) {
            self.0.request();
        }
    }
}

fn stopped_after_each_step(model: &str) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), model);
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    train(&config, &whole, RunOptions { threads: 1, ..RunOptions::default() }, &mut Silent).unwrap();
    let mut steps = 0;
    loop {
        let cancel = Cancel::default();
        let options = RunOptions {
            threads: 1 + steps as usize % 2,
            resume: true,
            cancel: cancel.clone(),
            ..RunOptions::default()
        };
        match train(&config, &stopped, options, &mut Stop(cancel)) {
            Ok(_) => break,
            Err(Error::Interrupted { step }) => {
                steps += 1;
                assert_eq!(step, steps, "one step a life");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(steps >= 6, "{steps} steps");
    for file in ["model.safetensors", "checkpoint.safetensors"] {
        let bytes = |run: &Path| fs::read(run.join(file)).unwrap();
        assert!(bytes(&whole) == bytes(&stopped), "{file} differs");
    }
}

#[test]
fn with_statistics_of_the_batch() {
    stopped_after_each_step("name = \"star\"\nunits = [6, 4]\nauxiliary_units = [3]\n");
}

#[test]
fn with_groups_of_a_cadence() {
    let group = "[[optimizer.group]]\nnames = [\"towers.*\"]\nmethod = \"sgd\"\nrate = 0.01\nevery = 2\n";
    stopped_after_each_step(&format!(
        "name = \"mmoe\"\nexperts = 2\nexpert_units = [6]\ntower_units = [4]\n{group}"
    ));
}

#[test]
fn with_a_method_that_learns_weights() {
    for method in ["cagrad", "famo", "gradnorm", "pcgrad", "uncertainty"] {
        let model = "name = \"mmoe\"\nexperts = 2\nexpert_units = [6]\ntower_units = [4]\n";
        stopped_after_each_step(&format!("{model}[balance]\nmethod = \"{method}\"\n"));
    }
}

#[test]
fn in_stages() {
    let stages = "[[stage]]\nname = \"first\"\nsteps = 4\nlosses = { buy = 0.0 }\n\
                  [[stage]]\nname = \"second\"\nepochs = 3\npatience = 1\nfreeze = [\"experts.*\"]\n\
                  [[stage]]\nname = \"third\"\nepochs = 1\n";
    stopped_after_each_step(&format!(
        "name = \"mmoe\"\nexperts = 2\nexpert_units = [6]\ntower_units = [4]\n{stages}"
    ));
}

#[test]
fn a_request_before_the_first_step_is_heeded() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "name = \"shared_bottom\"\nbottom_units = [4]\n");
    let (run, cancel) = (folder.path().join("run"), Cancel::default());
    cancel.request();
    let options = RunOptions { cancel, ..RunOptions::default() };
    let stopped = train(&config, &run, options, &mut Silent).unwrap_err();
    assert!(matches!(stopped, Error::Interrupted { step: 0 }), "{stopped}");
    let options = RunOptions { resume: true, ..RunOptions::default() };
    assert_eq!(train(&config, &run, options, &mut Silent).unwrap().step % 3, 0);
}
