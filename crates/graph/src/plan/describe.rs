//! What a plan looks like, for people: every step with what it reads and writes, the joins, the buffers.

use super::{GradientPlace, JoinStep, Place, Plan, Step};
use crate::graph::Mode;
use manygate_kernels::Isa;
use std::fmt;

/// A plan as plain data; its [`Display`](fmt::Display) is what `manygate inspect --plan` prints, at most 120 columns
/// wide.
#[derive(Clone, Debug)]
pub struct Description {
    /// What it was declared for.
    pub mode: Mode,
    /// Instruction set.
    pub isa: Isa,
    /// Rows of a tile.
    pub tile_rows: usize,
    /// Values of the parameters, tables not counted.
    pub parameters: usize,
    /// Floating point operations of a row in products: forward, and backward where the plan trains.
    pub flops_a_row: usize,
    /// What is computed of the parameters alone, before the first tile.
    pub before: Vec<String>,
    /// The steps between joins.
    pub phases: Vec<PhaseDescription>,
    /// Memory.
    pub buffers: Vec<BufferDescription>,
    /// Rows of a batch, and the lanes that it is run in.
    pub lanes: Vec<(usize, usize)>,
}

/// What runs over the tiles between two joins.
#[derive(Clone, Debug)]
pub struct PhaseDescription {
    /// The steps, in order.
    pub steps: Vec<StepDescription>,
    /// What is computed after it, once all lanes have come.
    pub joins: Vec<String>,
}

/// One op over one tile.
#[derive(Clone, Debug)]
pub struct StepDescription {
    /// The op's name.
    pub op: &'static str,
    /// What the graph calls it.
    pub node: String,
    /// Whether it is the backward step.
    pub backward: bool,
    /// What it reads.
    pub reads: Vec<SlotDescription>,
    /// What it writes; backward, the gradients.
    pub writes: Vec<SlotDescription>,
}

/// A value or a gradient that a step reads or writes.
#[derive(Clone, Debug)]
pub struct SlotDescription {
    /// The value's name.
    pub value: String,
    /// Where it lies.
    pub memory: Memory,
    /// Bytes: of a row in [`Memory::Tile`], [`Memory::Kept`] and [`Memory::Table`], else of all of it.
    pub bytes: usize,
    /// Whether the step adds to what is there.
    pub accumulates: bool,
    /// Whether it multiplies by an activation's slope in passing.
    pub masks: bool,
}

/// Kinds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The worker's arena, for the rows of a tile.
    Tile,
    /// A buffer for the rows of the whole batch.
    Kept,
    /// Parameters.
    Parameter,
    /// A packed copy of parameters.
    Packed,
    /// Rows of tables.
    Table,
    /// State.
    State,
    /// What a join completed.
    Join,
    /// A sum of each lane.
    LaneSum,
}

/// A block of memory.
#[derive(Clone, Debug)]
pub struct BufferDescription {
    /// What it holds.
    pub name: String,
    /// Bytes of one.
    pub bytes: usize,
    /// What there is one of: `worker`, `row`, `lane`, `plan`.
    pub each: &'static str,
}

impl Plan {
    /// Describes the plan.
    pub fn describe(&self) -> Description {
        let passes = if self.goes_back { 3 } else { 1 };
        Description {
            mode: self.graph.mode,
            isa: self.options.isa,
            tile_rows: self.options.tile_rows,
            parameters: self.layout.blocks().map(|(block, _)| block.len()).sum(),
            flops_a_row: 2 * passes * self.multiply_adds,
            before: self.describe_join(0),
            phases: (0..self.phases.len()).map(|phase| self.describe_phase(phase)).collect(),
            buffers: self.describe_buffers(),
            lanes: [1, 256, 1024, 4096, 16384].map(|rows| (rows, self.lanes(rows))).to_vec(),
        }
    }

    fn describe_phase(&self, phase: usize) -> PhaseDescription {
        PhaseDescription {
            steps: self.phases[phase].iter().map(|step| self.describe_step(step)).collect(),
            joins: self.describe_join(phase + 1),
        }
    }

    fn describe_join(&self, join: usize) -> Vec<String> {
        let name = |node: usize| &self.graph.nodes[node].name;
        let told = |step: &JoinStep| match step {
            JoinStep::Reduce(step) => Some(name(step.node).clone()),
            JoinStep::Run(step) if step.backward => Some(format!("backward of {}", name(step.node))),
            JoinStep::Run(step) => Some(format!("{} ({})", name(step.node), self.op(step.node).0.name())),
            JoinStep::Gradient(join) => Some(format!("gradient of {}", name(join.node))),
            JoinStep::Pack(_) => None,
        };
        self.joins[join].iter().filter_map(told).collect()
    }

    fn describe_step(&self, step: &Step) -> StepDescription {
        let (op, inputs) = self.op(step.node);
        let node = self.graph.nodes[step.node].name.clone();
        let named = |i: usize| self.graph.nodes[inputs[i].index()].name.clone();
        let mut reads = Vec::new();
        for (i, &place) in step.inputs.iter().enumerate() {
            let packed = op.packs().iter().position(|p| p.input == i && p.backward == step.backward);
            reads.extend(match packed {
                Some(slot) => Some(described(named(i), Memory::Packed, step.packs[slot].1)),
                None if step.backward && !op.saved().has_input(i) => None,
                None => slot(named(i), place, false),
            });
        }
        if !step.backward && !op.lookups().is_empty() {
            let values = op.lookups().iter().map(|l| l.dim).sum();
            reads.push(described("tables".into(), Memory::Table, values));
        }
        let mut writes = Vec::new();
        if step.backward {
            reads.extend(slot(node.clone(), step.output, false));
            reads.extend(slot(format!("gradient of {node}"), step.output_gradient, false));
            for (i, gradient) in step.gradients.iter().enumerate() {
                let Some(GradientPlace { place, accumulate, mask }) = *gradient else { continue };
                let gradient = slot(format!("gradient of {}", named(i)), place, true);
                writes.extend(gradient.map(|slot| SlotDescription {
                    accumulates: accumulate,
                    masks: mask.is_some(),
                    ..slot
                }));
            }
        } else {
            writes.extend(slot(node.clone(), step.output, false));
        }
        let extra = slot(format!("extra of {node}"), step.extra, false);
        if step.backward { &mut reads } else { &mut writes }.extend(extra);
        StepDescription { op: op.name(), node, backward: step.backward, reads, writes }
    }

    fn describe_buffers(&self) -> Vec<BufferDescription> {
        let buffer = |name: &str, values: usize, each| BufferDescription {
            name: name.to_owned(),
            bytes: values * size_of::<f32>(),
            each,
        };
        let mut buffers = vec![
            buffer("tile values", self.scratch_offset, "worker"),
            buffer("scratch", self.arena_len - self.scratch_offset, "worker"),
            buffer("packed weights", self.packed.iter().map(|p| p.len).sum(), "plan"),
        ];
        if self.goes_back {
            buffers.push(buffer("gradient sums", self.layout.len() + self.once_len, "lane"));
        }
        if self.once_len > 0 {
            buffers.push(buffer("values of joins", self.once_len, "plan"));
            let mut partial = buffer("partial sums of joins", 2 * self.partial_len, "lane");
            partial.name.push_str(" (f64)");
            buffers.push(partial);
        }
        buffers
            .extend(self.kept.iter().map(|kept| buffer(&kept.name, kept.stride * kept.rows_a_sample, "row")));
        buffers
    }
}

fn slot(value: String, place: Place, sums: bool) -> Option<SlotDescription> {
    let (memory, values) = match place {
        Place::Tile { cols, .. } => (Memory::Tile, cols),
        Place::Kept { cols, .. } => (Memory::Kept, cols),
        Place::Param { rows, cols, .. } if sums => (Memory::LaneSum, rows * cols),
        Place::Once { rows, cols, .. } if sums => (Memory::LaneSum, rows * cols),
        Place::Param { rows, cols, .. } => (Memory::Parameter, rows * cols),
        Place::State { rows, cols, .. } => (Memory::State, rows * cols),
        Place::Once { rows, cols, .. } => (Memory::Join, rows * cols),
        Place::Nothing | Place::Gone => return None,
    };
    Some(described(value, memory, values))
}

fn described(value: String, memory: Memory, values: usize) -> SlotDescription {
    let bytes = values * size_of::<f32>();
    SlotDescription { value, memory, bytes, accumulates: false, masks: false }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Memory::Tile => "tile",
            Memory::Kept => "kept",
            Memory::Parameter => "param",
            Memory::Packed => "packed",
            Memory::Table => "table",
            Memory::State => "state",
            Memory::Join => "join",
            Memory::LaneSum => "sum",
        })
    }
}

impl fmt::Display for SlotDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (add, mask) = (if self.accumulates { "+" } else { "" }, if self.masks { "*" } else { "" });
        write!(f, "{add}{} {}{mask}", self.memory, Bytes(self.bytes))
    }
}

/// A number of bytes, in the unit in which it is short.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1000.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = usize::from(unit > 0 && value < 100.0);
        write!(f, "{value:.digits$} {}", units[unit])
    }
}

/// A number with its thousands apart.
struct Thousands(usize);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1000 {
            write!(f, "{},{:03}", Thousands(self.0 / 1000), self.0 % 1000)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// Columns of the text for the node, what it reads, and what it writes.
const WIDTHS: [usize; 3] = [30, 34, 28];

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parameters, flops) = (Thousands(self.parameters), Thousands(self.flops_a_row));
        writeln!(f, "{} plan, {}, tiles of {} rows", self.mode, self.isa, self.tile_rows)?;
        writeln!(f, "{parameters} parameters beside the tables, {flops} floating point operations a row\n")?;
        writeln!(
            f,
            "Bytes are a row's in tile, kept and table. + adds to what is there, * multiplies by a slope in passing."
        )?;
        for (i, value) in self.before.iter().enumerate() {
            writeln!(
                f,
                "{}  {:<4} {value}",
                if i == 0 { "\n" } else { "" },
                if i == 0 { "once" } else { "" }
            )?;
        }
        for (number, phase) in self.phases.iter().enumerate() {
            writeln!(f, "\nphase {} of {}", number + 1, self.phases.len())?;
            let [node, reads, _] = WIDTHS;
            writeln!(f, "     {:<16} {:<node$} {:<reads$} writes", "op", "of", "reads")?;
            phase.steps.iter().try_for_each(|step| write!(f, "{step}"))?;
            for (i, join) in phase.joins.iter().enumerate() {
                writeln!(f, "  {:<4} {join}", if i == 0 { "join" } else { "" })?;
            }
        }
        writeln!(f, "\nmemory")?;
        for buffer in &self.buffers {
            writeln!(
                f,
                "  {:<60.60} {:>12} a {}",
                buffer.name,
                Bytes(buffer.bytes).to_string(),
                buffer.each
            )?;
        }
        let lanes = self.lanes.iter().map(|(rows, lanes)| format!("{lanes} for {} rows", Thousands(*rows)));
        writeln!(f, "\nlanes: {}", lanes.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for StepDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.backward { "<-" } else { "->" };
        let [node, reads, writes] = WIDTHS;
        let columns = [wrapped(&self.reads, reads), wrapped(&self.writes, writes)];
        for line in 0..columns.iter().map(Vec::len).max().unwrap_or(0).max(1) {
            let text = |column: usize| columns[column].get(line).map_or("", String::as_str);
            let (arrow, op, name) =
                if line == 0 { (arrow, self.op, self.node.as_str()) } else { ("", "", "") };
            let row = format!(
                "  {arrow:<2} {op:<16} {:<node$} {:<reads$} {}",
                shortened(name, node),
                text(0),
                text(1)
            );
            writeln!(f, "{}", row.trim_end())?;
        }
        Ok(())
    }
}

/// At most `width` characters of a name, its end where it is longer: the end tells layers apart.
fn shortened(name: &str, width: usize) -> String {
    let len = name.chars().count();
    if len <= width {
        name.to_owned()
    } else {
        format!("…{}", name.chars().skip(len + 1 - width).collect::<String>())
    }
}

/// Slots side by side, in lines of at most `width` characters.
fn wrapped(slots: &[SlotDescription], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for slot in slots.iter().map(SlotDescription::to_string) {
        match lines.last_mut() {
            Some(line) if line.len() + 2 + slot.len() <= width => {
                line.push_str(", ");
                line.push_str(&slot);
            }
            _ => lines.push(slot),
        }
    }
    lines
}
