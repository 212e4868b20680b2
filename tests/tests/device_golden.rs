//! The golden cases of every model that a CUDA device runs.

use manygate_cuda::loss_gradients::{
    FlatGradients, FlatPieces, combine_gradients, gradient_products, pairs, sum_products,
};
use manygate_cuda::optim::Piece;
use manygate_cuda_tests::{Gpu, project_root};
use manygate_tests::golden::{
    Arithmetic, Case, Checked, WITHOUT_CASES, check_method, check_on_device, check_small_on_device,
};
use manygate_tests::small_models::{batch, configurations, inputs, of_every_kind};
use manygate_train::devices::devices;
use std::cell::RefCell;
use std::fs;

/// A test of each model over those of its cases whose names are wanted, and all their names.
macro_rules! models {
    ($($model:ident: $wanted:expr),* $(,)?) => {
        const MODELS: &[&str] = &[$(stringify!($model)),*];

        $(#[test]
        fn $model() {
            check_cases(stringify!($model), $wanted);
        })*
    };
}

models! {
    adaptdhm: |_| true,
    adasparse: |_| true,
    aitm: |_| true,
    apg: |_| true,
    attention: |_| true,
    causalint: |_| true,
    cgc: |_| true,
    cross_stitch: |_| true,
    dcn: |_| true,
    dcn_v2: |_| true,
    deepfm: |_| true,
    dffm: |_| true,
    epnet_dcn: |_| true,
    escm2: |_| true,
    esmm: |_| true,
    hamur: |_| true,
    hinet: |_| true,
    interactions: |_| true,
    lhuc: |_| true,
    m2m: |_| true,
    m3oe: |_| true,
    mmoe: |_| true,
    moe: |_| true,
    mtms: |_| true,
    pepnet: |_| true,
    ple: |_| true,
    sarnet: |_| true,
    shared_bottom: |_| true,
    star: |_| true,
    stem: |_| true,
    taml: |_| true,
}

#[test]
fn every_model_trains_there_and_has_its_cases() {
    let models = devices().expect("the models").models;
    let lacking: Vec<_> = models.iter().filter(|model| model.lacks.is_some()).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    let mut checked = [MODELS, &WITHOUT_CASES[..]].concat();
    checked.sort_unstable();
    let all: Vec<_> = models.iter().map(|model| model.name).collect();
    assert_eq!(checked, all, "models checked here, and all");
}

#[test]
fn models_without_cases_are_those_of_the_cpu() {
    for keys in WITHOUT_CASES.iter().flat_map(|model| configurations(model)) {
        for inputs in [inputs(&keys), of_every_kind(&keys)] {
            let gpu = Gpu::new();
            let Checked { tensors, worst } = check_small_on_device(&keys, inputs, batch(9), gpu.device())
                .unwrap_or_else(|why| panic!("{keys}: {}", why.join("; ")));
            println!("ok {} ({tensors} tensors, {worst})", keys.replace('\n', ", "));
        }
    }
}

/// Multiplies and weighs gradients as the steps of a device do.
struct OnDevice(RefCell<Gpu>);

impl OnDevice {
    /// The gradients `[losses, parameters]` in device memory, and all of the parameters in pieces.
    fn upload(gpu: &mut Gpu, gradients: &[f64], losses: usize) -> (FlatGradients, FlatPieces) {
        let parameters = gradients.len() / losses;
        let stride = parameters.next_multiple_of(4);
        let mut apart = vec![0.0f32; losses * stride];
        for (to, own) in apart.chunks_exact_mut(stride).zip(gradients.chunks_exact(parameters)) {
            to.iter_mut().zip(own).for_each(|(to, &value)| *to = value as f32);
        }
        let pieces: Vec<Piece> = Piece::cut(0..parameters as u64, 0).collect();
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_bytes()).collect();
        let gradients = FlatGradients { address: gpu.upload(&apart), stride: stride as u64 };
        (gradients, FlatPieces { address: gpu.upload(&bytes), count: pieces.len() as u32 })
    }
}

impl Arithmetic for OnDevice {
    fn gram(&self, gradients: &[f64], losses: usize) -> Vec<f64> {
        let (mut gpu, count) = (self.0.borrow_mut(), losses as u32);
        let (gradients, pieces) = OnDevice::upload(&mut gpu, gradients, losses);
        let partials = gpu.allocate::<f64>((pairs(count) * pieces.count) as usize);
        let products = gpu.allocate::<f64>(pairs(count) as usize);
        gpu.launch(&gradient_products(pieces, count, gradients, pieces.count, partials));
        gpu.launch(&sum_products(count, partials, pieces.count, products));
        let products: Vec<f64> = gpu.download(products, pairs(count) as usize);
        let at = |a: usize, b: usize| products[a.max(b) * (a.max(b) + 1) / 2 + a.min(b)];
        (0..losses * losses).map(|i| at(i / losses, i % losses)).collect()
    }

    fn combine(&self, gradients: &[f64], weights: &[f64]) -> Vec<f64> {
        let (mut gpu, losses) = (self.0.borrow_mut(), weights.len());
        let (parameters, weights) = (gradients.len() / losses, gpu.upload(weights));
        let (gradients, pieces) = OnDevice::upload(&mut gpu, gradients, losses);
        let to = gpu.allocate::<f32>(gradients.stride as usize);
        gpu.launch(&combine_gradients(pieces, weights, losses as u32, gradients, to));
        gpu.download::<f32>(to, parameters).into_iter().map(f64::from).collect()
    }
}

#[test]
fn methods_that_balance_losses_weigh_gradients_there() {
    let cases = fs::read_dir(project_root().join("tests/golden/task_optimization")).expect("cases");
    for case in cases {
        let path = case.expect("a case").path();
        let case = Case::read(&path).expect("a readable case");
        let Checked { tensors, worst } = check_method(&case, &OnDevice(RefCell::new(Gpu::new())))
            .unwrap_or_else(|why| panic!("{}: {}", path.display(), why.join("; ")));
        println!("ok {} ({tensors} tensors, {worst})", path.display());
    }
}

/// Checks the cases of `model` whose names are `wanted`.
fn check_cases(model: &str, wanted: impl Fn(&str) -> bool) {
    let folder = project_root().join("tests/golden").join(model);
    let mut checked = 0;
    for entry in fs::read_dir(&folder).expect("the model's cases") {
        let path = entry.expect("a case").path();
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted) {
            continue;
        }
        let case = Case::read(&path).expect("a readable case");
        let gpu = Gpu::new();
        let Checked { tensors, worst } = check_on_device(&case, gpu.device())
            .unwrap_or_else(|why| panic!("{}: {}", path.display(), why.join("; ")));
        println!(
            "ok {model}/{} ({tensors} tensors, {worst})",
            path.file_name().unwrap_or_default().display()
        );
        checked += 1;
    }
    assert!(checked > 0, "{model} has no cases");
}
