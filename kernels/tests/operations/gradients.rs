//! Every hand-written gradient against central differences, in f64.

use crate::naive::{self, finite_differences, numbers};
use candle_core::{DType, Device, Tensor, Var};
use kernels::{Activation, BatchNorm, Statistics};
use reference::assert_close;

/// Checks the gradient of `f` with respect to each of its arguments.
#[track_caller]
fn check(what: &str, arguments: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let vars: Vec<Var> = arguments
        .iter()
        .map(|argument| Var::from_tensor(argument).unwrap())
        .collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let out = f(&tensors);
    let weights = numbers(99, out.dims());
    let loss = (&out * &weights).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    for (index, var) in vars.iter().enumerate() {
        let expected = finite_differences(&arguments[index], &weights, |moved| {
            let mut moved_arguments = arguments.to_vec();
            moved_arguments[index] = moved.clone();
            f(&moved_arguments)
        });
        // Central differences of step 1e-6 are good to about 1e-9 of numbers of order one.
        let what = format!("{what}, argument {index}");
        assert_close(&what, gradients.get(var).unwrap(), &expected, 1e-7, 1e-6);
    }
}

#[test]
fn convolution() {
    for (images, weights, stride, padding) in [
        ([2, 3, 6, 5], [4, 3, 3, 3], 1, 1),
        ([2, 3, 6, 5], [4, 3, 3, 3], 2, 1),
        ([1, 2, 7, 7], [3, 2, 5, 5], 1, 2),
        ([2, 4, 6, 6], [3, 4, 1, 1], 2, 0),
        ([1, 1, 5, 5], [2, 1, 3, 3], 1, 0),
        ([1, 1, 4, 4], [2, 1, 3, 3], 3, 4),
    ] {
        check(
            &format!("conv2d {images:?} {weights:?} {stride} {padding}"),
            &[numbers(1, &images), numbers(2, &weights)],
            |t| kernels::conv2d(&t[0], &t[1], stride, padding).unwrap(),
        );
    }
}

#[test]
fn linear() {
    let arguments = [numbers(1, &[3, 5]), numbers(2, &[4, 5]), numbers(3, &[4])];
    check("linear", &arguments, |t| {
        kernels::linear(&t[0], &t[1], Some(&t[2])).unwrap()
    });
    check("linear without bias", &arguments[..2], |t| {
        kernels::linear(&t[0], &t[1], None).unwrap()
    });
}

#[test]
fn sums_with_relu() {
    for shape in [[2, 3, 2, 3].as_slice(), &[4, 3]] {
        for activation in [Activation::None, Activation::Relu] {
            check(
                &format!("add_bias {shape:?} {activation:?}"),
                &[numbers(1, shape), numbers(2, &[3])],
                |t| kernels::add_bias(&t[0], &t[1], activation).unwrap(),
            );
        }
        check("add_relu", &[numbers(1, shape), numbers(2, shape)], |t| {
            kernels::add_relu(&t[0], &t[1]).unwrap()
        });
    }
}

#[test]
fn relu_and_pooling() {
    let images = numbers(1, &[2, 3, 5, 4]);
    check("relu", std::slice::from_ref(&images), |t| kernels::relu(&t[0]).unwrap());
    check("max_pool2d", std::slice::from_ref(&images), |t| {
        kernels::max_pool2d(&t[0], 2).unwrap()
    });
    check("avg_pool2d", &[images], |t| kernels::avg_pool2d(&t[0], 2).unwrap());
}

#[test]
fn batch_norm() {
    let arguments = [
        numbers(1, &[3, 2, 4, 3]),
        (numbers(2, &[2]) + 1.5).unwrap(),
        numbers(3, &[2]),
    ];
    let modes = [Statistics::Running, Statistics::Batch];
    let activations = [Activation::None, Activation::Relu];
    for (statistics, activation) in modes
        .into_iter()
        .flat_map(|mode| activations.map(|activation| (mode, activation)))
    {
        check(&format!("batch_norm {statistics:?} {activation:?}"), &arguments, |t| {
            let norm = norm(t[1].clone(), t[2].clone());
            kernels::batch_norm(&t[0], &norm, statistics, activation).unwrap()
        });
    }
}

fn norm(weight: Tensor, bias: Tensor) -> BatchNorm {
    let statistics = |values: [f64; 2]| Var::new(&values, &Device::Cpu).unwrap();
    BatchNorm {
        weight,
        bias,
        running_mean: statistics([0.1, -0.2]),
        running_var: statistics([0.5, 1.5]),
        epsilon: 1e-5,
        momentum: 0.1,
        updates: Default::default(),
    }
}

#[test]
fn softmax() {
    let logits = (numbers(1, &[4, 5]) * 3.0).unwrap();
    let labels = Tensor::new(&[0u32, 4, 2, 2], &Device::Cpu).unwrap();
    check("log_softmax", std::slice::from_ref(&logits), |t| {
        kernels::log_softmax(&t[0]).unwrap()
    });
    check("cross_entropy", &[logits], |t| {
        kernels::cross_entropy(&t[0], &labels).unwrap()
    });
}

#[test]
fn a_maximum_that_ties_gives_its_gradient_to_the_first() {
    let images = Var::new(&[[[[1f32, 1.], [0., 1.]]]], &Device::Cpu).unwrap();
    let out = kernels::max_pool2d(&images, 2).unwrap();
    let gradient = out.backward().unwrap().remove(&images).unwrap();
    assert_eq!(naive::doubles(&gradient), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn relu_at_zero_has_no_gradient_and_keeps_nan() {
    let x = Var::new(&[0f32, -0.0, 1.0, f32::NAN], &Device::Cpu).unwrap();
    let y = kernels::relu(&x).unwrap();
    assert!(naive::doubles(&y)[3].is_nan());
    let gradient = y.backward().unwrap().remove(&x).unwrap();
    assert_eq!(naive::doubles(&gradient)[..3], [0.0, 0.0, 1.0]);
}

#[test]
fn logits_far_apart_have_finite_gradients() {
    let logits = Var::new(&[[60f32, -60., 0.], [-60., 60., 60.]], &Device::Cpu).unwrap();
    let labels = Tensor::new(&[1u32, 0], &Device::Cpu).unwrap();
    let loss = kernels::cross_entropy(&logits, &labels).unwrap();
    // The second row: 120 + ln 2, to the precision of f32 at 120.
    let values = naive::doubles(&loss);
    assert!((values[0] - 120.0).abs() < 1e-5 && (values[1] - 120.0 - 2f64.ln()).abs() < 1e-5);
    let gradient = loss.sum_all().unwrap().backward().unwrap().remove(&logits).unwrap();
    let expected = Tensor::new(&[[1f64, -1., 0.], [-1., 0.5, 0.5]], &Device::Cpu).unwrap();
    assert_close("gradient", &gradient, &expected, 1e-6, 0.0);
}

#[test]
fn only_tracked_arguments_get_gradients() {
    let images = Var::from_tensor(&numbers(1, &[1, 2, 4, 4])).unwrap();
    let weights = numbers(2, &[3, 2, 3, 3]);
    let out = kernels::conv2d(&images, &weights, 1, 1).unwrap();
    let gradients = out.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&weights).is_none() && gradients.get(&images).is_some());
    assert_eq!(gradients.get(&images).unwrap().dtype(), DType::F64);
}
