//! `manygate bench kernels`.

use crate::args::BenchKernels;
use manygate_core::{Error, Result};
use manygate_train::DeviceChoice;
#[cfg(not(feature = "cuda"))]
use manygate_train::PrecisionChoice;

pub(crate) fn run(args: &BenchKernels) -> Result<()> {
    match args.device {
        DeviceChoice::Cpu => {
            let message = "measures the kernels of a GPU, cuda or cuda:N; those of the CPU are measured by `cargo bench`";
            Err(Error::config("--device", message))
        }
        #[cfg(feature = "cuda")]
        DeviceChoice::Cuda(number) => on_cuda::run(args, number),
        #[cfg(not(feature = "cuda"))]
        DeviceChoice::Cuda(_) => args.device.check(PrecisionChoice::default()),
    }
}

#[cfg(feature = "cuda")]
mod on_cuda {
    use crate::args::BenchKernels;
    use crate::output;
    use manygate_core::{Error, Result};
    use manygate_device::bench::{KernelBenchOptions, KernelSpeed, LeftOut, Progress, Size, bench_kernels};

    pub(super) fn run(args: &BenchKernels, number: usize) -> Result<()> {
        let options = KernelBenchOptions {
            device: number,
            size: if args.small { Size::Small } else { Size::Full },
            kernel: args.kernel.clone(),
            seconds: args.seconds,
        };
        // The table grows as it is measured; with JSON it is there to watch.
        let tell = |line: &str| {
            if args.json {
                output::say(line);
                Ok(())
            } else {
                output::result(line)
            }
        };
        let speeds = bench_kernels(&options, &mut |progress| tell(&line(progress)))?;
        if args.json {
            output::json(&speeds)?;
        }
        let wrong = speeds.rows.iter().filter(|row| !row.is_right());
        let wrong =
            wrong.map(|row| format!("{}: wrong results", name(row.kernel, row.precision, &row.shape)));
        let failed = speeds.left_out.iter().filter(|case| case.failed);
        let failed =
            failed.map(|case| format!("{}: {}", name(case.kernel, case.precision, &case.shape), case.why));
        let bad: Vec<String> = wrong.chain(failed).collect();
        if bad.is_empty() { Ok(()) } else { Err(Error::Unmet(bad.join("\n"))) }
    }

    fn name(kernel: &str, precision: &str, shape: &impl ToString) -> String {
        format!("{kernel} in {precision} ({})", shape.to_string())
    }

    fn line(progress: Progress<'_>) -> String {
        match progress {
            Progress::Device(device, ceilings) => format!(
                "{device}\ncopy {:.0} GB/s, multiply-adds f32 {:.1}, tf32 {:.1}, bf16 {:.1} TFLOP/s\n\n{}",
                ceilings.copy_gbps,
                ceilings.f32_tflops,
                ceilings.tf32_tflops,
                ceilings.bf16_tflops,
                header()
            ),
            Progress::Measured(speed) => row(speed),
            Progress::LeftOut(LeftOut { kernel, shape, precision, why, .. }) => {
                format!("{} left out: {why}", name(kernel, precision, shape))
            }
        }
    }

    fn header() -> String {
        cells(["kernel", "precision", "ms", "GB/s", "TFLOP/s", "floor ms", "share", "error", "shape"])
    }

    fn row(speed: &KernelSpeed) -> String {
        let tflops = if speed.flops > 0.0 { format!("{:.2}", speed.tflops) } else { "-".to_owned() };
        let wrong = if speed.is_right() { "" } else { "  WRONG" };
        cells([
            speed.kernel,
            speed.precision,
            &format!("{:.4}", speed.ms),
            &format!("{:.0}", speed.gbps),
            &tflops,
            &format!("{:.4}", speed.floor_ms),
            &format!("{:.0} %", 100.0 * speed.share_of_floor),
            &format!("{:.1e}", speed.relative_error),
            &format!("{}{wrong}", speed.shape),
        ])
    }

    fn cells([kernel, precision, ms, gbps, tflops, floor, share, error, shape]: [&str; 9]) -> String {
        format!(
            "{kernel:22} {precision:9} {ms:>10} {gbps:>7} {tflops:>8} {floor:>10} {share:>6} {error:>8}  {shape}"
        )
    }
}
