//! A block: its warps, and the barriers where they meet.

use super::launch::{Launch, Random};
use super::warp::{Pause, Stop, Warp};
use super::warpgroup::{WARPS, Warpgroup};
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Barrier, BarrierReduction, Op};
use crate::lane::LANES;
use crate::memory::Memory;
use crate::program::{Program, SharedVariable};
use crate::region::{Region, Scope};

/// Barriers of a block.
const BARRIERS: usize = 16;

/// What the warps of a block have in common.
pub(super) struct Context<'l> {
    pub(super) program: &'l Program,
    pub(super) memory: &'l mut Memory,
    pub(super) shared: Region,
    pub(super) parameters: Region,
    /// The variables in `shared`, which accesses must lie in.
    pub(super) shared_variables: Vec<SharedVariable>,
    pub(super) launch: &'l Launch<'l>,
    /// The block's place in the grid.
    pub(super) block: [u32; 3],
    /// Address of the module's variables.
    pub(super) module_variables: u64,
    /// The block's warpgroups, four warps each.
    pub(super) warpgroups: Vec<Warpgroup>,
    /// Instructions of threads.
    pub(super) instructions: u64,
}

/// A block that runs; one after the other, all of a launch.
pub(super) struct Block<'l> {
    context: Context<'l>,
    warps: Vec<Warp>,
    states: Vec<State>,
    /// By barrier, warps that said that they were there, without waiting.
    arrived: [Vec<Arrival>; BARRIERS],
}

/// What a warp does between its turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// At the barrier that the counter says.
    Waits(u32),
    Done,
}

/// A warp that arrived at a barrier and went on.
struct Arrival {
    warp: usize,
    time: u32,
    /// Threads that must come.
    threads: u32,
}

/// A barrier at which warps wait.
#[derive(Clone, Copy, Default)]
struct Meeting {
    /// The warps.
    warps: u32,
    /// The counter of one of them.
    counter: u32,
    /// Threads that must come; none: all.
    threads: Option<u32>,
    /// Whether they all wait at the same instruction.
    same: bool,
}

impl<'l> Block<'l> {
    pub(super) fn new(
        program: &'l Program,
        memory: &'l mut Memory,
        launch: &'l Launch<'l>,
        module_variables: u64,
    ) -> Block<'l> {
        let start = program.dynamic_shared_start();
        let dynamic = SharedVariable { offset: start, bytes: launch.dynamic_shared, align: 1 };
        let shared_variables = program.shared.iter().copied().chain([dynamic]).collect();
        let shared = Region::new(dynamic.end(), Scope::Block);
        let mut parameters = Region::new(launch.parameters.len(), Scope::Thread);
        parameters.host_bytes(0, launch.parameters.len()).copy_from_slice(launch.parameters);
        let threads = launch.block.iter().product::<u32>() as usize;
        let warps: Vec<_> = (0..threads.div_ceil(LANES))
            .map(|warp| Warp::new(program, warp, (threads - warp * LANES).min(LANES)))
            .collect();
        let states = vec![State::Ready; warps.len()];
        let context = Context {
            program,
            memory,
            shared,
            parameters,
            shared_variables,
            launch,
            block: [0; 3],
            module_variables,
            warpgroups: vec![Warpgroup::default(); warps.len().div_ceil(WARPS)],
            instructions: 0,
        };
        Block { context, warps, states, arrived: Default::default() }
    }

    /// Instructions of threads so far.
    pub(super) fn instructions(&self) -> u64 {
        self.context.instructions
    }

    /// Runs the block at `block` of the grid.
    pub(super) fn run(&mut self, block: [u32; 3], random: &mut Random) -> Result<(), Stop> {
        self.context.block = block;
        self.context.memory.order.begin_block(block);
        self.context.shared.forget();
        self.context.warpgroups.fill(Warpgroup::default());
        self.arrived.iter_mut().for_each(Vec::clear);
        self.states.fill(State::Ready);
        for warp in &mut self.warps {
            warp.begin_block(&self.context);
        }
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        loop {
            random.shuffle(&mut order);
            for &warp in &order {
                while self.states[warp] == State::Ready {
                    self.states[warp] = match self.warps[warp].run(&mut self.context)? {
                        Pause::Done => State::Done,
                        Pause::Barrier(counter) => self.arrive(warp, counter)?,
                    };
                }
            }
            if self.states.iter().all(|state| *state == State::Done) {
                return self.check_warpgroups();
            }
            self.release()?;
        }
    }

    /// That all warps of a warpgroup have executed what one of them has.
    fn check_warpgroups(&self) -> Result<(), Stop> {
        for (number, warpgroup) in self.context.warpgroups.iter().enumerate() {
            if let Some((warp, counter)) = warpgroup.left_behind() {
                let message =
                    format!("warp {warp} of the warpgroup never comes here, though another one did");
                return Err(self.stop(number * WARPS + warp, counter, FaultKind::Deadlock, message));
            }
        }
        Ok(())
    }

    fn barrier(&self, counter: u32) -> &'l Barrier {
        match &self.context.program.code[counter as usize].op {
            Op::Barrier(barrier) => barrier,
            _ => unreachable!("warps wait at barriers"),
        }
    }

    fn stop(&self, warp: usize, counter: u32, kind: FaultKind, message: String) -> Stop {
        self.warps[warp].stop(counter, Problem::new(kind, message))
    }

    /// A warp has come to a barrier.
    fn arrive(&mut self, warp: usize, counter: u32) -> Result<State, Stop> {
        let barrier = self.barrier(counter);
        let id = self.uniform(warp, counter, barrier.id)?;
        if id as usize >= BARRIERS {
            return Err(self.stop(
                warp,
                counter,
                FaultKind::InvalidOperand,
                format!("there is no barrier {id}"),
            ));
        }
        if barrier.waits {
            return Ok(State::Waits(counter));
        }
        let threads = barrier.threads.map_or(Ok(0), |threads| self.uniform(warp, counter, threads))?;
        if self.arrived[id as usize].iter().any(|earlier| earlier.warp == warp) {
            let message = format!("arrives again at barrier {id} before others have come");
            return Err(self.stop(warp, counter, FaultKind::InvalidOperand, message));
        }
        let time = self.context.memory.order.tick();
        self.arrived[id as usize].push(Arrival { warp, time, threads });
        self.warps[warp].go_on();
        Ok(State::Ready)
    }

    /// The value of a register that must be the same for all threads of a warp that wait.
    fn uniform(
        &self,
        warp: usize,
        counter: u32,
        register: crate::instruction::Register,
    ) -> Result<u32, Stop> {
        let value = self.warps[warp].uniform_value(register);
        value.map(|value| value as u32).map_err(|problem| self.warps[warp].stop(counter, problem))
    }

    /// Lets the warps go on whose barriers are complete.
    fn release(&mut self) -> Result<(), Stop> {
        let mut meetings = [Meeting::default(); BARRIERS];
        for warp in 0..self.warps.len() {
            let State::Waits(counter) = self.states[warp] else { continue };
            let barrier = self.barrier(counter);
            let id = self.uniform(warp, counter, barrier.id)? as usize;
            let threads = barrier.threads.map(|threads| self.uniform(warp, counter, threads)).transpose()?;
            let meeting = &mut meetings[id];
            if meeting.warps == 0 {
                *meeting = Meeting { warps: 0, counter, threads, same: true };
            }
            if meeting.threads != threads {
                let message = format!("threads wait at barrier {id} for different numbers of threads");
                return Err(self.stop(warp, counter, FaultKind::InvalidOperand, message));
            }
            meeting.same &= meeting.counter == counter;
            meeting.warps |= 1 << warp;
        }
        let mut released = false;
        for (id, meeting) in meetings.into_iter().enumerate().filter(|(_, meeting)| meeting.warps != 0) {
            released |= self.try_release(id, meeting)?;
        }
        if released { Ok(()) } else { Err(self.deadlock(&meetings)) }
    }

    /// Lets the warps of a barrier go on if it is complete.
    fn try_release(&mut self, id: usize, meeting: Meeting) -> Result<bool, Stop> {
        let all = u32::MAX >> (32 - self.warps.len());
        let arrived = &self.arrived[id];
        let first = meeting.warps.trailing_zeros() as usize;
        match meeting.threads {
            None => {
                let everyone = meeting.warps == all && self.warps.iter().all(Warp::is_whole);
                if !everyone {
                    return Ok(false);
                }
                if !meeting.same {
                    return Err(self.different_barriers(meeting));
                }
            }
            Some(threads) => {
                if let Some(other) = arrived.iter().find(|arrival| arrival.threads != threads) {
                    let message = format!(
                        "barrier {id} is for {threads} threads here, for {} to others",
                        other.threads
                    );
                    return Err(self.stop(first, meeting.counter, FaultKind::InvalidOperand, message));
                }
                let here = (meeting.warps.count_ones() + arrived.len() as u32) * LANES as u32;
                if threads % LANES as u32 != 0 || threads == 0 || here > threads {
                    let message = format!("{here} threads at barrier {id}, which is for {threads}");
                    return Err(self.stop(first, meeting.counter, FaultKind::InvalidOperand, message));
                }
                if here < threads {
                    return Ok(false);
                }
            }
        }
        if meeting.warps == all {
            self.context.memory.order.barrier_of_all();
        } else {
            let arrived = std::mem::take(&mut self.arrived[id]).into_iter();
            let arrived = arrived.map(|Arrival { warp, time, .. }| (warp, time)).collect();
            self.context.memory.order.barrier_of_some(meeting.warps, arrived);
        }
        if let Some((reduction, ..)) = self.barrier(meeting.counter).reduction {
            self.reduce(reduction, meeting)?;
        }
        for warp in lanes_of(meeting.warps) {
            self.warps[warp].go_on();
            self.states[warp] = State::Ready;
        }
        Ok(true)
    }

    /// The result of a barrier that looks at the threads' predicates.
    fn reduce(&mut self, reduction: BarrierReduction, meeting: Meeting) -> Result<(), Stop> {
        let (mut yes, mut all) = (0, 0);
        for warp in lanes_of(meeting.warps) {
            let State::Waits(counter) = self.states[warp] else { continue };
            let Some((_, _, predicate)) = self.barrier(counter).reduction else { continue };
            let (true_lanes, lanes) = self.warps[warp].waiting_predicates(predicate, counter)?;
            yes += true_lanes.count_ones();
            all += lanes.count_ones();
        }
        let result = match reduction {
            BarrierReduction::Count => yes,
            BarrierReduction::And => u32::from(yes == all),
            BarrierReduction::Or => u32::from(yes > 0),
        };
        for warp in lanes_of(meeting.warps) {
            let State::Waits(counter) = self.states[warp] else { continue };
            if let Some((_, target, _)) = self.barrier(counter).reduction {
                self.warps[warp].set_waiting(target, result.into());
            }
        }
        Ok(())
    }

    fn different_barriers(&self, meeting: Meeting) -> Stop {
        let counters = self.states.iter().enumerate().filter_map(|(warp, state)| match state {
            State::Waits(counter) => Some((warp, *counter)),
            _ => None,
        });
        let (warp, counter) =
            counters.clone().find(|(_, c)| *c != meeting.counter).unwrap_or((0, meeting.counter));
        let line = self.context.program.code[meeting.counter as usize].line;
        let message = format!("deadlock: threads wait here and others at the barrier of line {line}");
        self.stop(warp, counter, FaultKind::Deadlock, message)
    }

    /// Nobody can go on.
    fn deadlock(&self, meetings: &[Meeting; BARRIERS]) -> Stop {
        let waiting = meetings.iter().filter(|meeting| meeting.warps != 0);
        let Some(meeting) = waiting.clone().min_by_key(|meeting| meeting.counter) else {
            unreachable!("a block that does not end waits at a barrier")
        };
        let first = meeting.warps.trailing_zeros() as usize;
        let here: u32 = lanes_of(meeting.warps).map(|warp| self.warps[warp].live().count_ones()).sum();
        let exited: u32 = self.warps.iter().map(Warp::exited).sum();
        let others = waiting.filter(|other| other.counter != meeting.counter);
        let lines: Vec<_> =
            others.map(|m| self.context.program.code[m.counter as usize].line.to_string()).collect();
        let mut message = format!("deadlock: {here} threads wait here, {exited} have exited");
        if !lines.is_empty() {
            message += &format!(", others wait at line {}", lines.join(", "));
        }
        self.stop(first, meeting.counter, FaultKind::Deadlock, message)
    }
}
