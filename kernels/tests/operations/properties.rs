//! Random shapes against loops in f64; results that must not depend on threads, batch or memory order.

use crate::naive::{self, bits, numbers};
use candle_core::{DType, Device, Tensor, Var};
use kernels::{Activation, BatchNorm, Statistics};
use proptest::prelude::*;
use reference::assert_close;

#[derive(Debug, Clone)]
struct Case {
    batch: usize,
    channels: usize,
    outputs: usize,
    size: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    // 32 and 64 go by Winograd where sizes are even.
    let channels = prop::sample::select(vec![1usize, 2, 3, 8, 17, 32, 33, 64]);
    let kernel = prop::sample::select(vec![1usize, 2, 3, 5]);
    (
        1usize..5,
        channels.clone(),
        channels,
        [1usize..18, 1usize..18],
        kernel,
        1usize..3,
        0usize..3,
        any::<u64>(),
    )
        .prop_map(|(batch, channels, outputs, size, kernel, stride, padding, seed)| Case {
            batch,
            channels,
            outputs,
            size: size.map(|side| side.max(kernel)),
            kernel,
            stride,
            padding,
            seed,
        })
}

impl Case {
    fn images(&self) -> Tensor {
        numbers(self.seed, &[self.batch, self.channels, self.size[0], self.size[1]])
    }

    fn weights(&self) -> Tensor {
        numbers(self.seed ^ 1, &[self.outputs, self.channels, self.kernel, self.kernel])
    }
}

/// Result and both gradients of a convolution whose output is weighted by `weights`.
fn convolve(images: &Tensor, weights: &Tensor, case: &Case) -> [Tensor; 3] {
    let (x, w) = (Var::from_tensor(images).unwrap(), Var::from_tensor(weights).unwrap());
    let out = kernels::conv2d(&x, &w, case.stride, case.padding).unwrap();
    let factors = numbers(case.seed ^ 2, out.dims()).to_dtype(out.dtype()).unwrap();
    let loss = (&out * factors).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    [
        out,
        gradients.get(&x).unwrap().clone(),
        gradients.get(&w).unwrap().clone(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn convolution_is_the_naive_one(case in cases()) {
        let (images, weights) = (case.images(), case.weights());
        let expected = naive::convolution(&images, &weights, case.stride, case.padding);
        let double = convolve(&images, &weights, &case);
        assert_close("f64", &double[0], &expected, 1e-12, 1e-12);
        let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let single = convolve(&single(&images), &single(&weights), &case);
        // Sums of up to 64·25 products and, for weights, 4·20² pixels of numbers up to one.
        for (what, (single, double)) in ["result", "images", "weights"].iter().zip(single.iter().zip(&double)) {
            assert_close(&format!("f32 {what}"), single, double, 2e-4, 1e-5);
        }
    }

    #[test]
    fn convolution_does_not_depend_on_threads_or_batch(case in cases()) {
        let (images, weights) = (case.images().to_dtype(DType::F32).unwrap(), case.weights().to_dtype(DType::F32).unwrap());
        let one = with_threads(1, || convolve(&images, &weights, &case));
        let two = with_threads(2, || convolve(&images, &weights, &case));
        for (one, two) in one.iter().zip(&two) {
            prop_assert_eq!(bits(one), bits(two));
        }
        let factors = numbers(case.seed ^ 2, one[0].dims()).to_dtype(DType::F32).unwrap();
        for row in 0..case.batch {
            let alone = Var::from_tensor(&images.narrow(0, row, 1).unwrap()).unwrap();
            let out = kernels::conv2d(&alone, &weights, case.stride, case.padding).unwrap();
            prop_assert_eq!(bits(&out), bits(&one[0].narrow(0, row, 1).unwrap()));
            let loss = (out * factors.narrow(0, row, 1).unwrap()).unwrap().sum_all().unwrap();
            let gradient = loss.backward().unwrap().remove(&alone).unwrap();
            prop_assert_eq!(bits(&gradient), bits(&one[1].narrow(0, row, 1).unwrap()));
        }
    }

    #[test]
    fn linear_is_the_naive_one_row_by_row(batch in 1usize..7, features in 1usize..300, outputs in 1usize..40, seed: u64) {
        let x = numbers(seed, &[batch, features]);
        let (w, b) = (numbers(seed ^ 1, &[outputs, features]), numbers(seed ^ 2, &[outputs]));
        let expected = x.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
        assert_close("f64", &kernels::linear(&x, &w, Some(&b)).unwrap(), &expected, 1e-12, 1e-12);
        let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let (x, w, b) = (single(&x), single(&w), single(&b));
        let all = with_threads(2, || kernels::linear(&x, &w, Some(&b)).unwrap());
        assert_close("f32", &all, &expected, 1e-4, 1e-5);
        for row in 0..batch {
            let alone = kernels::linear(&x.narrow(0, row, 1).unwrap(), &w, Some(&b)).unwrap();
            prop_assert_eq!(bits(&alone), bits(&all.narrow(0, row, 1).unwrap()));
        }
    }
}

fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(f)
}

/// Winograd's way rounds more than the direct sum; how much is a promise.
#[test]
fn winograd_is_good_to_a_hundred_thousandth() {
    for (channels, outputs, side, padding) in [(32, 32, 12, 0), (64, 64, 16, 1), (64, 96, 8, 1), (512, 512, 4, 1)] {
        let case = Case {
            batch: 2,
            channels,
            outputs,
            size: [side; 2],
            kernel: 3,
            stride: 1,
            padding,
            seed: 7,
        };
        let double = convolve(&case.images(), &case.weights(), &case);
        let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let single = convolve(&single(&case.images()), &single(&case.weights()), &case);
        for (what, (single, double)) in ["result", "images", "weights"].iter().zip(single.iter().zip(&double)) {
            reference::assert_close_to_largest(&format!("{channels} channels, {what}"), single, double, 1e-5);
        }
    }
}

#[test]
fn a_bias_and_a_relu_may_come_with_the_convolution() {
    for (channels, dtype) in [(3, DType::F32), (32, DType::F32), (3, DType::F64)] {
        let x = numbers(1, &[3, channels, 6, 8]).to_dtype(dtype).unwrap();
        let w = numbers(2, &[32, channels, 3, 3]).to_dtype(dtype).unwrap();
        let b = numbers(3, &[32]).to_dtype(dtype).unwrap();
        for activation in [Activation::None, Activation::Relu] {
            let run = |f: &dyn Fn(&[Tensor; 3]) -> Tensor| {
                let vars = [&x, &w, &b].map(|tensor| Var::from_tensor(tensor).unwrap());
                let out = f(&[0, 1, 2].map(|i: usize| vars[i].as_tensor().clone()));
                let gradients = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let all = vars.map(|var| naive::doubles(gradients.get(&var).unwrap()));
                (naive::doubles(&out), all)
            };
            let (out, gradients) = run(&|[x, w, b]| kernels::conv2d_with_bias(x, w, b, 1, 1, activation).unwrap());
            let (two, two_gradients) =
                run(&|[x, w, b]| kernels::add_bias(&kernels::conv2d(x, w, 1, 1).unwrap(), b, activation).unwrap());
            assert_eq!((out, gradients), (two, two_gradients), "{channels} {activation:?}");
        }
    }
}

#[test]
fn batch_norm_does_not_depend_on_threads() {
    let images = Var::from_tensor(&numbers(1, &[5, 7, 6, 5]).to_dtype(DType::F32).unwrap()).unwrap();
    let run = || {
        let norm = norm(7);
        let out = kernels::batch_norm(&images, &norm, Statistics::BatchAndUpdate, Activation::None).unwrap();
        let weights = numbers(2, out.dims()).to_dtype(DType::F32).unwrap();
        let gradients = (&out * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let of = |t: &Tensor| bits(gradients.get(t).unwrap());
        let state = [norm.running_mean.as_tensor(), norm.running_var.as_tensor()].map(bits);
        (bits(&out), of(&images), of(&norm.weight), of(&norm.bias), state)
    };
    assert_eq!(with_threads(1, run), with_threads(2, run));
}

fn norm(channels: usize) -> BatchNorm {
    let ones = || Var::from_tensor(&Tensor::ones(channels, DType::F32, &Device::Cpu).unwrap()).unwrap();
    BatchNorm {
        weight: ones().as_tensor().clone(),
        bias: ones().as_tensor().clone(),
        running_mean: ones(),
        running_var: ones(),
        epsilon: 1e-5,
        momentum: 0.1,
        updates: Default::default(),
    }
}

#[test]
fn a_sign_step_is_the_one_in_five_passes() {
    let shape = [3, 2, 70, 50];
    for dtype in [DType::F32, DType::F64] {
        let of = |seed: u64| numbers(seed, &shape).to_dtype(dtype).unwrap();
        let (points, centre) = (of(1), of(2));
        // With zeros among the gradients.
        let gradient = of(3).relu().unwrap().mul(&of(4)).unwrap();
        let (lower, upper) = ((&centre - 0.4).unwrap(), (&centre + 0.4).unwrap());
        let once = kernels::sign_step(&points, &gradient, 0.1, &lower, &upper).unwrap();
        let moved = (&points + (gradient.sign().unwrap() * 0.1).unwrap()).unwrap();
        let five = moved.maximum(&lower).unwrap().minimum(&upper).unwrap();
        assert_eq!(naive::doubles(&once), naive::doubles(&five));
    }
}

#[test]
fn running_statistics_move_only_when_asked() {
    let images = Tensor::new(&[[[[1f32]], [[2.]]], [[[3.]], [[6.]]]], &Device::Cpu).unwrap();
    let norm = norm(2);
    for statistics in [Statistics::Running, Statistics::Batch] {
        kernels::batch_norm(&images, &norm, statistics, Activation::None).unwrap();
        assert_eq!(naive::doubles(norm.running_mean.as_tensor()), [1.0, 1.0]);
    }
    kernels::batch_norm(&images, &norm, Statistics::BatchAndUpdate, Activation::None).unwrap();
    let expected = Tensor::new(&[0.9 + 0.1 * 2.0, 0.9 + 0.1 * 4.0], &Device::Cpu).unwrap();
    assert_close("mean", norm.running_mean.as_tensor(), &expected, 1e-6, 0.0);
    // Unbiased variances 2 and 8.
    let expected = Tensor::new(&[0.9 + 0.1 * 2.0, 0.9 + 0.1 * 8.0], &Device::Cpu).unwrap();
    assert_close("variance", norm.running_var.as_tensor(), &expected, 1e-6, 0.0);
}

#[test]
fn memory_order_does_not_matter() {
    let turned = numbers(1, &[6, 5, 3, 2]).permute((3, 2, 1, 0)).unwrap(); // [2, 3, 5, 6], not contiguous
    let plain = turned.contiguous().unwrap();
    let weights = numbers(2, &[3, 3, 4, 3]).transpose(0, 2).unwrap(); // [4, 3, 3, 3]
    let same = |what: &str, f: &dyn Fn(&Tensor) -> Tensor| {
        let out = [&turned, &plain].map(|x| {
            let x = Var::from_tensor(x).unwrap();
            let view = x.as_tensor().clone();
            let out = f(&view);
            // A gradient that is a transposed view itself.
            let loss = out
                .t()
                .unwrap()
                .flatten_all()
                .unwrap()
                .sqr()
                .unwrap()
                .sum_all()
                .unwrap();
            (
                naive::doubles(&out),
                naive::doubles(loss.backward().unwrap().get(&x).unwrap()),
            )
        });
        assert_eq!(out[0], out[1], "{what}");
    };
    same("conv2d", &|x| kernels::conv2d(x, &weights, 1, 1).unwrap());
    same("relu", &|x| kernels::relu(x).unwrap());
    same("max_pool2d", &|x| kernels::max_pool2d(x, 2).unwrap());
    same("avg_pool2d", &|x| kernels::avg_pool2d(x, 2).unwrap());
    let rows = turned.flatten_from(2).unwrap().get(0).unwrap().t().unwrap();
    let product = kernels::linear(&rows, &numbers(3, &[4, 3]), None).unwrap();
    let again = kernels::linear(&rows.contiguous().unwrap(), &numbers(3, &[4, 3]), None).unwrap();
    assert_eq!(naive::doubles(&product), naive::doubles(&again));
}

#[test]
fn wrong_operands_are_refused_by_name() {
    let t = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let says = |result: candle_core::Result<Tensor>, words: &[&str]| {
        let message = result.unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} does not say {word:?}");
        }
    };
    let images = t(&[2, 3, 8, 8]);
    says(
        kernels::conv2d(&images, &t(&[4, 5, 3, 3]), 1, 1),
        &["[2, 3, 8, 8]", "[4, 5, 3, 3]"],
    );
    says(kernels::conv2d(&images, &t(&[4, 3, 3]), 1, 1), &["[4, 3, 3]"]);
    says(kernels::conv2d(&t(&[3, 8, 8]), &t(&[4, 3, 3, 3]), 1, 1), &["[3, 8, 8]"]);
    says(
        kernels::conv2d(&images, &t(&[4, 3, 9, 9]), 1, 0),
        &["[2, 3, 8, 8]", "[4, 3, 9, 9]"],
    );
    says(kernels::conv2d(&images, &t(&[4, 3, 3, 3]), 0, 1), &["stride 0"]);
    says(
        kernels::conv2d_with_bias(&images, &t(&[4, 3, 3, 3]), &t(&[3]), 1, 1, Activation::Relu),
        &["[3]", "[4, 3, 3, 3]"],
    );
    let double = t(&[4, 3, 3, 3]).to_dtype(DType::F64).unwrap();
    says(kernels::conv2d(&images, &double, 1, 1), &["F32", "F64"]);
    let half = images.to_dtype(DType::F16).unwrap();
    says(kernels::relu(&half), &["F16"]);
    says(kernels::linear(&t(&[2, 3]), &t(&[4, 5]), None), &["[2, 3]", "[4, 5]"]);
    says(
        kernels::linear(&t(&[2, 3]), &t(&[4, 3]), Some(&t(&[3]))),
        &["[3]", "[4, 3]"],
    );
    says(kernels::max_pool2d(&images, 9), &["[2, 3, 8, 8]", "9"]);
    says(kernels::avg_pool2d(&images, 0), &["0"]);
    says(
        kernels::batch_norm(&images, &norm(4), Statistics::Batch, Activation::None),
        &["[4]", "[2, 3, 8, 8]"],
    );
    says(
        kernels::batch_norm(&t(&[1, 4, 1, 1]), &norm(4), Statistics::Batch, Activation::None),
        &["[1, 4, 1, 1]"],
    );
    let labels = Tensor::new(&[0u32, 1, 2], &Device::Cpu).unwrap();
    says(kernels::cross_entropy(&t(&[2, 3]), &labels), &["[3]", "[2, 3]"]);
    says(kernels::cross_entropy(&t(&[3, 2]), &labels), &["label 2", "2 classes"]);
    says(kernels::log_softmax(&t(&[3])), &["[3]"]);
    says(
        kernels::sign_step(&t(&[2, 3]), &t(&[3, 2]), 0.1, &t(&[2, 3]), &t(&[2, 3])),
        &["gradients", "[3, 2]"],
    );
}

#[test]
fn an_empty_batch_stays_empty() {
    let images = Tensor::zeros((0, 3, 8, 8), DType::F32, &Device::Cpu).unwrap();
    let weights = Tensor::zeros((4, 3, 3, 3), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(kernels::conv2d(&images, &weights, 1, 1).unwrap().dims(), [0, 4, 8, 8]);
    assert_eq!(kernels::max_pool2d(&images, 2).unwrap().dims(), [0, 3, 4, 4]);
    assert_eq!(kernels::relu(&images).unwrap().dims(), [0, 3, 8, 8]);
}
