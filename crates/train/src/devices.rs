//! What this machine and this program have to train on.

use crate::workload;
use manygate_core::Result;
use manygate_graph::device::{OnDevice, kernels_by_op};
use manygate_graph::{Mode, Plan, PlanOptions};
use manygate_kernels::Isa;
use manygate_models::{Entry, MODELS};
use serde::Serialize;

/// Result of [`devices`]; the JSON of `manygate devices --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Devices {
    /// Version of this form.
    pub version: u32,
    /// The CPU.
    pub cpu: Cpu,
    /// CUDA devices.
    pub cuda: Cuda,
    /// Ops without a CUDA kernel.
    pub ops_without_cuda_kernel: Vec<&'static str>,
    /// Ops of which some forms alone have one: not by scenario, say.
    pub ops_in_part: Vec<&'static str>,
    /// By architecture, with its default keys: what keeps it from a CUDA device, or nothing.
    pub models: Vec<ModelOnCuda>,
}

/// The CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    /// Instruction set.
    pub isa: String,
    /// Cores that this process may use.
    pub cores: usize,
}

/// CUDA devices.
#[derive(Clone, Debug, Serialize)]
pub struct Cuda {
    /// The devices, each in words.
    pub devices: Vec<String>,
    /// Why there are none to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}

/// Whether an architecture trains on a CUDA device.
#[derive(Clone, Debug, Serialize)]
pub struct ModelOnCuda {
    /// Name of the architecture.
    pub name: &'static str,
    /// What it lacks; nothing where it trains there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
}

/// What there is to train on.
///
/// # Errors
/// When a model cannot be built.
pub fn devices() -> Result<Devices> {
    let by_op = kernels_by_op();
    let ops = |wanted| by_op.iter().filter(|(_, runs)| **runs == wanted).map(|(op, _)| *op).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Devices {
        version: 1,
        cpu: Cpu { isa: Isa::best().to_string(), cores },
        cuda: cuda(),
        ops_without_cuda_kernel: ops(OnDevice::No),
        ops_in_part: ops(OnDevice::InPart),
        models: MODELS.iter().map(on_cuda).collect::<Result<_>>()?,
    })
}

#[cfg(feature = "cuda")]
fn cuda() -> Cuda {
    match manygate_cuda::device::Device::list() {
        Ok(devices) => Cuda {
            unavailable: devices.is_empty().then(|| "the driver finds no CUDA device".to_owned()),
            devices: devices.iter().map(ToString::to_string).collect(),
        },
        Err(why) => Cuda { devices: Vec::new(), unavailable: Some(why.to_string()) },
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Cuda {
    Cuda { devices: Vec::new(), unavailable: Some(crate::steps::BUILT_WITHOUT_CUDA.to_owned()) }
}

fn on_cuda(entry: &Entry) -> Result<ModelOnCuda> {
    let name = entry.name;
    let table = toml::Table::from_iter([("name".to_owned(), toml::Value::from(name))]);
    let (_, architecture) = manygate_models::from_table(&table)?;
    // Some predict two tasks, or one.
    let build = |mode: Mode, tasks: usize| {
        let mut inputs = workload::inputs(3, 0);
        inputs.tasks.truncate(tasks);
        manygate_models::build(architecture.as_ref(), &inputs, mode)
    };
    let mut lacks = None;
    // A run validates where it trains.
    for mode in [Mode::Training, Mode::Evaluation] {
        let graph = build(mode, 3).or_else(|_| build(mode, 2)).or_else(|_| build(mode, 1))?;
        let missing: Vec<&str> = graph.without_device_kernel().into_keys().collect();
        let plan = Plan::compile(graph, PlanOptions::default())?;
        let lacks_here = match plan.check_device() {
            Ok(()) => None,
            Err(_) if !missing.is_empty() => Some(format!("kernels of {}", missing.join(", "))),
            Err(error) => Some(error.to_string()),
        };
        lacks = lacks.or(lacks_here);
    }
    Ok(ModelOnCuda { name, lacks })
}
