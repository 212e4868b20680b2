use crate::testing::{close, values};
use manygate_kernels::activation::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

const ALL: [Activation; 5] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu(0.1),
    Activation::Tanh,
    Activation::Sigmoid,
];

fn exact(act: Activation, v: f64) -> f64 {
    match act {
        Activation::Identity => v,
        Activation::Relu => v.max(0.0),
        Activation::LeakyRelu(slope) => {
            if v > 0.0 {
                v
            } else {
                v * f64::from(slope)
            }
        }
        Activation::Tanh => v.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-v).exp()),
    }
}

proptest! {
    #[test]
    fn values_and_slopes_agree_with_f64(rows in 0usize..5, cols in 0usize..40, pad in 0usize..3, seed: u64) {
        let stride = cols + pad;
        let x = values(seed, rows * stride, 4.0);
        let upstream = values(seed ^ 1, rows * stride, 1.0);
        for isa in Isa::available() {
            for act in ALL {
                let mut y = x.clone();
                activate(isa, act, MatMut::strided(&mut y, rows, cols, stride));
                let mut dx = upstream.clone();
                activation_dx(isa, act, Mat::strided(&y, rows, cols, stride),
                    MatMut::strided(&mut dx, rows, cols, stride));
                for i in 0..rows * stride {
                    if i % stride >= cols {
                        prop_assert_eq!((y[i], dx[i]), (x[i], upstream[i]), "padding was written");
                        continue;
                    }
                    let v = f64::from(x[i]);
                    prop_assert!(close(y[i], exact(act, v), 1e-6), "{isa} {act:?} of {v}: {}", y[i]);
                    let h = 1e-6;
                    let slope = (exact(act, v + h) - exact(act, v - h)) / (2.0 * h);
                    let expected = slope * f64::from(upstream[i]);
                    prop_assert!(v.abs() < 1e-5 || close(dx[i], expected, 2e-6), "{isa} {act:?}' of {v}: {}", dx[i]);
                }
            }
        }
    }
}

#[test]
fn nan_is_never_hidden_and_relu_is_flat_at_zero() {
    for isa in Isa::available() {
        for act in ALL {
            let mut y = [f32::NAN, 1.0, f32::NAN];
            activate(isa, act, MatMut::new(&mut y, 1, 3));
            assert!(y[0].is_nan() && !y[1].is_nan() && y[2].is_nan(), "{isa} {act:?}: {y:?}");
            let mut dy = [f32::NAN; 3];
            activation_dx(isa, act, Mat::new(&[1.0, 0.0, 0.5], 1, 3), MatMut::new(&mut dy, 1, 3));
            assert!(dy.iter().all(|d| d.is_nan()), "{isa} {act:?}: {dy:?}");
        }
        let mut dy = [3.0; 4];
        let y = [0.0, -0.0, 2.0, f32::NAN];
        activation_dx(isa, Activation::Relu, Mat::new(&y, 1, 4), MatMut::new(&mut dy, 1, 4));
        assert_eq!(dy[..3], [0.0, 0.0, 3.0]);
        assert!(dy[3].is_nan());
    }
}
