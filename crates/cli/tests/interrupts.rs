//! A run that is ended from outside, by kill -9, Ctrl-C or SIGTERM, at any moment, and resumed: the same bytes as one
//! that nobody disturbed.

#![cfg(unix)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Lab, csv, entries};

/// Many short steps: 13 an epoch, one validation for each.
fn job() -> Lab {
    let lab = Lab::new();
    let epochs = "epochs = 30\nbatch_size = 25\nvalidations_per_epoch = 1\nselect = \"logloss\"";
    lab.configure("epochs = 2\nbatch_size = 64", epochs);
    lab.run(&["train", "config.toml", "--out", "whole", "--threads", "2"]).success();
    lab
}

fn start(lab: &Lab, arguments: &[&str]) -> Child {
    lab.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", child.id())).status();
    assert!(sent.unwrap().success());
}

/// Until the program has said that it is ready, and listens.
fn until_ready(child: &mut Child) -> BufReader<ChildStderr> {
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("rows: ") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the run ended before it began");
    }
    stderr
}

/// Waits for a file, for as long as the program runs.
fn until(path: &Path, child: &mut Child) {
    let begin = Instant::now();
    while !path.exists() && child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(120), "{} does not appear", path.display());
        std::hint::spin_loop();
    }
}

/// Numbers in 0 .. 1, the same in each run of the test.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }
}

#[test]
fn a_run_killed_at_twenty_moments_equals_an_uninterrupted_one() {
    let lab = job();
    let begin = Instant::now();
    lab.run(&["train", "config.toml", "--out", "whole_again"]).success();
    let time = begin.elapsed();
    lab.assert_same_run("whole_again", "whole");
    let (mut random, mut kills, mut finished) = (Random(1), 0, 0);
    let out = |number: usize| format!("run{number}");
    while kills < 20 {
        let mut child = start(&lab, &["train", "config.toml", "--out", &out(finished), "--resume"]);
        std::thread::sleep(time.mul_f64(random.next() / 2.0));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // It was faster than the hand that held the knife: the next one begins anew.
            lab.assert_same_run(&out(finished), "whole");
            finished += 1;
        } else {
            kills += 1;
        }
    }
    lab.run(&["train", "config.toml", "--out", &out(finished), "--resume"]).success();
    lab.assert_same_run(&out(finished), "whole");
}

#[test]
fn a_run_killed_while_it_writes_a_file_is_resumed() {
    let lab = job();
    let files =
        ["config.toml", "vocab/schema.json", "model.safetensors", "checkpoint.safetensors", "metrics.json"];
    for (number, file) in files.into_iter().enumerate() {
        let out = format!("run{number}");
        let arguments = ["train", "config.toml", "--out", &out, "--resume"];
        let mut child = start(&lab, &arguments);
        if file == "checkpoint.safetensors" {
            // There should be one to lose.
            until(&lab.path(&out).join(file), &mut child);
        }
        until(&lab.path(&out).join(format!("{file}.tmp")), &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        lab.run(&arguments).success();
        lab.assert_same_run(&out, "whole");
    }
}

/// What a kill in the window between two writes leaves, made by hand, as no hand hits it surely.
#[test]
fn a_run_killed_between_two_writes_is_resumed() {
    let lab = job();
    lab.hold("killed");
    let mut child = start(&lab, &["train", "config.toml", "--out", "killed"]);
    until(&lab.path("killed/checkpoint.safetensors"), &mut child);
    child.kill().unwrap();
    assert!(child.wait().unwrap().code().is_none(), "the run ended by itself");
    lab.release("killed");

    let copy = |from: &str, to: &str| {
        let copied = Command::new("cp").arg("-r").args([lab.path(from), lab.path(to)]).status();
        assert!(copied.unwrap().success());
    };
    let leave = |file: &str| std::fs::remove_file(lab.path(file)).unwrap();
    let resumed = |run: &str| {
        lab.run(&["train", "config.toml", "--out", run, "--resume"]).success();
        lab.assert_same_run(run, "whole");
    };
    copy("killed", "torn");
    for file in ["config.toml", "model.safetensors", "checkpoint.safetensors"] {
        lab.write(&format!("torn/{file}.tmp"), "half of a fi");
    }
    // That of the configuration stays where its file need not be written again.
    leave("torn/config.toml.tmp");
    resumed("torn");
    // The model of a later validation than the checkpoint's.
    copy("killed", "newer");
    copy("whole/model.safetensors", "newer/model.safetensors");
    resumed("newer");
    // After the last checkpoint: before the metrics, and before the report.
    copy("whole", "unscored");
    leave("unscored/metrics.json");
    leave("unscored/report.html");
    resumed("unscored");
    copy("whole", "unreported");
    leave("unreported/report.html");
    resumed("unreported");
}

#[test]
fn ctrl_c_and_sigterm_leave_a_checkpoint_and_the_command_that_goes_on() {
    let lab = Lab::new();
    // Many steps between two validations, so that most stops are between two of those.
    lab.write("train.csv", csv(6000, 3));
    let epochs = "epochs = 3\nbatch_size = 8\nvalidations_per_epoch = 1";
    lab.configure("epochs = 2\nbatch_size = 64", epochs);
    lab.run(&["train", "config.toml", "--out", "whole"]).success();
    let program = Path::new(env!("CARGO_BIN_EXE_manygate")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut random = Random(2);
    let mut command = "manygate train config.toml --threads 1 --seed 1 --out 'it'\\''s a run'".to_owned();
    let (mut within_an_epoch, mut stops) = (0, 0);
    for (signal, code) in [("INT", 130), ("TERM", 143)].into_iter().cycle() {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec {command}")).env("PATH", &path).current_dir(lab.path("."));
        let mut child = shell.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = until_ready(&mut child);
        std::thread::sleep(Duration::from_secs_f64(random.next() * 0.02));
        send(signal, &child);
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(status.code(), Some(code), "{said}");
        let (before, after) = said.split_once("interrupted after step ").expect(&said);
        assert!(!before.contains("error"), "{said}");
        let step: u64 = after.lines().next().unwrap().parse().unwrap();
        within_an_epoch += u64::from(!step.is_multiple_of(600));
        assert!(after.contains("go on from the last checkpoint with:"), "{said}");
        command = after.lines().last().unwrap().trim().to_owned();
        assert_eq!(
            command,
            "manygate train config.toml --threads 1 --seed 1 --out 'it'\\''s a run' --resume"
        );
        assert!(
            String::from_utf8(lab.read("it's a run/train.log")).unwrap().contains("stopped: interrupted")
        );
        stops += 1;
    }
    assert!(stops > 0 && within_an_epoch > 0, "{within_an_epoch} of {stops} stops were within an epoch");
    lab.assert_same_run("it's a run", "whole");
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let lab = job();
    // A checkpoint that nobody reads: the run cannot get past it, and so cannot end after one signal alone.
    lab.pipe("run/checkpoint.safetensors.tmp");
    let mut child = start(&lab, &["train", "config.toml", "--out", "run"]);
    let mut stderr = until_ready(&mut child);
    send("INT", &child);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(child.try_wait().unwrap(), None, "one signal ended the run before it had saved anything");
    // Signals that arrive together may count as one; a later one is the second.
    let begin = Instant::now();
    let status = loop {
        assert!(begin.elapsed() < Duration::from_secs(120), "the run goes on after its second signal");
        send("TERM", &child);
        std::thread::sleep(Duration::from_millis(5));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
    };
    assert!(matches!(status.code(), Some(130 | 143)), "{status}");
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert!(!said.contains("interrupted"), "{said}");
    std::fs::remove_file(lab.path("run/checkpoint.safetensors.tmp")).unwrap();
    lab.run(&["train", "config.toml", "--out", "run", "--resume"]).success();
    lab.assert_same_run("run", "whole");
}

#[test]
fn repeat_leaves_no_temporary_folder_when_interrupted() {
    let lab = job();
    let temporary = lab.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = lab.command(&["repeat", "config.toml", "--seeds", "1,2,3"]);
    command.env("TMPDIR", &temporary).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while entries(&temporary).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the command ended before it began");
    }
    send("INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(entries(&temporary).is_empty(), "{:?}", entries(&temporary));
}

/// Where there is nothing to save yet, or ever, a signal ends the program at once.
#[test]
fn a_program_that_reads_ends_at_the_first_signal() {
    let lab = Lab::trained();
    // A pipe that nobody writes to: the program waits for its first row.
    lab.pipe("pipe.csv");
    lab.configure("train = [\"train.csv\"]", "train = [\"pipe.csv\"]");
    lab.write("out.csv", "predictions of yesterday");
    let commands: [&[&str]; 3] = [
        &["train", "config.toml", "--out", "unread"],
        &["eval", "run", "--data", "pipe.csv"],
        &["predict", "run", "--data", "pipe.csv", "--out", "out.csv"],
    ];
    for arguments in commands {
        let mut child = start(&lab, arguments);
        std::thread::sleep(Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none(), "{arguments:?} ended by itself");
        // A test that runs in the background of a shell has SIGINT ignored, and so has its child.
        send("TERM", &child);
        assert_eq!(child.wait().unwrap().signal(), Some(15), "{arguments:?}");
    }
    assert!(!lab.path("unread").exists());
    assert_eq!(lab.read("out.csv"), b"predictions of yesterday");
}
