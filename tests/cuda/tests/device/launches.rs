//! Launches that are refused, and kernels that fail.

use crate::kernels::{add, through_shared};
use manygate_cuda::device::{DeviceError, Version};
use manygate_cuda::{Arguments, FAMILIES, Family, Launch};
use manygate_cuda_tests::Gpu;

fn error_of(gpu: &Gpu, launch: &Launch) -> DeviceError {
    // SAFETY: it is refused, or runs on the stand-in, which checks addresses.
    let launched = unsafe { gpu.stream().launch(launch) };
    launched.and_then(|()| gpu.stream().synchronize()).unwrap_err()
}

#[test]
fn a_launch_without_blocks_does_nothing() {
    let mut gpu = Gpu::new();
    gpu.launch(&Launch { grid: [1, 0, 1], ..add(0, 0, 1) });
}

#[test]
fn arguments_must_be_those_of_the_kernel() {
    let gpu = Gpu::new();
    let two = Launch { arguments: Arguments::new().with_u64(0).with_u64(0), ..add(0, 0, 1) };
    let wrong_size = Launch { arguments: two.arguments.clone().with_u64(1), ..two.clone() };
    for launch in [two, wrong_size] {
        let error = error_of(&gpu, &launch);
        let wanted =
            "small/add: its parameters (offset, size) are [(0, 8), (8, 8), (16, 4)], the arguments [(0, 8)";
        assert!(error.to_string().starts_with(wanted), "{error}");
    }
}

#[test]
fn every_family_loads_with_all_its_kernels() {
    // The one that knows the instructions of all.
    let gpu = Gpu::of_capability((9, 0));
    let is_hopper = gpu.device().description().compute_capability == Version { major: 9, minor: 0 };
    for family in FAMILIES.iter().filter(|family| is_hopper || !family.name.ends_with("_hopper")) {
        gpu.device().load(family).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_kernel_that_is_not_there_is_told() {
    static LACKING: Family = Family { name: "lacking", ptx: SMALL_PTX, kernels: &["add", "subtract"] };
    let gpu = Gpu::new();
    let error = error_of(&gpu, &Launch { family: &LACKING, ..add(0, 0, 1) });
    assert_eq!(error.to_string(), "`lacking` has no kernel `subtract` that can be launched");
    let error = error_of(&gpu, &Launch { kernel: "subtract", ..add(0, 0, 1) });
    assert_eq!(error.to_string(), "`small` has no kernel `subtract` that can be launched");
}

const SMALL_PTX: &str = include_str!("kernels.ptx");

#[test]
fn sizes_must_be_those_of_the_kernel_and_the_device() {
    let gpu = Gpu::new();
    let wrong = [
        Launch { threads: 512, ..add(0, 0, 1) },
        Launch { threads: 0, ..add(0, 0, 1) },
        Launch { grid: [1, 1 << 16, 1], ..add(0, 0, 1) },
        through_shared(0, 0, 1 << 20),
    ];
    for launch in wrong {
        let error = error_of(&gpu, &launch);
        let wanted = format!("small/{} cannot be launched with {:?} blocks", launch.kernel, launch.grid);
        assert!(error.to_string().starts_with(&wanted), "{error}");
        assert!(error.to_string().contains("CUDA_ERROR_INVALID_VALUE"), "{error}");
    }
}

#[test]
fn large_shared_memory_is_asked_for() {
    let mut gpu = Gpu::new();
    let value = gpu.upload(&[0u32]);
    for (at, shared) in [(1000, 2000), (60_000, 64 << 10), (40_000, 48 << 10), (90_000, 96 << 10)] {
        gpu.launch(&through_shared(value, at, shared));
        assert_eq!(gpu.download::<u32>(value, 1), [at]);
    }
}

#[test]
fn ptx_that_does_not_compile_is_told_in_the_compilers_words() {
    static BROKEN: Family = Family {
        name: "broken",
        ptx: ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() { no_such_instruction; ret; }",
        kernels: &["f"],
    };
    static FUTURE: Family = Family { name: "future", ptx: ".version 99.0\n.target sm_80\n", kernels: &[] };
    let gpu = Gpu::new();
    let error = gpu.device().load(&BROKEN).unwrap_err();
    assert!(
        error.to_string().starts_with("the kernels of `broken` do not load: CUDA_ERROR_INVALID_PTX"),
        "{error}"
    );
    assert!(
        matches!(&error, DeviceError::Module { log, .. } if log.contains("no_such_instruction")),
        "{error}"
    );
    let error = gpu.device().load(&FUTURE).unwrap_err().to_string();
    let wanted = "the kernels of `future` do not load: CUDA_ERROR_UNSUPPORTED_PTX_VERSION";
    assert!(error.starts_with(wanted), "{error}");
}

/// A device on which a kernel failed cannot be used any more, so this is for the stand-in alone.
#[test]
fn a_fault_is_told_with_the_kernel_and_stays() {
    let mut gpu = Gpu::new();
    let Some((standin, ordinal)) = gpu.standin() else { return };
    let (values, by) = (gpu.upload(&[0u32; 300]), gpu.upload(&[1u32]));
    // SAFETY: for the stand-in, which checks addresses.
    unsafe { gpu.stream().launch(&add(values, by, 301)) }.expect("a launch does not wait");
    let error = gpu.stream().synchronize().unwrap_err();
    assert!(matches!(&error, DeviceError::Fault { last, .. } if last == "small/add"), "{error}");
    let fault = standin.last_fault(ordinal).unwrap();
    assert!(fault.starts_with("add"), "{fault}");
    assert!(error.to_string().contains(&fault), "{error}");
    assert!(error.to_string().starts_with("a kernel failed: CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");
    // Whatever is asked of it says the same.
    assert!(matches!(gpu.device().zeros::<u32>(1), Err(DeviceError::Fault { .. })));
    assert!(matches!(gpu.device().event(), Err(DeviceError::Fault { .. })));
    assert!(gpu.try_launch(&add(values, by, 1)).unwrap_err().contains(&fault));
    // Another device does not know of it, and this one begins anew for its next user.
    Gpu::new().upload(&[1u8]);
    drop(gpu);
    assert_eq!(standin.last_fault(ordinal), None);
}

#[test]
fn a_fault_of_a_replay_names_the_recording() {
    let gpu = Gpu::new();
    if gpu.standin().is_none() {
        return;
    }
    let values = gpu.device().zeros::<u32>(1).unwrap();
    let step = add(values.address(), values.address(), 2);
    // SAFETY: for the stand-in, which checks addresses.
    let recorded = gpu.stream().record(|stream| unsafe { stream.launch(&step) }).unwrap();
    // SAFETY: as above.
    unsafe { recorded.launch() }.unwrap();
    let error = gpu.stream().synchronize().unwrap_err();
    let wanted = "a recording that ends with small/add";
    assert!(matches!(&error, DeviceError::Fault { last, .. } if last == wanted), "{error}");
}

#[test]
fn memory_that_was_freed_is_gone() {
    let mut gpu = Gpu::new();
    if gpu.standin().is_none() {
        return;
    }
    let by = gpu.upload(&[1u32]);
    let freed = gpu.device().zeros::<u32>(8).unwrap().address();
    gpu.try_launch(&add(freed, by, 8)).unwrap_err();
}
