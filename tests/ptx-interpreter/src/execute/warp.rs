//! A warp: thirty-two lanes with registers, and where each of them is in the code.
//!
//! Lanes at the same instruction run together. Of several groups the one that is furthest behind runs, until it
//! comes to where another one waits, so that lanes that went different ways meet again as early as they can.

use super::block::Context;
use super::copy::Copies;
use super::launch::coordinates;
use super::warpgroup::Products;
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Content, Guard, Instruction, Op, Register, Special};
use crate::lane::{LANES, Row};
use crate::program::Program;
use crate::region::{Region, Scope};

/// Instructions of a warp in a block after which it is taken to be in an endless loop.
const MOST_INSTRUCTIONS: u64 = 1 << 26;

/// A set of lanes: all of them.
pub(super) const ALL: u32 = u32::MAX;

pub(super) struct Warp {
    /// Its number in the block.
    pub(super) number: usize,
    pub(super) registers: Vec<Row>,
    /// Lanes in which a register is initialised.
    pub(super) defined: Vec<u32>,
    /// Results of an instruction, before they go to their registers.
    pub(super) results: [Row; 4],
    /// The next instruction of each lane.
    counters: [u32; LANES],
    /// Lanes that there are.
    lanes: u32,
    /// Lanes that have not exited.
    live: u32,
    /// Lanes that wait, for others of the warp or at a barrier of the block.
    waiting: u32,
    /// Each lane's own memory.
    pub(super) local: Vec<Region>,
    pub(super) copies: Copies,
    pub(super) products: Products,
    /// The instruction that runs.
    pub(super) counter: u32,
    /// Instructions in this block.
    pub(super) steps: u64,
}

/// Why a warp's turn ends.
pub(super) enum Pause {
    Done,
    /// All lanes wait at the barrier that the counter says.
    Barrier(u32),
}

/// A fault and where it was.
pub(super) struct Stop {
    pub(super) counter: u32,
    /// The thread in its block.
    pub(super) thread: u32,
    pub(super) problem: Problem,
}

impl Warp {
    pub(super) fn new(program: &Program, number: usize, lanes: usize) -> Warp {
        Warp {
            number,
            registers: vec![Row::ZERO; program.registers.len()],
            defined: vec![0; program.registers.len()],
            results: [Row::ZERO; 4],
            counters: [0; LANES],
            lanes: u32::MAX >> (LANES - lanes),
            live: 0,
            waiting: 0,
            local: (0..LANES).map(|_| Region::new(program.local_bytes, Scope::Thread)).collect(),
            copies: Copies::default(),
            products: Products::new(program.registers.len()),
            counter: 0,
            steps: 0,
        }
    }

    /// All lanes stand before the first instruction, with nothing in their registers.
    pub(super) fn begin_block(&mut self, context: &Context<'_>) {
        self.counters = [0; LANES];
        self.live = self.lanes;
        self.waiting = 0;
        self.steps = 0;
        self.copies = Copies::default();
        self.products = Products::new(context.program.registers.len());
        self.local.iter_mut().for_each(Region::forget);
        for (number, content) in context.program.registers.iter().enumerate() {
            self.defined[number] = if *content == Content::Variable { 0 } else { ALL };
            self.registers[number] = match content {
                Content::Variable => continue,
                Content::Number(value) => Row::splat(*value),
                Content::ModuleVariable(offset) => Row::splat(context.module_variables + offset),
                Content::DynamicShared => Row::splat(context.program.dynamic_shared_start() as u64),
                Content::Special(special) => self.special(*special, context),
            };
        }
    }

    fn special(&self, special: Special, context: &Context<'_>) -> Row {
        let launch = context.launch;
        let first = (self.number * LANES) as u32;
        let mut row = Row::ZERO;
        for lane in 0..LANES {
            let value = match special {
                Special::Thread(axis) => coordinates(first + lane as u32, launch.block)[axis],
                Special::Threads(axis) => launch.block[axis],
                Special::Block(axis) => context.block[axis],
                Special::Blocks(axis) => launch.grid[axis],
                Special::Lane => lane as u32,
                Special::Warp => self.number as u32,
                Special::Warps => launch.block.iter().product::<u32>().div_ceil(LANES as u32),
                Special::MaskEqual => 1 << lane,
                Special::MaskBelow => (1 << lane) - 1,
                Special::MaskUpTo => u32::MAX >> (31 - lane),
                Special::MaskAbove => !(u32::MAX >> (31 - lane)),
                Special::MaskFrom => u32::MAX << lane,
                Special::Zero => 0,
                Special::DynamicSharedSize => launch.dynamic_shared as u32,
                Special::TotalSharedSize => context.shared.len() as u32,
            };
            row.set(lane, value.into());
        }
        row
    }

    /// Lanes that have not exited.
    pub(super) fn live(&self) -> u32 {
        self.live
    }

    /// How many lanes have exited.
    pub(super) fn exited(&self) -> u32 {
        (self.lanes & !self.live).count_ones()
    }

    /// Whether no lane has exited.
    pub(super) fn is_whole(&self) -> bool {
        self.live == self.lanes
    }

    /// A fault at `counter`, of the problem's lane or the first one.
    pub(super) fn stop(&self, counter: u32, problem: Problem) -> Stop {
        let lane = problem.lane.unwrap_or_else(|| self.live.trailing_zeros().min(31));
        Stop { counter, thread: (self.number * LANES) as u32 + lane, problem }
    }

    /// Runs until all lanes have exited or wait at a barrier.
    pub(super) fn run(&mut self, context: &mut Context<'_>) -> Result<Pause, Stop> {
        loop {
            let ready = self.live & !self.waiting;
            if ready == 0 {
                return self.pause(context);
            }
            let counter = lanes_of(ready).map(|lane| self.counters[lane]).min().unwrap_or(0);
            let group = self.lanes_at(counter, ready);
            let others = lanes_of(ready & !group).map(|lane| self.counters[lane]);
            self.run_group(context, counter, group, others.min().unwrap_or(u32::MAX))?;
        }
    }

    /// The lanes of `among` whose next instruction is at `counter`.
    fn lanes_at(&self, counter: u32, among: u32) -> u32 {
        lanes_of(among).filter(|lane| self.counters[*lane] == counter).fold(0, |set, lane| set | 1 << lane)
    }

    fn set_counters(&mut self, lanes: u32, counter: u32) {
        for lane in lanes_of(lanes) {
            self.counters[lane] = counter;
        }
    }

    /// All lanes wait or have exited.
    fn pause(&mut self, context: &Context<'_>) -> Result<Pause, Stop> {
        if self.live == 0 {
            return Ok(Pause::Done);
        }
        let counter = lanes_of(self.live).map(|lane| self.counters[lane]).min().unwrap_or(0);
        let here = self.lanes_at(counter, self.live);
        let code = &context.program.code;
        if here == self.live && matches!(code[counter as usize].op, Op::Barrier(_)) {
            return Ok(Pause::Barrier(counter));
        }
        let mut message = format!("deadlock: lanes {here:#010x} wait here for others that never come");
        let elsewhere = self.live & !here;
        if elsewhere != 0 {
            let lines: std::collections::BTreeSet<_> =
                lanes_of(elsewhere).map(|lane| code[self.counters[lane] as usize].line).collect();
            let lines: Vec<_> = lines.iter().map(u32::to_string).collect();
            message += &format!("; lanes {elsewhere:#010x} wait at line {}", lines.join(", "));
        }
        let problem = Problem::new(FaultKind::Deadlock, message).at(here.trailing_zeros());
        Err(self.stop(counter, problem))
    }

    /// Runs the lanes of `group` from `counter` on, until they go different ways, wait, or come to `until`.
    fn run_group(
        &mut self,
        context: &mut Context<'_>,
        mut counter: u32,
        group: u32,
        until: u32,
    ) -> Result<(), Stop> {
        let code: &[Instruction] = &context.program.code;
        while counter < until {
            let Instruction { guard, op, accumulators, .. } = &code[counter as usize];
            self.counter = counter;
            self.steps += 1;
            context.instructions += u64::from(group.count_ones());
            let mask = match guard {
                None => Ok(group),
                Some(guard) => self.guarded(*guard, group),
            };
            let mask = mask.map_err(|problem| self.stop(counter, problem))?;
            if !accumulators.is_empty() && mask != 0 {
                let touched = self.touch_accumulators(accumulators);
                touched.map_err(|problem| self.stop(counter, problem.at(mask.trailing_zeros())))?;
            }
            let next = match op {
                _ if mask == 0 => Next::Following,
                Op::Branch { target } if mask == group => {
                    if self.steps > MOST_INSTRUCTIONS {
                        return Err(self.stop(counter, endless_loop()));
                    }
                    counter = *target;
                    continue;
                }
                Op::Branch { target } => {
                    if self.steps > MOST_INSTRUCTIONS {
                        return Err(self.stop(counter, endless_loop()));
                    }
                    self.set_counters(mask, *target);
                    Next::Divided
                }
                _ => self
                    .step(context, op, counter, mask, group)
                    .map_err(|problem| self.stop(counter, problem))?,
            };
            match next {
                Next::Following => counter += 1,
                Next::Divided => {
                    self.set_counters(group & !mask, counter + 1);
                    return Ok(());
                }
            }
        }
        self.set_counters(group, counter);
        Ok(())
    }

    /// The lanes of `group` in which the guard's predicate holds.
    fn guarded(&self, guard: Guard, group: u32) -> Result<u32, Problem> {
        self.expect_defined(guard.predicate, group)?;
        let holds = self.truths(guard.predicate);
        Ok(if guard.negated { !holds } else { holds } & group)
    }

    /// The lanes in which a predicate is true.
    pub(super) fn truths(&self, predicate: Register) -> u32 {
        self.registers[predicate.index()].truths()
    }

    /// That a register is initialised in the lanes of `mask`.
    #[inline]
    pub(super) fn expect_defined(&self, register: Register, mask: u32) -> Result<(), Problem> {
        let missing = mask & !self.defined[register.index()];
        if missing == 0 { Ok(()) } else { Err(not_defined(missing)) }
    }

    /// The value of a register that is the same in all lanes that wait.
    pub(super) fn uniform_value(&self, register: Register) -> Result<u64, Problem> {
        self.expect_defined(register, self.waiting)?;
        let row = &self.registers[register.index()];
        let mut values = lanes_of(self.waiting).map(|lane| row.get(lane));
        let first = values.next().unwrap_or(0);
        if values.all(|value| value == first) {
            return Ok(first);
        }
        Err(Problem::new(FaultKind::InvalidOperand, "lanes of a warp name different barriers"))
    }

    /// The waiting lanes in which a predicate is true, and all that wait.
    pub(super) fn waiting_predicates(&self, predicate: Register, counter: u32) -> Result<(u32, u32), Stop> {
        self.expect_defined(predicate, self.waiting).map_err(|problem| self.stop(counter, problem))?;
        Ok((self.truths(predicate) & self.waiting, self.waiting))
    }

    /// Sets a register in all lanes that wait.
    pub(super) fn set_waiting(&mut self, target: Register, value: u64) {
        self.results[0] = Row::splat(value);
        self.write(target, 0, self.waiting);
    }

    /// `lanes` exit. Those that wait look again for whom: lanes that have exited are not waited for.
    pub(super) fn exit(&mut self, lanes: u32) {
        self.live &= !lanes;
        self.waiting = 0;
    }

    /// `lanes` wait at `counter`.
    pub(super) fn wait(&mut self, lanes: u32, counter: u32) {
        self.set_counters(lanes, counter);
        self.waiting |= lanes;
    }

    /// `lanes` go to the instruction at `counter`, whether they waited or not.
    pub(super) fn go_to(&mut self, lanes: u32, counter: u32) {
        self.set_counters(lanes, counter);
        self.waiting &= !lanes;
    }

    /// Lanes that wait at `counter`.
    pub(super) fn waiting_at(&self, counter: u32) -> u32 {
        self.lanes_at(counter, self.waiting)
    }

    /// All lanes that wait go on with the following instruction.
    pub(super) fn go_on(&mut self) {
        for lane in lanes_of(self.waiting) {
            self.counters[lane] += 1;
        }
        self.waiting = 0;
    }

    /// Copies the lanes of `mask` of a result to its register.
    #[inline]
    pub(super) fn write(&mut self, target: Register, result: usize, mask: u32) {
        let row = &mut self.registers[target.index()];
        let values = &self.results[result];
        if mask == ALL {
            *row = *values;
        } else {
            row.copy_lanes(values, mask);
        }
        self.defined[target.index()] |= mask;
    }
}

/// Where a group goes on.
pub(super) enum Next {
    /// With the following instruction, all of it.
    Following,
    /// The lanes that execute the instruction have been told; the others follow it.
    Divided,
}

#[cold]
fn endless_loop() -> Problem {
    Problem::new(
        FaultKind::EndlessLoop,
        format!("{MOST_INSTRUCTIONS} instructions of a warp: an endless loop"),
    )
}

#[cold]
fn not_defined(lanes: u32) -> Problem {
    Problem::new(FaultKind::Uninitialised, "reads a register that nothing was written to")
        .at(lanes.trailing_zeros())
}
