//! Every kernel, and the sequences made of them, against the operations of the CPU. The machine is an emulator, so
//! nothing here needs a GPU; what it cannot show is what cuDNN and a card's own arithmetic add.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor, Var};
use proptest::prelude::*;
use random::Stream;

use super::emulator::Emulator;
use super::machine::{self, Cut, Extent, Form, GradientSums, Grid, Machine, Moments, Normalised, SgdStep, Windows};
use super::program::{AttackStep, Bases, Layer, Parameters, Program, Source, Staging, Structure};
use super::{KERNELS, kernel_names};
use crate::ascent::Loss;
use crate::convolution::Geometry;
use crate::{Activation, BatchNorm, Statistics};

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
    let vars: Vec<Var> = arguments.iter().map(|it| Var::from_tensor(it).unwrap()).collect();
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
        include_str!("machine.rs"),
        include_str!("program.rs"),
        include_str!("operations.rs"),
    ]
    .concat();
    for name in names {
        let shared = name.trim_end_matches("_f32").trim_end_matches("_bf16");
        let used = [name, shared].iter().any(|it| users.contains(&format!("\"{it}\"")));
        assert!(used, "nobody launches {name}");
    }
}

#[test]
fn bfloat16_rounds_to_the_nearest_even() {
    let gpu = emulator!();
    let values = [
        1.0,
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        f32::from_bits(0x3f80_8001),
        f32::MAX,
        -0.0,
        1e-40,
    ];
    let (x, half, back) = (gpu.floats(&values), gpu.alloc(2 * values.len()), gpu.room(values.len()));
    use machine::Arg::{At, U32};
    let n = values.len() as u32;
    gpu.launch("to_bf16", Grid::over(n), &[At(half), At(x), U32(n)])
        .unwrap();
    gpu.launch("to_f32", Grid::over(n), &[At(back), At(half), U32(n)])
        .unwrap();
    let expected: Vec<f32> = values
        .iter()
        .map(|&value| half::bf16::from_f32(value).to_f32())
        .collect();
    assert_same("rounded", &gpu.get(back, values.len()), &expected);
    let nan = gpu.floats(&[f32::NAN]);
    gpu.launch("to_bf16", Grid::over(1), &[At(half), At(nan), U32(1)])
        .unwrap();
    gpu.launch("to_f32", Grid::over(1), &[At(back), At(half), U32(1)])
        .unwrap();
    assert!(gpu.get(back, 1)[0].is_nan());
}

#[test]
fn draws_are_the_cpus_bits() {
    let gpu = emulator!();
    let ids = [0u64, 7, u64::MAX, 1 << 40];
    for (key, len) in [(3, 1), (u64::MAX - 5, 6), (1 << 50, 20_001)] {
        let stream = Stream::new(key);
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let (at, out) = (gpu.alloc(bytes.len()), gpu.room(ids.len() * len));
        gpu.write(at, &bytes);
        let shape = [ids.len() as u32, len as u32];
        machine::draws(&gpu, out, at, shape, key, false).unwrap();
        assert_same("uniform", &gpu.get(out, ids.len() * len), &stream.uniform(&ids, len));
        machine::draws(&gpu, out, at, shape, key, true).unwrap();
        assert_same("normal", &gpu.get(out, ids.len() * len), &stream.normal(&ids, len));
    }
}

#[test]
fn logits() {
    let gpu = emulator!();
    for (batch, classes, scale) in [(1, 2, 1.0), (33, 10, 5.0), (4, 100, 60.0)] {
        let values: Vec<f32> = numbers(1, batch * classes).iter().map(|z| z * scale).collect();
        let labels: Vec<u32> = (0..batch).map(|b| (b * 3 % classes) as u32).collect();
        let weights = numbers(2, batch * classes);
        let shape = [batch as u32, classes as u32];
        let (z, g, y) = (gpu.floats(&values), gpu.floats(&weights), gpu.words(&labels));
        let (out, to) = (gpu.room(batch * classes), gpu.room(batch * classes));

        let on_cpu = tensor(&values, &[batch, classes]);
        let (logs, gradients) = with_gradients(std::slice::from_ref(&on_cpu), &weights, |t| {
            crate::log_softmax(&t[0]).unwrap()
        });
        machine::log_softmax(&gpu, out, z, shape).unwrap();
        assert_near("log softmax", &gpu.get(out, batch * classes), &flat(&logs), 1e-6);
        machine::log_softmax_gradient(&gpu, to, out, g, shape).unwrap();
        assert_near(
            "its gradient",
            &gpu.get(to, batch * classes),
            &flat(&gradients[0]),
            1e-6,
        );

        let on_cpu_labels = Tensor::new(labels.clone(), &Device::Cpu).unwrap();
        let (losses, gradients) = with_gradients(&[on_cpu], &weights[..batch], |t| {
            crate::cross_entropy(&t[0], &on_cpu_labels).unwrap()
        });
        machine::cross_entropy(&gpu, out, z, y, shape).unwrap();
        assert_near("cross entropy", &gpu.get(out, batch), &flat(&losses), 1e-6);
        machine::cross_entropy_gradient(&gpu, to, [z, y, g], shape).unwrap();
        assert_near(
            "its gradient",
            &gpu.get(to, batch * classes),
            &flat(&gradients[0]),
            1e-6,
        );
    }
}

#[test]
fn a_label_that_is_no_class_makes_a_nan() {
    let gpu = emulator!();
    let (z, y, out) = (gpu.floats(&[1.0, 2.0]), gpu.words(&[2]), gpu.room(1));
    machine::cross_entropy(&gpu, out, z, y, [1, 2]).unwrap();
    assert!(gpu.get(out, 1)[0].is_nan());
}

/// What each loss is, in double precision.
fn loss(loss: Loss, z: &[f64], label: usize, clean: &[f64]) -> f64 {
    let log_sum = |z: &[f64]| z.iter().map(|z| z.exp()).sum::<f64>().ln();
    let wrong = || z.iter().enumerate().filter(move |(k, _)| *k != label).map(|(_, z)| *z);
    let margin = wrong().fold(f64::NEG_INFINITY, f64::max) - z[label];
    match loss {
        Loss::CrossEntropy => log_sum(z) - z[label],
        Loss::Kl => {
            let (a, b) = (log_sum(clean), log_sum(z));
            clean
                .iter()
                .zip(z)
                .map(|(c, z)| (c - a).exp() * ((c - a) - (z - b)))
                .sum()
        }
        Loss::Margin => margin,
        Loss::Cw(kappa) => -(f64::from(kappa) - margin).max(0.0),
        Loss::SoftMargin => wrong().map(f64::exp).sum::<f64>().ln() - z[label],
        Loss::Hinge(kappa) => (margin + f64::from(kappa)).max(0.0),
    }
}

#[test]
fn gradients_of_attack_losses() {
    let gpu = emulator!();
    let (batch, classes) = (17usize, 5usize);
    let z: Vec<f32> = numbers(3, batch * classes).iter().map(|z| 3.0 * z).collect();
    let clean = numbers(4, batch * classes);
    let labels: Vec<u32> = (0..batch).map(|b| (b % classes) as u32).collect();
    let at = [gpu.floats(&z), gpu.words(&labels), gpu.floats(&clean)];
    let out = gpu.room(z.len());
    for which in [
        Loss::CrossEntropy,
        Loss::Kl,
        Loss::Margin,
        Loss::Cw(0.0),
        Loss::Cw(50.0),
        Loss::SoftMargin,
        Loss::Hinge(1.0),
    ] {
        machine::loss_gradient(&gpu, out, at, which, [batch as u32, classes as u32]).unwrap();
        let found = gpu.get(out, z.len());
        for b in 0..batch {
            let row = |values: &[f32]| -> Vec<f64> {
                values[b * classes..][..classes].iter().map(|&v| f64::from(v)).collect()
            };
            let (z, clean) = (row(&z), row(&clean));
            for k in 0..classes {
                let moved = |by: f64| {
                    let mut z = z.clone();
                    z[k] += by;
                    loss(which, &z, labels[b] as usize, &clean)
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                let value = f64::from(found[b * classes + k]);
                assert!(
                    (value - slope).abs() < 1e-6,
                    "{which:?} {b} {k}: {value} instead of {slope}"
                );
            }
        }
    }
    // Two wrong classes as good as each other: the first.
    let tied = [gpu.floats(&[0.0, 2.0, 2.0]), gpu.words(&[0]), 0];
    machine::loss_gradient(&gpu, out, tied, Loss::Margin, [1, 3]).unwrap();
    assert_eq!(gpu.get(out, 3), [-1.0, 1.0, 0.0]);
}

#[test]
fn sign_steps_and_zero_gradients() {
    let gpu = emulator!();
    let n = 300usize;
    let (v, mut g) = (numbers(1, n), numbers(2, n));
    g[..100].fill(0.0);
    g[150] = -0.0;
    let centre = numbers(3, n);
    let (lower, upper): (Vec<f32>, Vec<f32>) = centre.iter().map(|c| (c - 0.5, c + 0.5)).unzip();
    let step = 8.0 / 255.0;
    let expected = {
        let [v, g, lower, upper] = [&v, &g, &lower, &upper].map(|it| tensor(it, &[n]));
        let moved = (v + (g.sign().unwrap() * f64::from(step)).unwrap()).unwrap();
        flat(&moved.maximum(&lower).unwrap().minimum(&upper).unwrap())
    };
    let at = [&v, &g, &lower, &upper].map(|it| gpu.floats(it));
    machine::sign_step(&gpu, at[0], at, step, n as u32).unwrap();
    assert_same("moved", &gpu.get(at[0], n), &expected);
    let flags = gpu.floats(&[0.0; 3]);
    machine::flag_zero(&gpu, flags, at[1], 3, 100).unwrap();
    assert_eq!(gpu.get(flags, 3), [1.0, 0.0, 0.0]);
}

#[test]
fn gradient_descent() {
    let gpu = emulator!();
    let n = 1000;
    let (start, g) = (numbers(1, n), numbers(2, n));
    for (momentum, decay, nesterov) in [(0.0, 0.0, false), (0.9, 3.5e-3, false), (0.9, 0.1, true)] {
        let (theta, buffer, gradient) = (gpu.floats(&start), gpu.room(n), gpu.floats(&g));
        let (mut expected, mut memory) = (start.clone(), vec![0f32; n]);
        for first in [true, false, false] {
            let step = SgdStep {
                rate: 0.01,
                momentum,
                decay,
                nesterov,
                first,
            };
            machine::sgd_step(&gpu, [theta, buffer, gradient], &step, n as u32).unwrap();
            for i in 0..n {
                let g = g[i] + expected[i] * decay as f32;
                memory[i] = if first { g } else { memory[i] * momentum as f32 + g };
                let ahead = if nesterov {
                    g + memory[i] * momentum as f32
                } else {
                    memory[i]
                };
                let direction = if momentum == 0.0 { g } else { ahead };
                expected[i] -= direction * 0.01f32;
            }
        }
        assert_same("theta", &gpu.get(theta, n), &expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn batch_normalisation(
        batch in 1usize..5,
        channels in 1usize..7,
        rows in 2usize..9,
        columns in 1usize..9,
        mode in 0usize..3,
        relu: bool,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let shape = [batch, channels, rows, columns];
        let n = shape.iter().product();
        let x: Vec<f32> = numbers(seed, n).iter().map(|x| x * 3.0 + 1.5).collect();
        let (weight, bias) = (numbers(seed + 1, channels), numbers(seed + 2, channels));
        let running_mean = numbers(seed + 3, channels);
        let running_var: Vec<f32> = numbers(seed + 4, channels).iter().map(|v| v * 0.5 + 1.0).collect();
        let g = numbers(seed + 5, n);
        let statistics = [Statistics::Running, Statistics::Batch, Statistics::BatchAndUpdate][mode];
        let activation = if relu { Activation::Relu } else { Activation::None };
        let norm = BatchNorm {
            weight: tensor(&weight, &[channels]),
            bias: tensor(&bias, &[channels]),
            running_mean: Var::from_tensor(&tensor(&running_mean, &[channels])).unwrap(),
            running_var: Var::from_tensor(&tensor(&running_var, &[channels])).unwrap(),
            epsilon: 1e-5,
            momentum: 0.1,
            updates: Default::default(),
        };
        let arguments = [tensor(&x, &shape), norm.weight.clone(), norm.bias.clone()];
        let (expected, gradients) = with_gradients(&arguments, &g, |t| {
            let norm = BatchNorm { weight: t[1].clone(), bias: t[2].clone(), ..norm.clone() };
            crate::batch_norm(&t[0], &norm, statistics, activation).unwrap()
        });

        let extent = Extent::new(&shape).unwrap();
        let partial = gpu.alloc(16 * channels * extent.slices() as usize);
        let moments = Moments { mean: gpu.room(channels), factor: gpu.room(channels), scale: gpu.alloc(8 * channels) };
        let running = [gpu.floats(&running_mean), gpu.floats(&running_var)];
        let [x, weight, bias, g] = [&x, &weight, &bias, &g].map(|it| gpu.floats(it));
        let source = match statistics {
            Statistics::Running => machine::Source::Running(running),
            _ => machine::Source::Batch {
                partial,
                running: (statistics == Statistics::BatchAndUpdate).then_some(running),
                momentum: 0.1,
            },
        };
        let out = gpu.room(n);
        machine::moments(&gpu, moments, x, weight, source, 1e-5, extent).unwrap();
        machine::normalise(&gpu, out, x, moments, bias, extent, relu).unwrap();
        assert_near_sums("result", &gpu.get(out, n), &flat(&expected), 1e-5, 1.0);
        assert_near_sums("running mean", &gpu.get(running[0], channels), &flat(norm.running_mean.as_tensor()), 1e-6, 1.0);
        assert_near("running variance", &gpu.get(running[1], channels), &flat(norm.running_var.as_tensor()), 1e-5);

        let of = Normalised {
            x,
            y: if relu { out } else { 0 },
            moments,
            weight,
            of_batch: statistics != Statistics::Running,
            extent,
        };
        let sums = GradientSums {
            partial,
            to_weight: gpu.room(channels),
            to_bias: gpu.room(channels),
            slope: gpu.room(channels),
            offset: gpu.room(channels),
        };
        machine::norm_gradient_sums(&gpu, &of, g, sums).unwrap();
        let to = gpu.room(n);
        machine::norm_gradient(&gpu, to, &of, g, of.of_batch.then_some(sums)).unwrap();
        // A number at the ReLU's edge may fall to either side.
        if !relu || flat(&expected).iter().zip(gpu.get(out, n)).all(|(a, b)| (*a > 0.0) == (b > 0.0)) {
            // Of two numbers per channel, the batch's statistics take all but ε away.
            let slope = gpu.get(moments.factor, channels).iter().fold(0f32, |largest, it| largest.max(it.abs()));
            let terms = ((n / channels) as f32).sqrt();
            assert_near_sums("gradient to images", &gpu.get(to, n), &flat(&gradients[0]), 2e-5, slope);
            assert_near_sums("gradient to weights", &gpu.get(sums.to_weight, channels), &flat(&gradients[1]), 2e-5, terms);
            assert_near_sums("gradient to biases", &gpu.get(sums.to_bias, channels), &flat(&gradients[2]), 2e-5, terms);
        }
    }

    #[test]
    fn biases_sums_and_relu(
        batch in 1usize..5,
        channels in 1usize..7,
        area in 1usize..50,
        relu: bool,
        with_bias: bool,
        with_other: bool,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let shape = [batch, channels, area, 1];
        let n = shape.iter().product();
        let (x, bias, other, g) = (numbers(seed, n), numbers(seed + 1, channels), numbers(seed + 2, n), numbers(seed + 3, n));
        let extent = Extent::new(&shape).unwrap();
        let mut expected = tensor(&x, &shape);
        if with_bias {
            expected = crate::add_bias(&expected, &tensor(&bias, &[channels]), Activation::None).unwrap();
        }
        if with_other {
            expected = (expected + tensor(&other, &shape)).unwrap();
        }
        if relu {
            expected = crate::relu(&expected).unwrap();
        }
        let at = [gpu.floats(&x), if with_bias { gpu.floats(&bias) } else { 0 }, if with_other { gpu.floats(&other) } else { 0 }];
        let out = gpu.room(n);
        machine::finish(&gpu, out, at, extent, relu).unwrap();
        assert_same("result", &gpu.get(out, n), &flat(&expected));

        let (gradient, to) = (gpu.floats(&g), gpu.room(n));
        machine::relu_gradient(&gpu, to, out, gradient, n as u32).unwrap();
        let masked: Vec<f32> = flat(&expected).iter().zip(&g).map(|(&y, &g)| if y <= 0.0 { 0.0 } else { g }).collect();
        assert_same("masked", &gpu.get(to, n), &masked);

        let (partial, sums) = (gpu.alloc(16 * channels * extent.slices() as usize), gpu.room(channels));
        machine::channel_sums(&gpu, sums, gradient, partial, extent).unwrap();
        let all: Vec<f32> = (0..channels)
            .map(|c| {
                let of = (0..n).filter(|i| i / area % channels == c);
                of.map(|i| f64::from(g[i])).sum::<f64>() as f32
            })
            .collect();
        assert_near("sums", &gpu.get(sums, channels), &all, 1e-6);
    }

    #[test]
    fn pooling(
        batch in 1usize..4,
        channels in 1usize..5,
        rows in 3usize..9,
        columns in 3usize..9,
        size in 1usize..4,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let shape = [batch, channels, rows, columns];
        let n: usize = shape.iter().product();
        // Few different numbers, so that maxima tie.
        let x: Vec<f32> = numbers(seed, n).iter().map(|x| (x * 3.0).round()).collect();
        let windows = Windows::square(shape, size);
        let m: usize = windows.out().iter().product();
        let g = numbers(seed + 1, m);
        for last in [false, true] {
            let form = Form { half: false, last };
            let enter = |values: &[f32], [_, c, h, w]: [usize; 4]| {
                let (from, to) = (gpu.floats(values), gpu.room(values.len()));
                use machine::Arg::{At, I32, U32};
                let args = [At(to), At(from), U32(values.len() as u32), U32(c as u32), U32((h * w) as u32), I32(i32::from(last))];
                gpu.launch("enter_f32", Grid::over(values.len() as u32), &args).unwrap();
                to
            };
            let leave = |at: u64, [b, c, h, w]: [usize; 4]| {
                let len = b * c * h * w;
                let to = gpu.room(len);
                use machine::Arg::{At, I32, U32};
                let args = [At(to), At(at), U32(len as u32), U32(c as u32), U32((h * w) as u32), I32(i32::from(last))];
                gpu.launch("leave_f32", Grid::over(len as u32), &args).unwrap();
                gpu.get(to, len)
            };
            let (images, gradient) = (enter(&x, shape), enter(&g, windows.out()));
            let (out, places, to) = (gpu.room(m), gpu.alloc(m), gpu.room(n));
            let on_cpu = [tensor(&x, &shape)];
            let (expected, gradients) = with_gradients(&on_cpu, &g, |t| crate::max_pool2d(&t[0], size).unwrap());
            machine::max_pool(&gpu, form, out, places, images, windows).unwrap();
            assert_same("maxima", &leave(out, windows.out()), &flat(&expected));
            machine::max_pool_gradient(&gpu, form, to, places, gradient, windows, false).unwrap();
            assert_same("gradient of maxima", &leave(to, shape), &flat(&gradients[0]));
            machine::max_pool_gradient(&gpu, form, to, places, gradient, windows, true).unwrap();
            let twice: Vec<f32> = flat(&gradients[0]).iter().map(|g| 2.0 * g).collect();
            assert_same("added gradient of maxima", &leave(to, shape), &twice);

            let (expected, gradients) = with_gradients(&on_cpu, &g, |t| crate::avg_pool2d(&t[0], size).unwrap());
            machine::mean_pool(&gpu, form, out, images, windows).unwrap();
            assert_near("means", &leave(out, windows.out()), &flat(&expected), 1e-6);
            machine::mean_pool_gradient(&gpu, form, to, gradient, windows, false).unwrap();
            assert_near("gradient of means", &leave(to, shape), &flat(&gradients[0]), 1e-6);
        }
    }

    #[test]
    fn crops_and_flips(
        batch in 1usize..5,
        channels in 1usize..4,
        rows in 5usize..9,
        columns in 5usize..9,
        pad in 0usize..5,
        reflect: bool,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let len = channels * rows * columns;
        let images: Vec<u8> = numbers(seed, 7 * len).iter().map(|x| (x * 100.0 + 100.0) as u8).collect();
        let random = Stream::new(seed);
        let which: Vec<u32> = (0..batch).map(|b| random.below(b as u64, 7) as u32).collect();
        let draws: Vec<[u32; 3]> = (0..batch as u64)
            .map(|b| {
                let draw = |k: u64, n: u64| random.at(k).below(b, n) as u32;
                [draw(1, 2 * pad as u64 + 1), draw(2, 2 * pad as u64 + 1), draw(3, 2)]
            })
            .collect();
        let cut = Cut { image: [channels, rows, columns], pad, reflect, scale: 255 };
        let at = gpu.alloc(images.len());
        gpu.write(at, &images);
        let out = gpu.room(batch * len);
        let operands = [at, gpu.words(&which), gpu.words(draws.as_flattened())];
        machine::crop_flip(&gpu, out, operands, batch as u32, &cut).unwrap();
        let found = gpu.get(out, batch * len);
        // Pixel by pixel in the padded image.
        let source = |at: usize, size: usize| -> Option<usize> {
            let at = at as isize - pad as isize;
            let size = size as isize;
            let mirrored = if at < 0 { -at } else if at >= size { 2 * (size - 1) - at } else { at };
            let at = if reflect { mirrored } else { at };
            (0..size).contains(&at).then_some(at as usize)
        };
        for b in 0..batch {
            let [top, left, flip] = draws[b].map(|it| it as usize);
            for (i, found) in found[b * len..][..len].iter().enumerate() {
                let (c, row, column) = (i / rows / columns, i / columns % rows, i % columns);
                let column = if flip == 1 { columns - 1 - column } else { column };
                let expected = match (source(row + top, rows), source(column + left, columns)) {
                    (Some(y), Some(x)) => f32::from(images[which[b] as usize * len + (c * rows + y) * columns + x]) / 255.0,
                    _ => 0.0,
                };
                prop_assert_eq!(found.to_bits(), expected.to_bits());
            }
        }
    }

    #[test]
    fn frozen_networks(
        batch in 1usize..4,
        channels in 1usize..4,
        width in 1usize..6,
        rows in 4usize..8,
        columns in 4usize..8,
        stride in 1usize..3,
        last: bool,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let net = Net::new([channels, rows, columns], width, stride, seed);
        net.check(&gpu, Form { half: false, last }, batch, seed);
    }
}

/// A network with every kind of layer: convolutions with norm, bias, residual, shortcut; a norm with ReLU; both
/// poolings; a fully connected one.
struct Net {
    image: [usize; 3],
    stride: usize,
    first: Tensor,
    second: Tensor,
    third: Tensor,
    shortcut: Tensor,
    bias: Tensor,
    norms: [BatchNorm; 3],
    linear: Tensor,
    linear_bias: Tensor,
    head: Tensor,
}

impl Net {
    fn new(image: [usize; 3], width: usize, stride: usize, seed: u64) -> Self {
        let [channels, rows, columns] = image;
        let [rows, columns] = [rows.div_ceil(stride) / 2, columns.div_ceil(stride) / 2];
        let make = |at: u64, shape: &[usize]| tensor(&numbers(seed + at, shape.iter().product()), shape);
        let norm = |at: u64| BatchNorm {
            weight: make(at, &[width]),
            bias: make(at + 1, &[width]),
            running_mean: Var::from_tensor(&make(at + 2, &[width])).unwrap(),
            running_var: Var::from_tensor(&make(at + 3, &[width]).affine(0.5, 1.0).unwrap()).unwrap(),
            epsilon: 1e-5,
            momentum: 0.1,
            updates: Default::default(),
        };
        Self {
            image,
            stride,
            first: make(0, &[width, channels, 3, 3]),
            second: make(1, &[width, width, 3, 3]),
            third: make(2, &[width, width, 1, 1]),
            shortcut: make(3, &[width, channels, 1, 1]),
            bias: make(4, &[width]),
            norms: [norm(10), norm(14), norm(18)],
            linear: make(5, &[5, width * rows * columns]),
            linear_bias: make(6, &[5]),
            head: make(7, &[5, width]),
        }
    }

    fn plain(&self, x: &Tensor) -> Tensor {
        let norm = |x: &Tensor, which: usize, activation| {
            crate::batch_norm(x, &self.norms[which], Statistics::Running, activation).unwrap()
        };
        let out = crate::conv2d(x, &self.first, self.stride, 1).unwrap();
        let out = norm(&out, 0, Activation::Relu);
        let out = crate::conv2d(&out, &self.second, 1, 1).unwrap();
        let out = norm(&out, 1, Activation::None);
        let shortcut = crate::conv2d(x, &self.shortcut, self.stride, 0).unwrap();
        let shortcut = crate::add_bias(&shortcut, &self.bias, Activation::None).unwrap();
        let out = crate::add_relu(&out, &shortcut).unwrap();
        // Read twice: by the norm and as a residual.
        let active = norm(&out, 2, Activation::Relu);
        let out = (crate::conv2d(&active, &self.third, 1, 0).unwrap() + out).unwrap();
        let out = crate::max_pool2d(&out, 2).unwrap().flatten_from(1).unwrap();
        let mean = crate::linear(&shortcut.flatten_from(2).unwrap().mean(2).unwrap(), &self.head, None).unwrap();
        (crate::linear(&out, &self.linear, Some(&self.linear_bias)).unwrap() + mean).unwrap()
    }

    fn structure(&self) -> Structure {
        let [_, rows, columns] = self.image;
        let [out_rows, out_columns] = [rows.div_ceil(self.stride), columns.div_ceil(self.stride)];
        let width = self.first.dims()[0];
        let inner = [width, out_rows, out_columns];
        let geometry = |image: [usize; 3], weight: &Tensor, stride, padding| {
            let [c, h, w] = image;
            Geometry::new(&[1, c, h, w], weight.dims(), stride, padding).unwrap()
        };
        let pooled = [width, out_rows / 2, out_columns / 2];
        // A fully connected layer is a convolution with a kernel as large as the image.
        let linear = self.linear.reshape((5, pooled[0], pooled[1], pooled[2])).unwrap();
        let head = self.head.reshape((5, width, 1, 1)).unwrap();
        let conv = |geometry, residual, relu| Layer::Convolution {
            geometry,
            residual,
            relu,
        };
        Structure {
            shapes: vec![
                self.image,
                inner,
                inner,
                inner,
                inner,
                inner,
                pooled,
                [width, 1, 1],
                [5, 1, 1],
                [5, 1, 1],
            ],
            layers: vec![
                (0, conv(geometry(self.image, &self.first, self.stride, 1), None, true)),
                (
                    0,
                    conv(geometry(self.image, &self.shortcut, self.stride, 0), None, false),
                ),
                (1, conv(geometry(inner, &self.second, 1, 1), Some(2), true)),
                (3, Layer::NormRelu),
                (4, conv(geometry(inner, &self.third, 1, 0), Some(3), false)),
                (5, Layer::MaxPool(2)),
                // A value that a later layer reads was a residual before.
                (2, Layer::Mean),
                (7, conv(geometry([width, 1, 1], &head, 1, 0), None, false)),
                (6, conv(geometry(pooled, &linear, 1, 0), Some(8), false)),
            ],
        }
    }

    fn sources(&self, gpu: &Emulator) -> Vec<Source> {
        let put = |tensor: &Tensor| gpu.floats(&flat(tensor));
        let norm = |which: usize| {
            let norm = &self.norms[which];
            Some([
                put(&norm.weight),
                put(&norm.bias),
                put(norm.running_mean.as_tensor()),
                put(norm.running_var.as_tensor()),
            ])
        };
        let epsilon = 1e-5;
        let source = |weight: Option<&Tensor>, bias: Option<&Tensor>, norm| Source {
            weight: weight.map_or(0, put),
            bias: bias.map_or(0, put),
            norm,
            epsilon,
        };
        vec![
            source(Some(&self.first), None, norm(0)),
            source(Some(&self.shortcut), Some(&self.bias), None),
            source(Some(&self.second), None, norm(1)),
            source(None, None, norm(2)),
            source(Some(&self.third), None, None),
            Source::default(),
            Source::default(),
            source(Some(&self.head), None, None),
            source(Some(&self.linear), Some(&self.linear_bias), None),
        ]
    }

    fn check(&self, gpu: &Emulator, form: Form, batch: usize, seed: u64) {
        let structure = self.structure();
        let parameters = Parameters::new(&structure, form);
        let program = Program::new(&structure, &parameters, form, batch).unwrap();
        let staging = Staging::new(&program);
        let at = gpu.alloc(staging.bytes as usize);
        let bases = Bases {
            work: gpu.alloc(program.work as usize),
            parameters: gpu.alloc(parameters.bytes as usize),
            images: at + staging.images,
            logits: at + staging.logits,
            logit_gradient: at + staging.logit_gradient,
            image_gradient: at + staging.image_gradient,
        };
        parameters
            .fill(gpu, &structure, form, &self.sources(gpu), bases.parameters)
            .unwrap();
        let [channels, rows, columns] = self.image;
        let shape = [batch, channels, rows, columns];
        let n: usize = shape.iter().product();
        let images: Vec<f32> = numbers(seed + 50, n).iter().map(|x| 0.5 + 0.5 * x).collect();
        let weights = numbers(seed + 51, batch * 5);
        let (expected, gradients) = with_gradients(&[tensor(&images, &shape)], &weights, |t| self.plain(&t[0]));
        let floats = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        gpu.write(bases.images, &floats(&images));
        gpu.write(bases.logit_gradient, &floats(&weights));
        program.forward(gpu, &bases).unwrap();
        program.backward(gpu, &bases).unwrap();
        // bfloat16 keeps 8 bits, and errors add up over five layers.
        let tolerance = if form.half { 0.05 } else { 1e-4 };
        let logits = gpu.get(bases.logits, batch * 5);
        assert_near("logits", &logits, &flat(&expected), tolerance);
        let found = gpu.get(bases.image_gradient, n);
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>();
        let gradient = flat(&gradients[0]);
        let difference = square(&mut found.iter().zip(&gradient).map(|(a, b)| a - b));
        let size = square(&mut gradient.iter().copied());
        // A ReLU or a maximum may go the other way where numbers are rounded.
        let allowed = if form.half { 0.1 } else { 1e-6 };
        assert!(difference <= allowed * size + 1e-12, "gradient: {difference} of {size}");
        program.forward(gpu, &bases).unwrap();
        program.backward(gpu, &bases).unwrap();
        assert_same("logits again", &gpu.get(bases.logits, batch * 5), &logits);
        assert_same("gradient again", &gpu.get(bases.image_gradient, n), &found);
        if !form.half {
            self.attack(gpu, &program, &bases, at, &staging, &images, batch);
        }
    }

    /// Three steps in place against the same steps one operation at a time.
    #[allow(clippy::too_many_arguments, reason = "one caller")]
    fn attack(
        &self,
        gpu: &Emulator,
        program: &Program,
        bases: &Bases,
        at: u64,
        staging: &Staging,
        images: &[f32],
        batch: usize,
    ) {
        let [channels, rows, columns] = self.image;
        let shape = [batch, channels, rows, columns];
        let labels: Vec<u32> = (0..batch as u32).map(|b| b % 5).collect();
        let (lower, upper): (Vec<f32>, Vec<f32>) =
            images.iter().map(|x| ((x - 0.1).max(0.0), (x + 0.1).min(1.0))).unzip();
        let floats = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let words: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        gpu.write(bases.images, &floats(images));
        gpu.write(at + staging.lower, &floats(&lower));
        gpu.write(at + staging.upper, &floats(&upper));
        gpu.write(at + staging.labels, &words);
        gpu.write(at + staging.stalled, &floats(&vec![0.0; batch]));
        let step = AttackStep {
            labels: at + staging.labels,
            clean: at + staging.clean,
            lower: at + staging.lower,
            upper: at + staging.upper,
            stalled: at + staging.stalled,
            loss: Loss::CrossEntropy,
            length: 0.04,
        };
        let labels = Tensor::new(labels, &Device::Cpu).unwrap();
        let (lower, upper) = (tensor(&lower, &shape), tensor(&upper, &shape));
        for round in 0..3 {
            // From where the machine stands, so that one flipped sign does not spoil the next step.
            let before = tensor(&gpu.get(bases.images, images.len()), &shape);
            let x = Var::from_tensor(&before).unwrap();
            let losses = crate::cross_entropy(&self.plain(x.as_tensor()), &labels).unwrap();
            let gradient = losses.sum_all().unwrap().backward().unwrap().remove(&x).unwrap();
            let moved = (before + (gradient.sign().unwrap() * 0.04f32 as f64).unwrap()).unwrap();
            let moved = flat(&moved.maximum(&lower).unwrap().minimum(&upper).unwrap());
            program.attack_step(gpu, bases, &step).unwrap();
            let found = gpu.get(bases.images, images.len());
            let gradient = flat(&gradient);
            let largest = gradient.iter().fold(0f32, |largest, g| largest.max(g.abs()));
            for (i, (a, b)) in found.iter().zip(&moved).enumerate() {
                // The sign of a gradient next to nothing is rounding.
                let clear = gradient[i].abs() > 1e-3 * largest;
                assert!(
                    !clear || (a - b).abs() < 1e-6,
                    "step {round}, pixel {i}: {a} instead of {b}"
                );
            }
        }
    }
}

/// Fixed networks, because rounding to 8 bits turns some ReLUs over, and now and then one that matters.
#[test]
fn frozen_networks_in_bfloat16() {
    let gpu = emulator!();
    for seed in 0..4 {
        for last in [false, true] {
            let net = Net::new([3, 6, 7], 5, 1 + seed as usize % 2, seed);
            net.check(&gpu, Form { half: true, last }, 2, seed);
        }
    }
}

#[test]
fn channel_sums_of_many_slices() {
    let gpu = emulator!();
    let shape = [3, 2, 20_000];
    let extent = Extent::new(&shape).unwrap();
    assert_eq!(extent.slices(), 4);
    let g = numbers(1, shape.iter().product());
    let (partial, sums) = (gpu.alloc(16 * 2 * 4), gpu.room(2));
    machine::channel_sums(&gpu, sums, gpu.floats(&g), partial, extent).unwrap();
    let expected: Vec<f32> = (0..2)
        .map(|c| {
            (0..g.len())
                .filter(|i| i / 20_000 % 2 == c)
                .map(|i| f64::from(g[i]))
                .sum::<f64>() as f32
        })
        .collect();
    assert_near("sums", &gpu.get(sums, 2), &expected, 1e-6);
}
