//! Tests of reports: the figures in tables, and pages and charts that hold together whatever the run was.

use super::terminal::{Look, task_scenario_table};
use super::*;
use crate::metrics::{ALL, Errors, Judged, Metrics, Ranked, Slices, evaluate, log_loss};
use manygate_features::TaskKind;

fn table(look: Look) -> String {
    let data = sample::run();
    task_scenario_table("Test", data.test.as_ref().unwrap(), data.floors.as_ref(), look)
}

fn one_task(auc: f64) -> Evaluation {
    let metrics = Metrics {
        auc: Some(auc),
        logloss: Some(0.5),
        gauc: None,
        pcoc: Some(1.034),
        rows: 100,
        positives: 40,
        ..Metrics::default()
    };
    let undefined = Metrics { auc: None, logloss: None, pcoc: None, rows: 0, positives: 0, ..metrics };
    let slices = [(ALL.to_owned(), metrics), ("tab=1".to_owned(), undefined)].into_iter().collect();
    Evaluation { tasks: [("click".to_owned(), slices)].into_iter().collect() }
}

#[test]
fn a_plain_table_is_ascii_and_fits_120_columns() {
    let text = table(Look::Plain);
    assert!(text.is_ascii());
    assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let header =
        ["task", "scenario", "rows", "pos.", "AUC", "LR", "GBDT", "GAUC", "logloss", "constant", "PCOC"];
    assert_eq!(lines[2], header);
    assert_eq!(lines[4][..3], ["is_click", "all", "12614"]);
    assert_eq!(lines[5][0], "tab=1", "a task is named once");
    assert!(
        text.contains("AUC against LR: won ") && text.contains("log loss against the constant"),
        "{text}"
    );
}

#[test]
fn a_terminal_table_has_marks_and_colours() {
    let text = table(Look::Terminal);
    assert!(text.contains('✓') && text.contains('✗') && text.contains("\u{1b}["));
    assert!(!text.contains("won  ") && !text.contains("lost"));
}

#[test]
fn floors_are_won_lost_or_even_by_the_figures_shown() {
    let floors: Floors = serde_json::from_str(
        r#"{"A": {"click": {"all": 0.7}}, "B": {"click": {"all": 0.72004}}, "C": {"click": {"all": 0.75, "tab=1": 0.6}},
            "D": {"other": {"all": 0.5}}}"#,
    )
    .unwrap();
    let rates = [("click".to_owned(), 0.4)].into_iter().collect();
    let evaluation = one_task(0.72);
    let constants = Constants::of(&rates, &evaluation);
    let part = Part { evaluation, constants, auxiliary: vec![] };
    let text = task_scenario_table("T", &part, Some(&floors), Look::Plain);
    assert!(text.contains(".7000 +.0200 won"), "{text}");
    assert!(text.contains(".7200 +.0000 even"), "{text}");
    assert!(text.contains(".7500 -.0300 lost"), "{text}");
    assert!(text.contains(".6730 won"), "the entropy of 0.4: {text}");
    assert!(text.contains("AUC against B: won 0 of 1, even on 1") && !text.contains("against D"), "{text}");
    assert!(!text.contains("GAUC"), "no users, no column: {text}");
    let undefined = text.lines().find(|line| line.contains("tab=1")).unwrap();
    assert_eq!(
        undefined.split_whitespace().collect::<Vec<_>>()[3..],
        ["-", "-", "-", ".6000", "-", "-", "-", "-"]
    );
}

#[test]
fn constants_are_losses_of_the_training_mean() {
    let labels = [1.0, 0.0, 0.0, 1.0, 0.0];
    let names = ["x".to_owned(), "y".to_owned(), "z".to_owned()];
    let slices = Slices { scenario: &[0, 0, 1, 1, 1], names: &names, column: "s", users: None };
    let kind = TaskKind::Binary;
    let t = Judged { task: "t", kind, predictions: &[0.3; 5], labels: &labels, counted: None, before: None };
    let amounts = [3.0, 1.0, 4.0, 1.0, 5.0];
    let n = Judged { task: "n", kind: TaskKind::Regression, labels: &amounts, ..t };
    let made = evaluate(&[t, n], &slices).unwrap();
    let means =
        [("t", 0.3), ("u", 0.1), ("n", 2.0)].map(|(t, mean)| (t.to_owned(), mean)).into_iter().collect();
    let constants = Constants::of(&means, &made);
    let of =
        |labels: &[f32]| log_loss(&Ranked::new(&vec![0.3; labels.len()], labels, None).unwrap()).unwrap();
    assert!((constants.get("t", ALL).unwrap() - of(&labels)).abs() < 1e-7);
    assert!((constants.get("t", "s=y").unwrap() - of(&labels[2..])).abs() < 1e-7);
    assert_eq!((constants.get("t", "s=z"), constants.get("u", ALL)), (None, None), "no rows, no task");
    // (1 + 1 + 4 + 1 + 9) / 5, and the first two rows alone.
    assert!((constants.get("n", ALL).unwrap() - 3.2f64.sqrt()).abs() < 1e-12);
    assert!((constants.get("n", "s=x").unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(constants.get("n", "s=z"), None);
}

#[test]
fn floors_are_read_from_toml_and_json_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let toml = write("floors.toml", "[Z.click]\nall = 0.7\n\"tab=1\" = 1\n[A.click]\nall = 0.6\n");
    let floors = Floors::load(toml).unwrap();
    assert_eq!(floors.names().collect::<Vec<_>>(), ["Z", "A"]);
    assert_eq!(floors.get("Z", "click", "tab=1"), Some(1.0));
    assert_eq!(floors.get("A", "click", "tab=1"), None);
    let json = write("floors.json", &serde_json::to_string(&floors).unwrap());
    assert_eq!(Floors::load(json).unwrap(), floors);

    let refused = |name: &str, text: &str| Floors::load(write(name, text)).unwrap_err().to_string();
    assert!(refused("a.toml", "[LR.click]\nall = 71.97").contains("the AUC of LR for click, all, is 71.97"));
    assert!(refused("b.toml", "LR = 0.7").contains("b.toml") && refused("c.json", "[1]").contains("c.json"));
    assert!(matches!(Floors::load(folder.path().join("none.toml")), Err(manygate_core::Error::Io { .. })));
}

#[test]
fn the_floors_of_the_quick_start_data_are_complete() {
    let floors =
        Floors::load(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/quickstart/floors.toml")).unwrap();
    assert_eq!(floors.names().collect::<Vec<_>>(), ["LR", "GBDT"]);
    assert_eq!(floors.get("LR", "is_click", "tab=6"), Some(0.7880));
    assert_eq!(floors.get("GBDT", "is_profile_enter", "tab=1"), Some(0.6459));
    assert_eq!(floors.get("LR", "is_like", "tab=0"), None);
}

/// Runs that strain the layout: the sample, nine tasks of long names over thirty scenarios with undefined metrics,
/// a run that diverged, and nothing at all.
fn runs() -> Vec<ReportData> {
    let mut many = sample::run();
    many.tasks = (0..9).map(|t| format!("a_task_of_a_long_name_{t}")).collect();
    let of_nine = |evaluation: &Evaluation, scenarios: usize| {
        let base: Vec<Metrics> = evaluation.tasks.iter().map(|(_, s)| *s.get(ALL).unwrap()).collect();
        let slice = |t: usize, s: usize| {
            let mut m = base[t % 4];
            (m.auc, m.rows) = (m.auc.filter(|_| s != 7).map(|a| a - 0.01 * s as f64), m.rows + s);
            m.pcoc = [Some(1.0), Some(0.0), Some(200.0), None][s % 4];
            (if s == 0 { ALL.to_owned() } else { format!("surface_of_the_app={s}") }, m)
        };
        let task = |t: usize| (many.tasks[t].clone(), (0..=scenarios).map(|s| slice(t, s)).collect());
        Evaluation { tasks: (0..9).map(task).collect() }
    };
    let test = of_nine(&many.test.as_ref().unwrap().evaluation, 30);
    let validation: Vec<Evaluation> = many.validation.iter().map(|p| of_nine(&p.evaluation, 0)).collect();
    many.test.as_mut().unwrap().evaluation = test;
    for (point, evaluation) in many.validation.iter_mut().zip(validation) {
        (point.step, point.evaluation) = (point.step * 10_000, evaluation);
    }
    many.chosen_step = Some(1_500_000);

    let mut diverged = sample::run();
    for point in &mut diverged.training[5..] {
        point.loss = vec![f64::INFINITY, f64::NAN, 1e300, -1.0];
    }
    diverged.chosen_step = Some(0);
    let nothing = ReportData { title: "<nothing>".into(), tasks: vec!["a".into()], ..ReportData::default() };
    vec![sample::run(), many, diverged, numbers(), only_numbers(), nothing]
}

/// The sample with one task that counts and one that is not served.
fn numbers() -> ReportData {
    let mut data = sample::run();
    let counts = |metrics: &Metrics| {
        let known = metrics.rows > 0;
        let value = |v: f64| known.then_some(v);
        let errors = Errors {
            rmse: value(1234.5),
            mae: value(0.7),
            nmae: value(1.25),
            loss: value(-0.3),
            deviance: value(0.9),
            label_mean: value(0.4),
            label_deviation: value(1.5),
        };
        Metrics { auc: None, logloss: None, gauc: None, errors: Some(errors), ..*metrics }
    };
    let changed = |evaluation: &Evaluation| {
        let tasks = evaluation.tasks.iter().map(|(task, slices)| {
            let of = |m: &Metrics| if task == "is_like" { counts(m) } else { *m };
            (task.to_owned(), slices.iter().map(|(slice, m)| (slice.to_owned(), of(m))).collect())
        });
        Evaluation { tasks: tasks.collect() }
    };
    let means = [("is_like".to_owned(), 0.5), ("is_click".to_owned(), 0.4)].into_iter().collect();
    for part in [&mut data.test, &mut data.valid].into_iter().flatten() {
        part.evaluation = changed(&part.evaluation);
        part.constants = Constants::of(&means, &part.evaluation);
        part.auxiliary = vec!["long_view".to_owned()];
    }
    data.validation.iter_mut().for_each(|point| point.evaluation = changed(&point.evaluation));
    data.reliability = data
        .reliability
        .iter()
        .filter(|(t, _)| *t != "is_like")
        .map(|(t, b)| (t.to_owned(), b.clone()))
        .collect();
    data
}

/// The counts of [`numbers`] alone.
fn only_numbers() -> ReportData {
    let mut data = numbers();
    let only = |evaluation: &Evaluation| {
        let tasks = evaluation.tasks.iter().filter(|(task, _)| *task == "is_like");
        Evaluation { tasks: tasks.map(|(task, slices)| (task.to_owned(), slices.clone())).collect() }
    };
    data.tasks = vec!["is_like".to_owned()];
    for part in [&mut data.test, &mut data.valid].into_iter().flatten() {
        part.evaluation = only(&part.evaluation);
    }
    data.validation.iter_mut().for_each(|point| point.evaluation = only(&point.evaluation));
    data.reliability = Ordered::default();
    data
}

#[test]
fn numbers_have_a_table_of_their_own_and_no_chart_of_probabilities() {
    let data = numbers();
    let text = task_scenario_table("Test", data.test.as_ref().unwrap(), data.floors.as_ref(), Look::Plain);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let header = ["task", "scenario", "rows", "mean", "RMSE", "constant", "MAE", "NMAE", "deviance", "PCOC"];
    let at = lines.iter().position(|line| *line == header).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(lines[at + 2][..5], ["is_like", "all", "12614", ".4000", "1234.5000"]);
    assert_eq!(lines[at + 2][6..], ["lost", ".7000", "1.2500", ".9000", lines[at + 2][10]]);
    assert!(text.contains("long_view (auxiliary)"), "{text}");
    assert!(text.contains("RMSE against the constant training mean: won 0 of 6"), "{text}");
    let page = html::report(&data);
    assert!(page.contains("mean label") && page.contains("long_view (auxiliary)"));
    assert!(!page.contains("Test AUC of is_like") && page.contains("Calibration of is_like"));
    let page = html::report(&only_numbers());
    assert!(
        !page.contains("Validation AUC") && !page.contains("AUC by task") && page.contains("Loss of is_like")
    );
}

#[test]
fn a_page_loads_nothing_and_is_whole() {
    for data in runs() {
        let page = html::report(&data);
        let bare = page.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http", "<script", "src=", "href=", "url(", "@import", "NaN", "inf\""] {
            assert!(!bare.contains(foreign), "{foreign} in the report of {}", data.title);
        }
        for tag in ["svg", "figure", "table", "tr", "td", "div", "dl", "p", "ul", "main", "html"] {
            let opened =
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert_eq!(page, html::report(&data));
        assert!(!page.contains("<nothing>"));
        let json = serde_json::to_string(&data).unwrap();
        if !json.contains("null") {
            assert_eq!(serde_json::from_str::<ReportData>(&json).unwrap(), data);
        }
    }
}

fn all_charts(data: &ReportData) -> Vec<String> {
    let mut all = vec![charts::learning_curve(data), charts::auc_curve(data)];
    for (t, task) in data.tasks.iter().enumerate() {
        all.extend([
            charts::loss_curve(data, t),
            charts::auc_bars(data, task),
            charts::pcoc_bars(data, task),
        ]);
    }
    all.extend(data.reliability.iter().map(|(task, bins)| charts::reliability_plot(task, bins)));
    all.push(charts::loss_curve(data, 99));
    all.push(charts::auc_bars(data, "no such task"));
    all.push(charts::reliability_plot("none", &[]));
    all
}

/// A text of a chart: its words, and left, right, top, bottom of an estimate that errs on the small side.
fn texts(svg: &str) -> Vec<(String, [f64; 4])> {
    let attribute = |element: &str, name: &str| {
        let value = element.split_once(&format!(" {name}=\"")).unwrap().1;
        value.split_once('"').unwrap().0.to_owned()
    };
    let text = |element: &str| {
        let number = |name: &str| attribute(element, name).parse::<f64>().unwrap();
        let words = element.split_once('>').unwrap().1.split_once('<').unwrap().0.trim().to_owned();
        let (x, y, size) = (number("x"), number("y"), number("font-size"));
        let width = 0.5 * size * words.chars().count() as f64;
        let left = match attribute(element, "text-anchor").as_str() {
            "start" => x,
            "middle" => x - width / 2.0,
            _ => x - width,
        };
        (words, [left, left + width, y - 0.4 * size, y + 0.4 * size])
    };
    svg.split("<text").skip(1).map(text).collect()
}

#[test]
fn no_two_labels_overlap_and_none_leaves_its_chart() {
    for data in runs() {
        for svg in all_charts(&data) {
            let size: Vec<f64> = svg
                .split_once("viewBox=\"0 0 ")
                .unwrap()
                .1
                .split_once('"')
                .unwrap()
                .0
                .split(' ')
                .map(|n| n.parse().unwrap())
                .collect();
            let texts = texts(&svg);
            for (i, (words, [left, right, top, bottom])) in texts.iter().enumerate() {
                let inside = *left >= 0.0 && *right <= size[0] && *top >= 0.0 && *bottom <= size[1];
                assert!(inside, "`{words}` leaves its chart in {}", data.title);
                for (other, [l, r, t, b]) in &texts[..i] {
                    let apart = left >= r || l >= right || top >= b || t >= bottom;
                    assert!(apart, "`{words}` lies on `{other}` in {}", data.title);
                }
            }
        }
    }
}

#[test]
fn charts_say_so_when_nothing_was_recorded() {
    let nothing = runs().pop().unwrap();
    assert!(all_charts(&nothing).iter().filter(|svg| svg.contains("nothing was recorded")).count() >= 5);
}

#[test]
fn a_task_that_is_chosen_by_itself_shows_its_own_step() {
    let mut data = sample::run();
    data.chosen_step = None;
    data.chosen_by_task = [(data.tasks[1].clone(), 75)].into_iter().collect();
    assert!(charts::loss_curve(&data, 1).contains("chosen: step 75"));
    assert!(!charts::loss_curve(&data, 0).contains("chosen: step"));
    assert!(!charts::auc_curve(&data).contains("chosen: step"));
}
