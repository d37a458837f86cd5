//! Every kernel, and the sequences made of them, against the operations of the CPU. The machine is an emulator, so
//! nothing here needs a GPU; what it cannot show is what cuDNN and a card's own arithmetic add.

mod elements;
mod frozen;
mod logits;
mod norm;
mod pool;
mod steps;
mod trained;

use std::collections::BTreeSet;

use candle_core::{Device, Tensor, Var};
use random::Stream;

use super::emulator::Emulator;
use super::machine::{self, Extent, Form};
use super::source::{KERNELS, kernel_names};

/// Numbers in [-1, 1), f32.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let draws = Stream::new(seed).uniform(&[0], len);
    draws.iter().map(|&u| 2.0 * u - 1.0).collect()
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// `|actual − expected| ≤ tolerance · largest |expected|`.
#[track_caller]
fn assert_near(what: &str, actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_near_sums(what, actual, expected, tolerance, 1e-30);
}

/// The same for sums of terms of the given size, whose rounding stays where they cancel out.
#[track_caller]
fn assert_near_sums(what: &str, actual: &[f32], expected: &[f32], tolerance: f32, size: f32) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(size, |largest, value| largest.max(value.abs()));
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let fits = (a - e).abs() <= tolerance * largest;
        assert!(fits, "{what}[{i}]: {a} instead of {e}, largest {largest}");
    }
}

#[track_caller]
fn assert_same(what: &str, actual: &[f32], expected: &[f32]) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    if let Some(i) = (0..actual.len()).find(|&i| bits(actual)[i] != bits(expected)[i]) {
        panic!("{what}[{i}]: {} instead of {}", actual[i], expected[i]);
    }
    assert_eq!(actual.len(), expected.len(), "{what}: length");
}

/// Result, and the gradients of Σ weights · result to all arguments.
fn with_gradients(arguments: &[Tensor], weights: &[f32], f: impl Fn(&[Tensor]) -> Tensor) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = arguments
        .iter()
        .map(|argument| Var::from_tensor(argument).unwrap())
        .collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let out = f(&tensors);
    let weights = tensor(weights, out.dims());
    let gradients = (&out * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = vars.iter().map(|var| gradients.get(var).unwrap().clone()).collect();
    (out, gradients)
}

/// A machine, or the end of the test where there is none.
macro_rules! emulator {
    () => {
        emulator!(())
    };
    ($end:expr) => {
        match Emulator::start() {
            Some(emulator) => emulator,
            None => return $end,
        }
    };
}
use emulator;

/// Numbers `[B, C, A]` put into a form.
fn enter(gpu: &Emulator, form: Form, values: &[f32], extent: Extent) -> u64 {
    let to = gpu.alloc(form.width() * values.len());
    machine::enter(gpu, form, to, gpu.floats(values), extent).unwrap();
    to
}

/// The numbers `[B, C, A]` that are stored somewhere in a form.
fn leave(gpu: &Emulator, form: Form, at: u64, extent: Extent) -> Vec<f32> {
    let to = gpu.room(extent.len() as usize);
    machine::leave(gpu, form, to, at, extent).unwrap();
    gpu.get(to, extent.len() as usize)
}

const PLAIN: Form = Form {
    half: false,
    last: false,
};

/// f32 with channels first and last.
const SINGLE: [Form; 2] = [PLAIN, Form { last: true, ..PLAIN }];

#[test]
fn every_kernel_is_known_by_name() {
    let names: BTreeSet<&str> = kernel_names().collect();
    assert_eq!(
        names.len(),
        KERNELS.matches("\nKERNEL ").count(),
        "two kernels of one name"
    );
    assert!(names.contains("philox_normal") && names.contains("finish_bf16"));
    // And used: by its name, or by the name that the two types share.
    let users = [
        include_str!("../machine/elements.rs"),
        include_str!("../machine/logits.rs"),
        include_str!("../machine/norm.rs"),
        include_str!("../machine/pool.rs"),
        include_str!("../machine/steps.rs"),
    ]
    .concat();
    for name in names {
        let shared = name.trim_end_matches("_f32").trim_end_matches("_bf16");
        let used = [name, shared].iter().any(|name| users.contains(&format!("\"{name}\"")));
        assert!(used, "{name} is never launched");
    }
}
