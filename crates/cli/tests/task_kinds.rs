//! Tasks that are not all alike: what a run with probabilities, numbers and rates, a helper that is not served, an order
//! of events and weights of scenarios trains, prints and leaves behind.

mod support;

use serde_json::Value;
use support::{CONFIG, Lab, SECOND_TASK, csv};

/// The tasks of [`mixed`] but the first.
const TASKS: &str = r#"
[[tasks]]
name = "buy"
after = "click"
role = "auxiliary"

[[tasks]]
name = "watch"
kind = "regression"
weight = 0.5
scenario_weights = { 1 = 3.0 }

[[tasks]]
name = "plays"
kind = "poisson"
"#;

/// Adds two labels that follow from the others to rows of [`csv`]: minutes watched, and how often.
fn with_numbers(rows: &str) -> String {
    let mut text = String::new();
    for (number, line) in rows.lines().enumerate() {
        let cells: Vec<&str> = line.split(',').collect();
        let added = match number {
            0 => "watch,plays".to_owned(),
            _ => {
                let (price, click): (f64, f64) = (cells[4].parse().unwrap(), cells[5].parse().unwrap());
                let plays = (2.0 * click + price / 40.0).floor();
                format!("{:.3},{plays}", price / 25.0 - 1.5 + click)
            }
        };
        text += &format!("{line},{added}\n");
    }
    text
}

/// A folder whose configuration trains a click, a purchase that only helps, minutes and plays.
fn mixed() -> Lab {
    let lab = Lab::new();
    lab.write("train.csv", with_numbers(&csv(400, 1)));
    lab.write("test.csv", with_numbers(&csv(150, 2)));
    lab.configure_all(&[
        (SECOND_TASK, TASKS),
        ("scenario = \"tab\"", "scenario = \"tab\"\nscenario_weights = { 0 = 0.5 }"),
        ("epochs = 2", "epochs = 30"),
    ]);
    lab
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_run_of_every_kind_trains_scores_and_predicts() {
    let lab = mixed();
    let run = lab.run(&["train", "config.toml", "--out", "run"]).success();
    for word in ["buy (auxiliary)", "RMSE", "NMAE", "deviance", "RMSE against the constant training mean"] {
        assert!(run.stdout.contains(word), "{word}: {}", run.stdout);
    }
    assert!(run.stderr.contains(", RMSE watch "), "{}", run.stderr);
    assert!(run.stderr.contains(", mean loss "), "{}", run.stderr);
    assert!(run.stdout.lines().all(|line| line.chars().count() <= 120), "{}", run.stdout);

    let config = String::from_utf8(lab.read("run/config.toml")).unwrap();
    assert!(config.contains("select = \"loss\""), "the default for tasks of several kinds: {config}");
    assert!(config.contains("role = \"primary\""), "{config}");

    let metrics = lab.read_json("run/metrics.json");
    assert_eq!(metrics["auxiliary"], serde_json::json!(["buy"]));
    assert!(metrics.get("violations").is_none(), "a purchase follows a click in these rows");
    let of = |task: &str| &metrics["test"][task]["all"];
    for task in ["watch", "plays"] {
        let errors = &of(task)["errors"];
        let (rmse, deviation) = (number(&errors["rmse"]), number(&errors["label_deviation"]));
        assert!(rmse < 0.8 * deviation, "{task} was learnt: {rmse} beside {deviation}");
        assert_eq!((&of(task)["auc"], &of(task)["logloss"]), (&Value::Null, &Value::Null));
        assert_eq!(metrics["test"][task].as_object().unwrap().len(), 3, "all rows and two scenarios");
    }
    assert!(number(&of("plays")["errors"]["deviance"]) > 0.0 && number(&of("plays")["pcoc"]) > 0.0);
    assert_eq!((&of("watch")["pcoc"], &of("watch")["errors"]["deviance"]), (&Value::Null, &Value::Null));
    assert!(number(&of("click")["auc"]) > 0.6 && of("click").get("errors").is_none());
    assert!(number(&of("buy")["above_earlier"]) <= 1.0);

    let page = String::from_utf8(lab.read("run/report.html")).unwrap();
    assert!(page.contains("buy (auxiliary)") && page.contains("Loss of watch"));
    assert!(!page.contains("Reliability of watch") && page.contains("Reliability of click"));

    // What is not served is predicted nowhere; it is scored where there are labels.
    lab.run(&["predict", "run", "--data", "test.csv", "--out", "out.csv"]).success();
    let predicted = String::from_utf8(lab.read("out.csv")).unwrap();
    assert_eq!(predicted.lines().next(), Some("click,watch,plays"));
    let labels = with_numbers(&csv(150, 2));
    let column = |text: &str, at: usize| -> Vec<f64> {
        text.lines().skip(1).map(|line| line.split(',').nth(at).unwrap().parse().unwrap()).collect()
    };
    let squares = column(&predicted, 1).into_iter().zip(column(&labels, 7)).map(|(p, y)| (p - y).powi(2));
    let rmse = (squares.sum::<f64>() / 150.0).sqrt();
    assert!((rmse - number(&of("watch")["errors"]["rmse"])).abs() < 1e-5, "the column is the number itself");
    assert!(column(&predicted, 2).iter().all(|&rate| rate > 0.0));
    let scored = lab.run(&["eval", "run", "--json"]).success().json();
    assert_eq!(scored["data"], metrics["test"]);
}

#[test]
fn scenario_weights_change_what_is_learnt_and_a_common_factor_does_not() {
    let lab = mixed();
    let model = |name: &str, all: &str, own: &str| {
        let weights = format!("data.scenario_weights={{ {all} }}");
        let of_task = format!("tasks.2.scenario_weights={{ {own} }}");
        let arguments = [
            "train",
            "config.toml",
            "--out",
            name,
            "--set",
            "train.epochs=1",
            "--set",
            &weights,
            "--set",
            &of_task,
        ];
        lab.run(&arguments).success();
        lab.read(&format!("{name}/model.safetensors"))
    };
    let even = model("even", "0 = 1.0, 1 = 1.0", "1 = 1.0");
    let twice = model("twice", "0 = 2.0, 1 = 2.0", "1 = 1.0");
    assert!(even == twice, "a power of two cancels to the bit");
    assert!(model("uneven", "0 = 2.0", "1 = 1.0") != even);
    assert!(model("one_task", "0 = 1.0", "1 = 4.0") != even);
}

#[test]
fn rows_that_contradict_an_order_are_told() {
    let lab = mixed();
    let rows = with_numbers(&csv(400, 1));
    let without_click = |line: &&str| line.split(',').nth(5) == Some("0");
    let wrong: Vec<&str> = rows.lines().filter(without_click).take(2).collect();
    let first = 1 + rows.lines().position(|line| line == wrong[0]).unwrap();
    let bought = |line: &str| {
        let mut cells: Vec<&str> = line.split(',').collect();
        if wrong.contains(&line) {
            cells[6] = "1";
        }
        cells.join(",") + "\n"
    };
    let rows: String = rows.lines().map(bought).collect();
    lab.write("train.csv", rows);
    let run = lab.run(&["train", "config.toml", "--out", "run", "--set", "train.epochs=1"]).success();
    let told = format!("train.csv: 2 rows have `buy` without `click`, first on line {first}");
    assert!(run.stderr.contains(&told), "{told}: {}", run.stderr);
    let log = String::from_utf8(lab.read("run/train.log")).unwrap();
    assert!(log.contains(&told), "{log}");
    let violation = &lab.read_json("run/metrics.json")["violations"][0];
    let expected = serde_json::json!({
        "task": "buy", "after": "click", "file": "train.csv", "rows": 2, "first_line": first,
    });
    assert_eq!(violation, &expected);
    assert!(String::from_utf8(lab.read("run/report.html")).unwrap().contains("buy without click"));
}

#[test]
fn a_run_of_numbers_alone_is_chosen_by_its_loss_and_repeated() {
    let lab = mixed();
    let tasks = TASKS.split_once("[[tasks]]\nname = \"watch\"").unwrap().1;
    let tasks = format!("[[tasks]]\nname = \"watch\"{tasks}");
    let first = format!("[[tasks]]\nname = \"click\"\n{SECOND_TASK}");
    assert!(CONFIG.contains(&first));
    lab.configure_all(&[(&first, &tasks), ("[report]\nfloors = \"floors.toml\"\n", "")]);
    let run = lab.run(&["train", "config.toml", "--out", "run"]).success();
    assert!(!run.stdout.contains("AUC") && run.stdout.contains("RMSE"), "{}", run.stdout);
    let repeated = ["repeat", "config.toml", "--seeds", "1,2"];
    let table = lab.run(&repeated).success();
    assert!(table.stdout.contains("NMAE") && table.stderr.contains("RMSE watch"), "{}", table.stdout);
    let json = lab.run(&[&repeated[..], &["--json"]].concat()).success().json();
    let watch = &json["tasks"]["watch"];
    assert!(number(&watch["errors"]["rmse"]["mean"]) > 0.0 && watch["auc"]["mean"].is_null());
    lab.run(&[&repeated[..], &["--require", "watch=0.5"]].concat())
        .failure(2, &["--require", "`watch` is no binary task"]);
}
