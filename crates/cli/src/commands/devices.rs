//! `manygate devices`.

use crate::args::Devices;
use crate::output;
use manygate_core::Result;
use manygate_train::devices::{self, devices};

pub(crate) fn run(args: &Devices) -> Result<()> {
    let found = devices()?;
    if args.json { output::json(&found) } else { output::result(&text(&found)) }
}

fn text(found: &devices::Devices) -> String {
    let cuda = match &found.cuda.unavailable {
        Some(why) => format!("none: {why}"),
        None => found.cuda.devices.join("\n      "),
    };
    let width = found.models.iter().map(|model| model.name.len()).max().unwrap_or(0);
    let models = found.models.iter().map(|model| {
        let state =
            model.lacks.as_ref().map_or_else(|| "trains".to_owned(), |lacks| format!("lacks {lacks}"));
        format!("  {:width$}  {state}\n", model.name)
    });
    let lists = [
        ("ops without a CUDA kernel", &found.ops_without_cuda_kernel),
        ("ops of which some forms have one", &found.ops_in_part),
    ];
    let lists = lists.into_iter().filter(|(_, ops)| !ops.is_empty());
    let lists: Vec<_> = lists.map(|(title, ops)| format!("\n{title}: {}", ops.join(", "))).collect();
    format!(
        "cpu   {}, {} cores\ncuda  {cuda}\n\nmodels on cuda\n{}{}",
        found.cpu.isa,
        found.cpu.cores,
        models.collect::<String>(),
        lists.concat()
    )
}
