//! The ops, one a file: formula, shapes, forward, backward and reference together. To add one, write its file and
//! name it here; [`cases`] hands it to the gradient check and to the matrix test.

pub mod act_mask;
pub mod activate;
pub mod add;
pub mod add_scaled;
pub mod amplify;
pub mod attach_row;
pub mod attention;
pub mod batch_moments;
pub mod bce_of_product;
pub mod bce_residual;
pub mod bce_with_logits;
pub mod bi_interaction;
pub mod broadcast;
pub mod cluster_linear;
pub mod compare;
pub mod concat;
pub mod counterfactual_risk;
pub mod cross;
pub mod cross_vector;
pub mod descend;
pub mod dice;
pub mod dropout;
pub mod expert_columns;
pub mod fold;
pub mod fuse_scores;
pub mod gate_combine;
pub mod gate_combine_seen;
pub mod gate_groups;
mod gate_selection;
pub mod gradient_conflict;
pub mod grouped_linear;
pub mod hard_tanh;
pub mod layer_norm;
pub mod learner_loss;
pub mod level_fusion;
pub mod linear;
pub mod linear_transposed;
mod link;
pub mod lookup;
pub mod mean_square;
pub mod mixture_likelihood;
pub mod move_centers;
pub mod multiply;
pub mod normalise;
pub mod order_penalty;
pub mod outer_gradient;
pub mod pair_products;
pub mod poisson;
pub mod position_embedding;
pub mod prelu;
pub mod product_logit;
pub mod pruned_share;
pub mod range_penalty;
pub mod route;
pub mod row_dot;
pub mod row_linear;
pub mod row_normalise;
pub mod scale_rows;
pub mod scenario_affine;
pub mod scenario_attention;
pub mod scenario_cross_entropy;
pub mod scenario_embedding;
pub mod scenario_sums;
pub mod self_scored;
pub mod sequence_lookup;
pub mod sequence_pool;
pub mod sequence_softmax;
pub mod sigmoid;
pub mod softmax;
pub mod squared_error;
pub mod stitch;
pub mod sum_columns;
pub mod tap;
pub mod target_attention;
pub mod transfer_mixture;
pub mod transpose;
pub mod weight_gradient;
pub mod weight_part;
pub mod weighted_loss;
pub mod weighted_pool;

pub use act_mask::ActMask;
pub use activate::Activate;
pub use add::Add;
pub use add_scaled::AddScaled;
pub use amplify::Amplify;
pub use attach_row::AttachRow;
pub use attention::Attention;
pub use batch_moments::{BatchMoments, Running};
pub use bce_of_product::BceOfProduct;
pub use bce_residual::BceResidual;
pub use bce_with_logits::BceWithLogits;
pub use bi_interaction::BiInteraction;
pub use broadcast::Broadcast;
pub use cluster_linear::ClusterLinear;
pub use compare::Compare;
pub use concat::Concat;
pub use counterfactual_risk::{CounterfactualRisk, Imputed, Risk};
pub use cross::Cross;
pub use cross_vector::CrossVector;
pub use descend::Descend;
pub use dice::Dice;
pub use dropout::Dropout;
pub use expert_columns::ExpertColumns;
pub use fold::Fold;
pub use fuse_scores::FuseScores;
pub use gate_combine::GateCombine;
pub use gate_combine_seen::GateCombineSeen;
pub use gate_groups::GateGroups;
pub use gradient_conflict::GradientConflict;
pub use grouped_linear::GroupedLinear;
pub use hard_tanh::HardTanh;
pub use layer_norm::LayerNorm;
pub use learner_loss::{Distance, LearnerLoss};
pub use level_fusion::LevelFusion;
pub use linear::{Linear, Segment};
pub use linear_transposed::LinearTransposed;
pub use link::Link;
pub use lookup::{LookupTrunk, Piece};
pub use mean_square::MeanSquare;
pub use mixture_likelihood::MixtureLikelihood;
pub use move_centers::MoveCenters;
pub use multiply::Multiply;
pub use normalise::Normalise;
pub use order_penalty::OrderPenalty;
pub use outer_gradient::OuterGradient;
pub use pair_products::PairProducts;
pub use poisson::{PoissonLoss, Rate};
pub use position_embedding::PositionEmbedding;
pub use prelu::Prelu;
pub use product_logit::ProductLogit;
pub use pruned_share::PrunedShare;
pub use range_penalty::RangePenalty;
pub use route::Route;
pub use row_dot::RowDot;
pub use row_linear::RowLinear;
pub use row_normalise::RowNormalise;
pub use scale_rows::ScaleRows;
pub use scenario_affine::ScenarioAffine;
pub use scenario_attention::ScenarioAttention;
pub use scenario_cross_entropy::{ScenarioCrossEntropy, ScenarioResidual};
pub use scenario_embedding::ScenarioEmbedding;
pub use scenario_sums::ScenarioSums;
pub use self_scored::SelfScored;
pub use sequence_lookup::SequenceLookup;
pub use sequence_pool::SequencePool;
pub use sequence_softmax::SequenceSoftmax;
pub use sigmoid::Sigmoid;
pub use softmax::Softmax;
pub use squared_error::SquaredError;
pub use stitch::Stitch;
pub use sum_columns::SumColumns;
pub use tap::Tap;
pub use target_attention::TargetAttention;
pub use transfer_mixture::TransferMixture;
pub use transpose::Transpose;
pub use weight_gradient::WeightGradient;
pub use weight_part::WeightPart;
pub use weighted_loss::{RowLoss, RowWeight, WeightedLoss};
pub use weighted_pool::WeightedPool;

use crate::check::Case;

/// Instances of every op, which the matrix test checks on every instruction set.
pub fn cases() -> Vec<Case> {
    [
        act_mask::cases,
        activate::cases,
        add::cases,
        add_scaled::cases,
        amplify::cases,
        attach_row::cases,
        attention::cases,
        batch_moments::cases,
        bce_of_product::cases,
        bce_residual::cases,
        bce_with_logits::cases,
        bi_interaction::cases,
        broadcast::cases,
        cluster_linear::cases,
        compare::cases,
        concat::cases,
        counterfactual_risk::cases,
        cross::cases,
        cross_vector::cases,
        descend::cases,
        dice::cases,
        dropout::cases,
        expert_columns::cases,
        fold::cases,
        fuse_scores::cases,
        gate_combine::cases,
        gate_combine_seen::cases,
        gate_groups::cases,
        gradient_conflict::cases,
        grouped_linear::cases,
        hard_tanh::cases,
        layer_norm::cases,
        level_fusion::cases,
        learner_loss::cases,
        linear::cases,
        linear_transposed::cases,
        lookup::cases,
        mean_square::cases,
        mixture_likelihood::cases,
        move_centers::cases,
        multiply::cases,
        normalise::cases,
        order_penalty::cases,
        outer_gradient::cases,
        pair_products::cases,
        poisson::cases,
        position_embedding::cases,
        route::cases,
        pruned_share::cases,
        range_penalty::cases,
        product_logit::cases,
        prelu::cases,
        row_dot::cases,
        row_linear::cases,
        row_normalise::cases,
        scale_rows::cases,
        scenario_attention::cases,
        scenario_affine::cases,
        scenario_cross_entropy::cases,
        scenario_embedding::cases,
        scenario_sums::cases,
        self_scored::cases,
        sequence_lookup::cases,
        sequence_pool::cases,
        sequence_softmax::cases,
        sigmoid::cases,
        softmax::cases,
        squared_error::cases,
        stitch::cases,
        sum_columns::cases,
        tap::cases,
        target_attention::cases,
        transfer_mixture::cases,
        transpose::cases,
        weight_gradient::cases,
        weight_part::cases,
        weighted_loss::cases,
        weighted_pool::cases,
    ]
    .iter()
    .flat_map(|cases| cases())
    .collect()
}
