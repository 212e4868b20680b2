//! Says what devices there are, and uses each: what tests start to see other machines.

use manygate_cuda::device::{Device, DeviceError};
use std::process::ExitCode;

fn main() -> ExitCode {
    let devices = match Device::list() {
        Ok(devices) => devices,
        Err(why) => {
            println!("{why}");
            return ExitCode::FAILURE;
        }
    };
    for device in &devices {
        println!("{device}");
    }
    // One more than there are.
    for ordinal in 0..=devices.len() {
        match Device::open(ordinal).map(|device| copies(&device)) {
            Ok(Ok(())) => println!("device {ordinal} copies"),
            Ok(Err(error)) => println!("device {ordinal}: {error}"),
            Err(why) => println!("{why}"),
        }
    }
    ExitCode::SUCCESS
}

/// Copies to the device and back.
fn copies(device: &Device) -> Result<(), DeviceError> {
    let mut back = [0; 3];
    device.upload(&[1, 2, 3])?.download(&device.stream()?, 0, &mut back)?;
    assert_eq!(back, [1, 2, 3]);
    Ok(())
}
