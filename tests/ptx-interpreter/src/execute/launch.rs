//! A launch: its blocks, one after the other.

use super::block::Block;
use super::warp::Stop;
use crate::decode::ModuleVariable;
use crate::fault::Fault;
use crate::lane::LANES;
use crate::memory::Memory;
use crate::parse::line_of;
use crate::program::Program;

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Bytes of shared memory besides what the kernel declares.
    pub dynamic_shared: usize,
    /// The parameters as they lie in memory.
    pub parameters: &'a [u8],
    /// Order in which blocks and warps run; 0 for the plain one.
    pub seed: u64,
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instructions of threads, those counted that a predicate made do nothing.
    pub instructions: u64,
}

/// Most threads of a block.
const MOST_THREADS: u32 = 1024;
/// Characters of an instruction that a fault tells.
const MOST_TEXT: usize = 120;

/// Runs all blocks of `launch`.
pub(crate) fn launch(
    program: &Program,
    source: &str,
    module: (u64, &[ModuleVariable]),
    memory: &mut Memory,
    launch: &Launch<'_>,
) -> Result<Stats, Fault> {
    check(program, launch).map_err(|message| Fault::of_launch(&program.name, message))?;
    let threads = launch.block.iter().product::<u32>() as usize;
    let warps = threads.div_ceil(LANES);
    memory.begin_launch(warps);
    let variables = memory.module_variables(module.0, module.1);
    let mut random = Random::new(launch.seed);
    let mut block = Block::new(program, memory, launch, variables);
    let mut blocks = blocks(launch.grid);
    random.shuffle(&mut blocks);
    for at in blocks {
        if let Err(Stop { counter, thread, problem }) = block.run(at, &mut random) {
            let text = |counter: u32| {
                let line = program.code.get(counter as usize).map_or(0, |instruction| instruction.line);
                (line, shortened(line_of(source, line)))
            };
            let mut message = problem.message;
            if let Some((line, text)) = problem.earlier.map(text) {
                message += &format!(" (at line {line} `{text}`)");
            }
            let (line, text) = text(counter);
            let (kernel, thread) = (program.name.clone(), coordinates(thread, launch.block));
            return Err(Fault { kind: problem.kind, kernel, line, text, block: at, thread, message });
        }
    }
    Ok(Stats { instructions: block.instructions() })
}

/// An instruction's text, without most of the registers of one that has dozens.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_TEXT) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// What of a launch the kernel cannot run with.
fn check(program: &Program, launch: &Launch<'_>) -> Result<(), String> {
    let Launch { grid, block, parameters, .. } = launch;
    let threads = block.iter().try_fold(1u32, |product, n| product.checked_mul(*n)).unwrap_or(u32::MAX);
    if grid.contains(&0) || threads == 0 || threads > MOST_THREADS || block[2] > 64 {
        return Err(format!("a grid of {grid:?} blocks of {block:?} threads cannot be launched"));
    }
    if grid[1].max(grid[2]) > 65535 || grid[0] > i32::MAX as u32 {
        return Err(format!("a grid of {grid:?} blocks cannot be launched"));
    }
    if let Some(most) = program.most_threads.filter(|most| threads > *most) {
        return Err(format!("blocks of {threads} threads, {most} at most are promised"));
    }
    if parameters.len() != program.parameter_bytes() {
        return Err(format!(
            "{} bytes of parameters, {} wanted",
            parameters.len(),
            program.parameter_bytes()
        ));
    }
    Ok(())
}

/// All blocks of a grid, x first.
fn blocks([x, y, z]: [u32; 3]) -> Vec<[u32; 3]> {
    let all = (0..z).flat_map(|z| (0..y).flat_map(move |y| (0..x).map(move |x| [x, y, z])));
    all.collect()
}

/// A thread's number in each direction.
pub(super) fn coordinates(thread: u32, [x, y, _]: [u32; 3]) -> [u32; 3] {
    [thread % x, thread / x % y, thread / (x * y)]
}

/// Orders that depend on a seed.
pub(super) struct Random {
    state: u64,
    shuffles: bool,
}

impl Random {
    fn new(seed: u64) -> Random {
        Random { state: seed, shuffles: seed != 0 }
    }

    /// A permutation of `items`; none for seed 0.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        if !self.shuffles {
            return;
        }
        for i in (1..items.len()).rev() {
            // SplitMix64.
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            items.swap(i, ((z ^ z >> 31) % (i as u64 + 1)) as usize);
        }
    }
}
