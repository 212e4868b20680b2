//! Machines where there is no device to compute on, as a program sees them.

use manygate_standin_driver::folder;
use std::process::Command;

/// What a program says of the devices that the variables describe.
fn devices(variables: &[(&str, &str)]) -> String {
    let folder = folder().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_cuda_devices"));
    let program = program.env("LD_LIBRARY_PATH", folder.path());
    let output = program.envs(variables.iter().copied()).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_program_finds_the_stand_in_in_its_folder() {
    let said = devices(&[("MANYGATE_STANDIN_DEVICES", "2")]);
    let lines: Vec<_> = said.lines().collect();
    let [first, second, uses_first, uses_second, none] = lines[..] else { panic!("{said}") };
    assert!(first.starts_with("0: PTX interpreter"), "{said}");
    assert!(second.starts_with("1: PTX interpreter"), "{said}");
    assert!(first.ends_with(
        "compute capability 8.0, 4.0 GiB (4.0 GiB free), 4 multiprocessors, driver for CUDA 12.0"
    ));
    assert_eq!((uses_first, uses_second), ("device 0 copies", "device 1 copies"));
    assert!(none.starts_with("no CUDA device 2: the driver finds 2, numbered from 0; "), "{said}");
}

#[test]
fn memory_needs_no_pools() {
    let said = devices(&[("MANYGATE_STANDIN_POOLS", "0")]);
    assert!(said.contains("device 0 copies"), "{said}");
}

#[test]
fn a_driver_without_devices_is_told() {
    let said = devices(&[("MANYGATE_STANDIN_DEVICES", "0")]);
    assert!(said.starts_with("no CUDA device 0: the driver finds none; "), "{said}");
}

#[test]
fn an_old_driver_is_told() {
    let said = devices(&[("MANYGATE_STANDIN_DRIVER", "11.8")]);
    assert!(said.starts_with("the driver knows CUDA 11.8, and 12.0 is needed: "), "{said}");
}

#[test]
fn an_old_device_is_listed_and_refused() {
    let said = devices(&[("MANYGATE_STANDIN_CAPABILITY", "7.5")]);
    assert!(said.lines().next().unwrap().ends_with(", too old"), "{said}");
    assert!(said.contains("has compute capability 7.5, and 8.0 or more is needed"), "{said}");
}

#[test]
fn a_full_device_is_told() {
    let said = devices(&[("MANYGATE_STANDIN_MEMORY", "0")]);
    let wanted = "device 0: out of memory on the CUDA device: 12 bytes wanted, 0 bytes of 0 bytes free";
    assert!(said.contains(wanted), "{said}");
}

#[test]
fn a_machine_without_a_driver_is_told() {
    let program =
        Command::new(env!("CARGO_BIN_EXE_cuda_devices")).env_remove("LD_LIBRARY_PATH").output().unwrap();
    let said = String::from_utf8(program.stdout).unwrap();
    // Where the machine has a driver, this is what it says.
    let has_driver = program.status.success() || said.starts_with("the driver knows CUDA");
    assert!(
        has_driver || said.starts_with("no CUDA driver: the library libcuda.so.1 is not found; "),
        "{said}"
    );
    assert!(program.stderr.is_empty(), "{}", String::from_utf8_lossy(&program.stderr));
}
