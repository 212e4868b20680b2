//! The ops, one a file: formula, shapes, forward, backward and reference together. To add one, write its file and
//! name it here; [`cases`] hands it to the gradient check and to the matrix test.

pub mod add;
pub mod batch_moments;
pub mod bce_with_logits;
pub mod concat;
pub mod descend;
pub mod fold;
pub mod gate_combine;
pub mod gradient_conflict;
pub mod grouped_linear;
pub mod linear;
pub mod lookup;
pub mod normalise;
pub mod position_embedding;
pub mod scenario_embedding;
pub mod scenario_sums;
pub mod sequence_lookup;
pub mod sequence_pool;
pub mod sigmoid;
pub mod tap;
pub mod weight_gradient;

pub use add::Add;
pub use batch_moments::{BatchMoments, Running};
pub use bce_with_logits::BceWithLogits;
pub use concat::Concat;
pub use descend::Descend;
pub use fold::Fold;
pub use gate_combine::GateCombine;
pub use gradient_conflict::GradientConflict;
pub use grouped_linear::GroupedLinear;
pub use linear::{Linear, Segment};
pub use lookup::{LookupTrunk, Piece};
pub use normalise::Normalise;
pub use position_embedding::PositionEmbedding;
pub use scenario_embedding::ScenarioEmbedding;
pub use scenario_sums::ScenarioSums;
pub use sequence_lookup::SequenceLookup;
pub use sequence_pool::SequencePool;
pub use sigmoid::Sigmoid;
pub use tap::Tap;
pub use weight_gradient::WeightGradient;

use crate::check::Case;

/// Instances of every op, which the matrix test checks on every instruction set.
pub fn cases() -> Vec<Case> {
    [
        add::cases,
        batch_moments::cases,
        bce_with_logits::cases,
        concat::cases,
        descend::cases,
        fold::cases,
        gate_combine::cases,
        gradient_conflict::cases,
        grouped_linear::cases,
        linear::cases,
        lookup::cases,
        normalise::cases,
        position_embedding::cases,
        scenario_embedding::cases,
        scenario_sums::cases,
        sequence_lookup::cases,
        sequence_pool::cases,
        sigmoid::cases,
        tap::cases,
        weight_gradient::cases,
    ]
    .iter()
    .flat_map(|cases| cases())
    .collect()
}
