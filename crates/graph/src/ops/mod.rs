//! The ops, one a file: formula, shapes, forward, backward and reference together. To add one, write its file and
//! name it here; [`cases`] hands it to the gradient check and to the matrix test.

pub mod act_mask;
pub mod activate;
pub mod add;
pub mod add_scaled;
pub mod attach_row;
pub mod attention;
pub mod batch_moments;
pub mod bce_of_product;
pub mod bce_residual;
pub mod bce_with_logits;
pub mod bi_interaction;
pub mod broadcast;
pub mod concat;
pub mod descend;
pub mod dropout;
pub mod fold;
pub mod gate_combine;
pub mod gate_combine_seen;
mod gate_selection;
pub mod gradient_conflict;
pub mod grouped_linear;
pub mod layer_norm;
pub mod linear;
pub mod linear_transposed;
pub mod lookup;
pub mod mean_square;
pub mod mixture_likelihood;
pub mod multiply;
pub mod normalise;
pub mod outer_gradient;
pub mod pair_products;
pub mod poisson;
pub mod position_embedding;
pub mod row_dot;
pub mod row_linear;
pub mod row_normalise;
pub mod scale_rows;
pub mod scenario_cross_entropy;
pub mod scenario_embedding;
pub mod scenario_sums;
pub mod sequence_lookup;
pub mod sequence_pool;
pub mod sigmoid;
pub mod softmax;
pub mod squared_error;
pub mod tap;
pub mod transfer_mixture;
pub mod transpose;
pub mod weight_gradient;
pub mod weight_part;

pub use act_mask::ActMask;
pub use activate::Activate;
pub use add::Add;
pub use add_scaled::AddScaled;
pub use attach_row::AttachRow;
pub use attention::Attention;
pub use batch_moments::{BatchMoments, Running};
pub use bce_of_product::BceOfProduct;
pub use bce_residual::BceResidual;
pub use bce_with_logits::BceWithLogits;
pub use bi_interaction::BiInteraction;
pub use broadcast::Broadcast;
pub use concat::Concat;
pub use descend::Descend;
pub use dropout::Dropout;
pub use fold::Fold;
pub use gate_combine::GateCombine;
pub use gate_combine_seen::GateCombineSeen;
pub use gradient_conflict::GradientConflict;
pub use grouped_linear::GroupedLinear;
pub use layer_norm::LayerNorm;
pub use linear::{Linear, Segment};
pub use linear_transposed::LinearTransposed;
pub use lookup::{LookupTrunk, Piece};
pub use mean_square::MeanSquare;
pub use mixture_likelihood::MixtureLikelihood;
pub use multiply::Multiply;
pub use normalise::Normalise;
pub use outer_gradient::OuterGradient;
pub use pair_products::PairProducts;
pub use poisson::{PoissonLoss, Rate};
pub use position_embedding::PositionEmbedding;
pub use row_dot::RowDot;
pub use row_linear::RowLinear;
pub use row_normalise::RowNormalise;
pub use scale_rows::ScaleRows;
pub use scenario_cross_entropy::{ScenarioCrossEntropy, ScenarioResidual};
pub use scenario_embedding::ScenarioEmbedding;
pub use scenario_sums::ScenarioSums;
pub use sequence_lookup::SequenceLookup;
pub use sequence_pool::SequencePool;
pub use sigmoid::Sigmoid;
pub use softmax::Softmax;
pub use squared_error::SquaredError;
pub use tap::Tap;
pub use transfer_mixture::TransferMixture;
pub use transpose::Transpose;
pub use weight_gradient::WeightGradient;
pub use weight_part::WeightPart;

use crate::check::Case;

/// Instances of every op, which the matrix test checks on every instruction set.
pub fn cases() -> Vec<Case> {
    [
        act_mask::cases,
        activate::cases,
        add::cases,
        add_scaled::cases,
        attach_row::cases,
        attention::cases,
        batch_moments::cases,
        bce_of_product::cases,
        bce_residual::cases,
        bce_with_logits::cases,
        bi_interaction::cases,
        broadcast::cases,
        concat::cases,
        descend::cases,
        dropout::cases,
        fold::cases,
        gate_combine::cases,
        gate_combine_seen::cases,
        gradient_conflict::cases,
        grouped_linear::cases,
        layer_norm::cases,
        linear::cases,
        linear_transposed::cases,
        lookup::cases,
        mean_square::cases,
        mixture_likelihood::cases,
        multiply::cases,
        normalise::cases,
        outer_gradient::cases,
        pair_products::cases,
        poisson::cases,
        position_embedding::cases,
        row_dot::cases,
        row_linear::cases,
        row_normalise::cases,
        scale_rows::cases,
        scenario_cross_entropy::cases,
        scenario_embedding::cases,
        scenario_sums::cases,
        sequence_lookup::cases,
        sequence_pool::cases,
        sigmoid::cases,
        softmax::cases,
        squared_error::cases,
        tap::cases,
        transfer_mixture::cases,
        transpose::cases,
        weight_gradient::cases,
        weight_part::cases,
    ]
    .iter()
    .flat_map(|cases| cases())
    .collect()
}
