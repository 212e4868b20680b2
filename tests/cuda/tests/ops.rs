//! Every op that has launches, on a device: the column of the op matrix for it.

use manygate_cuda::Precision;
use manygate_cuda::embedding::DeviceTable;
use manygate_cuda_tests::Gpu;
use manygate_graph::check::{Case, CheckedOnDevice, DeviceRunner, check_on_device};
use manygate_graph::device::{BatchLayout, Capacity, DeviceMemory, OnDevice, kernels_by_op};
use manygate_graph::{Input, Plan, TableSpec, ops};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;

#[test]
fn every_op_with_launches() {
    check_every_op(Precision::F32);
}

#[test]
fn every_op_with_launches_in_bf16() {
    check_every_op(Precision::Bf16);
}

fn check_every_op(precision: Precision) {
    let mut by_op: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for case in ops::cases() {
        let op = case.op_name().expect("a case that can be declared");
        by_op.entry(op.to_owned()).or_default().push(case);
    }
    let (mut ran, mut wrong) = (BTreeSet::new(), Vec::new());
    for (op, case, checked) in check_all(by_op, precision) {
        match checked {
            Ok(CheckedOnDevice::Right(runs)) => {
                println!("ok {case} ({runs} runs)");
                ran.insert(op);
            }
            Ok(CheckedOnDevice::NoLaunches) => println!("no launches: {case}"),
            Err(message) => wrong.push(message),
        }
    }
    assert!(wrong.is_empty(), "{} of the cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    let known = kernels_by_op().into_iter().filter(|(_, runs)| *runs != OnDevice::No);
    let known: BTreeSet<String> = known.map(|(op, _)| op.to_owned()).collect();
    assert_eq!(ran, known, "ops that ran, and those that have launches");
}

/// Every case by the name of its op, each op on a device of its own, as many at a time as there are cores.
fn check_all(
    by_op: BTreeMap<String, Vec<Case>>,
    precision: Precision,
) -> Vec<(String, String, Result<CheckedOnDevice, String>)> {
    let (left, found) = (Mutex::new(by_op.into_iter()), Mutex::new(Vec::new()));
    let next = || left.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((op, cases)) = next() {
                    let mut device = Runner { gpu: Gpu::new() };
                    for case in &cases {
                        let checked = check_on_device(case, precision, &mut device);
                        found.lock().unwrap().push((op.clone(), case.name().to_owned(), checked));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    found
}

/// Plans on a device of the tests, without recording.
struct Runner {
    gpu: Gpu,
}

impl DeviceRunner for Runner {
    fn run(
        &mut self,
        plan: &Plan,
        input: &Input<'_>,
        capacity: &Capacity,
        precision: Precision,
    ) -> Result<DeviceMemory, String> {
        let Runner { gpu } = self;
        gpu.free_all();
        let memory = memory(gpu, plan, input, capacity)?;
        let mut upload = |bytes: &[u8]| Ok(gpu.upload(bytes));
        let recording = plan.record(&memory, capacity, precision, &mut upload).map_err(|e| e.to_string())?;
        for launch in &recording.launches {
            gpu.try_launch(launch).map_err(|fault| format!("{}: {fault}", launch.kernel))?;
        }
        Ok(memory)
    }

    fn read(&mut self, address: u64, count: usize) -> Vec<u8> {
        self.gpu.download(address, count)
    }
}

/// Memory for a run: what nothing writes is not initialised.
fn memory(
    gpu: &mut Gpu,
    plan: &Plan,
    input: &Input<'_>,
    capacity: &Capacity,
) -> Result<DeviceMemory, String> {
    let layout = BatchLayout::new(plan, capacity);
    let mut block = vec![0; layout.bytes() as usize];
    layout.fill(plan, input.batch, input.seeds, input.draws, &mut block).map_err(|e| e.to_string())?;
    let table = |(t, spec): (usize, &TableSpec)| {
        let rows = input.tables.rows(t);
        let stride = spec.dim.next_multiple_of(4);
        let mut values = vec![0.0; spec.rows * stride];
        for (row, to) in values.chunks_exact_mut(stride).enumerate() {
            to[..spec.dim].copy_from_slice(rows.row(row as u32));
        }
        (values, spec.rows as u32, spec.dim as u32, stride as u32)
    };
    let tables: Vec<_> = plan.tables().iter().enumerate().map(table).collect();
    let losses = plan.device_loss_begins().last().map_or(0, |&sums| sums as usize);
    Ok(DeviceMemory {
        params: gpu.upload(&input.params.values),
        gradients: gpu.upload(&vec![0.0f32; input.params.values.len()]),
        state: gpu.upload(&input.state.values),
        arena: gpu.allocate::<f32>(plan.device_arena_len()),
        once: [0.0f32; 2].map(|zero| gpu.upload(&vec![zero; plan.device_once_len()])),
        kept: plan.device_kept_len(capacity).into_iter().map(|len| gpu.allocate::<f32>(len)).collect(),
        scratch: gpu.allocate::<u8>(plan.device_scratch(capacity) as usize),
        halves: gpu.allocate::<u16>(plan.device_halves_len()),
        losses: gpu.upload(&vec![0.0f64; losses]),
        tables: tables
            .into_iter()
            .map(|(values, rows, dim, stride)| DeviceTable {
                address: gpu.upload(&values),
                rows,
                dim,
                stride,
            })
            .collect(),
        batch: layout.at(gpu.upload(&block)),
    })
}
