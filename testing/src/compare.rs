//! Comparing tensors, and gradients with finite differences.

use std::fmt::Debug;
use std::str::FromStr;

use candle_core::{DType, Device, Result, Tensor, Var};

/// Both precisions in which every reference case runs.
pub const BOTH: [DType; 2] = [DType::F32, DType::F64];

/// Fails unless the gradient that autograd gives for the sum of `function` agrees with central differences at
/// `point` (doubles).
#[track_caller]
pub fn assert_gradient(what: &str, point: &Tensor, function: impl Fn(&Tensor) -> Result<Tensor>) {
    const STEP: f64 = 1e-5;
    let variable = Var::from_tensor(&point.copy().unwrap()).unwrap();
    let total = function(&variable).unwrap().sum_all().unwrap();
    let gradients = total.backward().unwrap();
    let gradient = gradients.get(&variable).cloned().unwrap_or(point.zeros_like().unwrap());
    let values = reference::doubles(point);
    let at = |place: usize, step: f64| {
        let mut moved = values.clone();
        moved[place] += step;
        let total = function(&tensor(&moved, point.dims())).unwrap().sum_all().unwrap();
        total.to_scalar::<f64>().unwrap()
    };
    let expected: Vec<f64> = (0..values.len())
        .map(|i| (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP))
        .collect();
    assert_near(what, &gradient, &tensor(&expected, point.dims()), 1e-6);
}

/// A recorded number as the exact decimal that it was written as.
pub fn decimal<T: FromStr<Err: Debug>>(value: f64) -> T {
    value.to_string().parse().unwrap()
}

/// A tensor of doubles on the CPU.
pub fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap()
}

/// Fails unless |actual − expected| ≤ `tolerance` · max(1, |expected|) wherever `skip` is false.
#[track_caller]
pub fn assert_near_where(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f64, skip: impl Fn(usize) -> bool) {
    assert_eq!(actual.dims(), expected.dims(), "{what}: shape");
    let (actual, expected) = (reference::doubles(actual), reference::doubles(expected));
    for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
        let close = (a - e).abs() <= tolerance * e.abs().max(1.0);
        assert!(close || skip(i), "{what}[{i}]: {a} instead of {e}; off by {:e}", a - e);
    }
}

/// Fails unless |actual − expected| ≤ `tolerance` · max(1, |expected|) everywhere.
#[track_caller]
pub fn assert_near(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_near_where(what, actual, expected, tolerance, |_| false);
}

/// One of two tolerances.
pub fn tolerance(dtype: DType, single: f64, double: f64) -> f64 {
    if dtype == DType::F32 { single } else { double }
}
