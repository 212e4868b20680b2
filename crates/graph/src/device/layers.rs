//! What linear layers launch, of rows of one scenario or of several.

use super::step::{DeviceGradient, DeviceStep};
use manygate_cuda::gemm::BiasGradient;
use manygate_cuda::gemm_by_scenario::{
    Layers, MOST_LAYERS, column_sums_by_scenario, linear_dw_by_scenario, linear_dx_by_scenario,
    linear_gradients_by_scenario,
};
use manygate_cuda::gemm_gradients::{InputGradient, WeightGradient};
use manygate_cuda::{DeviceMat, Element};

impl DeviceStep<'_> {
    /// The rows of the batch by scenario, or as those of one, with the weights of layers over `groups` of columns; `shared`
    /// where the groups have one weight.
    pub fn layers(&self, scenarios: Option<usize>, groups: usize, shared: bool) -> Layers {
        let batch = self.batch();
        let starts = if scenarios.is_some() { batch.scenario_starts } else { batch.row_range };
        Layers::new(starts, scenarios.unwrap_or(1), groups, shared)
    }

    /// Launches what computes the gradients of a layer's input 0, of its weight, input 1, and of its bias, `db`, from that of
    /// its output before the activation: `dy`, which is stored as `element`, as the input is. Works in `scratch`, which takes
    /// the weight and sums over rows.
    pub fn layer_gradients(
        &mut self,
        layers: Layers,
        element: Element,
        dy: DeviceMat,
        db: Option<BiasGradient>,
        scratch: u64,
    ) {
        let (x, precision) = (self.input(0), self.precision(element));
        let of_weight = |dw: DeviceGradient| WeightGradient { accumulate: dw.accumulate, to: dw.to };
        let dw = self.take_gradient(1).map(of_weight);
        let dx = self.take_gradient(0);
        if let (Some(dw), Some(DeviceGradient { to, accumulate, mask })) = (dw, dx)
            && self.has_weight(1, element)
        {
            let (weights, dx) = (self.weight(1, element, scratch), InputGradient { accumulate, mask, to });
            return self.launch_all(linear_gradients_by_scenario(
                precision, layers, dy, x, weights, dw, db, dx, scratch,
            ));
        }
        if let Some(dw) = dw {
            let (add, to) = (dw.accumulate, dw.to);
            self.launch_all(linear_dw_by_scenario(precision, layers, dy, x, add, to, db, scratch));
        } else if let Some(db) = db {
            self.launch_all(column_sums_by_scenario(layers, db, scratch));
        }
        if let Some(dx) = dx {
            // What was summed up there is not needed any more.
            let (weights, add, to) = (self.weight(1, element, scratch), dx.accumulate, dx.to);
            self.launch(linear_dx_by_scenario(precision, layers, dy, weights, add, dx.mask, to));
        }
    }
}

/// Why kernels do not take the layers of so many groups of scenarios, if they do not.
pub fn layers_refused(groups: usize) -> Option<String> {
    let message = format!("{groups} groups of all scenarios together, and its kernels take {MOST_LAYERS}");
    (groups > MOST_LAYERS).then_some(message)
}
