//! Where the values of a plan lie on a device, and what they are stored as.

use super::batch::Capacity;
use super::record::DeviceMemory;
use crate::graph::{Kind, Value};
use crate::plan::{Place, Plan};
use crate::shape::Space;
use manygate_cuda::{DeviceMat, Element, Precision};

/// Values from one row of a copied weight to the next are a multiple of it: whole loads of 16 bytes.
const HALVES_ALIGN: usize = 8;

/// Where the values of a plan lie.
pub(super) struct Places<'a> {
    pub(super) plan: &'a Plan,
    pub(super) memory: &'a DeviceMemory,
    pub(super) capacity: &'a Capacity,
    /// By node: what its value and its gradient are stored as.
    elements: Vec<Element>,
}

impl<'a> Places<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        memory: &'a DeviceMemory,
        capacity: &'a Capacity,
        precision: Precision,
    ) -> Places<'a> {
        let elements = elements(plan, precision);
        Places { plan, memory, capacity, elements }
    }

    /// The value that a step reads as `value`, which lies at `place`; or its gradient.
    pub(super) fn of(&self, value: Value, place: Place) -> DeviceMat {
        let (root, from) = self.plan.graph.root(value);
        self.at(place, from, self.elements[root.index()])
    }

    /// The value of a node as a whole, or its gradient.
    pub(super) fn of_node(&self, node: usize, place: Place) -> DeviceMat {
        self.at(place, 0, self.elements[node])
    }

    /// Parameters and what outlives the step, columns of the latter too.
    pub(super) fn kept(&self, place: Place) -> DeviceMat {
        let Place::Kept { buffer, column, .. } = place else { return self.at(place, 0, Element::F32) };
        let holds = |of: &Place| matches!(of, Place::Kept { buffer: other, .. } if *other == buffer);
        let made_by =
            self.plan.device_steps().find(|step| holds(&step.output) || holds(&step.output_gradient));
        self.at(place, column, made_by.map_or(Element::F32, |step| self.elements[step.node]))
    }

    /// The memory of a value or a gradient as a whole, whatever it is stored as, as f32.
    pub(super) fn all_of(&self, place: Place) -> DeviceMat {
        let all = self.at(place, 0, Element::F32);
        DeviceMat { cols: all.stride, ..all }
    }

    /// What lies at `place`, which begins `from` columns behind the start of a row.
    fn at(&self, place: Place, from: usize, element: Element) -> DeviceMat {
        let memory = self.memory;
        let once = |address: u64, rows: usize, cols: usize, stride: usize| DeviceMat {
            stride: stride as u32,
            ..DeviceMat::new(address, rows as u32, cols as u32)
        };
        let rows = |base: u64, bag: Option<usize>, cols: usize, stride: usize| DeviceMat {
            live_rows: bag.map_or(memory.batch.rows, |bag| memory.batch.bags[bag].count),
            element,
            ..once(base + element.bytes() * from as u64, self.capacity.rows_of(bag), cols, stride)
        };
        let at = |base: u64, offset: usize| base + 4 * offset as u64;
        match place {
            Place::Tile { offset, stride, cols, bag } => {
                rows(at(memory.arena, offset - from), bag, cols, stride)
            }
            Place::Kept { buffer, column, stride, cols, bag } => {
                rows(at(memory.kept[buffer], column - from), bag, cols, stride)
            }
            Place::Param { offset, rows, cols, stride } => {
                once(at(memory.params, offset), rows, cols, stride)
            }
            Place::State { offset, rows, cols, stride } => once(at(memory.state, offset), rows, cols, stride),
            Place::Once { offset, rows, cols, stride } => {
                once(at(memory.once[0], offset), rows, cols, stride)
            }
            Place::Nothing | Place::Gone => DeviceMat::new(0, 0, 0),
        }
    }

    /// The gradient of what exists once: of a parameter, or of what was computed.
    pub(super) fn once_gradient(&self, place: Place) -> DeviceMat {
        let address = match place {
            Place::Param { offset, .. } => self.memory.gradients + 4 * offset as u64,
            Place::Once { offset, .. } => self.memory.once[1] + 4 * offset as u64,
            _ => 0,
        };
        DeviceMat { address, ..self.at(place, 0, Element::F32) }
    }

    /// The weight at `offset` of the parameters, `[rows, cols]`, as `element`.
    pub(super) fn weight(&self, place: Place, element: Element) -> DeviceMat {
        let (plain, Place::Param { offset, .. }) = (self.at(place, 0, Element::F32), place) else {
            return self.at(place, 0, Element::F32);
        };
        if element == Element::F32 || plain.cols == 1 {
            return plain;
        }
        let before = plan_matrices(self.plan).take_while(|(at, ..)| *at < offset);
        let start: usize = before.map(|(_, rows, cols)| rows * cols.next_multiple_of(HALVES_ALIGN)).sum();
        DeviceMat {
            address: self.memory.halves + 2 * start as u64,
            stride: plain.cols.next_multiple_of(HALVES_ALIGN as u32),
            element,
            ..plain
        }
    }

    /// Every matrix among the parameters, and its copy.
    pub(super) fn weights_and_halves(&self) -> Vec<(DeviceMat, DeviceMat)> {
        let pair = |(offset, rows, cols)| {
            let place = Place::Param { offset, rows, cols, stride: cols };
            (self.weight(place, Element::F32), self.weight(place, Element::Bf16))
        };
        plan_matrices(self.plan).map(pair).collect()
    }

    /// Values of all copies.
    pub(super) fn halves_len(plan: &Plan) -> usize {
        plan_matrices(plan).map(|(_, rows, cols)| rows * cols.next_multiple_of(HALVES_ALIGN)).sum()
    }
}

/// Offset, rows and columns of the parameters of several columns.
fn plan_matrices(plan: &Plan) -> impl Iterator<Item = (usize, usize, usize)> {
    let shapes = plan.graph.params.iter().map(|spec| spec.shape()).enumerate();
    shapes
        .filter(|(_, shape)| shape.cols > 1)
        .map(|(p, shape)| (plan.layout.offset(p), shape.rows, shape.cols))
}

/// What each node is stored as: bf16 in that precision, where the op that makes it and all that read it can do with it.
fn elements(plan: &Plan, precision: Precision) -> Vec<Element> {
    let nodes = &plan.graph.nodes;
    let mut elements = vec![Element::F32; nodes.len()];
    if precision != Precision::Bf16 {
        return elements;
    }
    for (i, node) in nodes.iter().enumerate() {
        if let Kind::Op { op, .. } = &node.kind
            && node.shape.space != Space::Once
            && op.on_device().is_some_and(|op| op.halves().output)
        {
            elements[i] = Element::Bf16;
        }
    }
    for node in nodes {
        let Kind::Op { op, inputs } = &node.kind else { continue };
        let halves = op.on_device().map_or(0, |op| op.halves().inputs);
        for (i, &input) in inputs.iter().enumerate() {
            if halves & 1 << i == 0 {
                elements[plan.graph.root(input).0.index()] = Element::F32;
            }
        }
    }
    for (_, output) in &plan.graph.outputs {
        elements[plan.graph.root(*output).0.index()] = Element::F32;
    }
    elements
}
