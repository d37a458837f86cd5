//! Networks in training as whole programs: forward pass, running statistics, and every gradient, against the CPU's
//! one operation.

use proptest::prelude::*;

use super::*;
use crate::cuda::program::trained::{Bases, Program, Variant};
use crate::graph::{Layers, Recording};
use crate::trained::{self, Pool};
use crate::{Activation, BatchNorm, Statistics};

/// A network with every kind of layer and of what may follow a convolution: norm, norm and residual, bias, bias and
/// residual, nothing; values that are read twice, images among them.
struct Net {
    image: [usize; 3],
    stride: usize,
    parameters: Vec<(&'static str, Var)>,
    norms: Vec<(&'static str, BatchNorm)>,
}

const CLASSES: usize = 5;

impl Net {
    /// Of random numbers such as a form can hold, so that only what is computed is rounded.
    fn new(image: [usize; 3], width: usize, stride: usize, form: Form, seed: u64) -> Self {
        let [channels, rows, columns] = image;
        let pooled = rows.div_ceil(stride) / 2 * (columns.div_ceil(stride) / 2);
        let mut parameters = Vec::new();
        let mut make = |name: &'static str, shape: &[usize]| {
            let len = shape.iter().product();
            let values = tensor(&held(form, numbers(seed + 10 * parameters.len() as u64, len)), shape);
            let var = Var::from_tensor(&values).unwrap();
            parameters.push((name, var.clone()));
            var.as_tensor().clone()
        };
        for (name, shape) in [
            ("first", [width, channels, 3, 3]),
            ("second", [width, width, 3, 3]),
            ("third", [width, width, 1, 1]),
            ("fourth", [width, width, 3, 3]),
            ("shortcut", [width, channels, 1, 1]),
        ] {
            make(name, &shape);
        }
        for name in ["second bias", "third bias", "shortcut bias"] {
            make(name, &[width]);
        }
        make("linear", &[CLASSES, width * pooled]);
        make("linear bias", &[CLASSES]);
        make("head", &[CLASSES, width]);
        let mut norms = Vec::new();
        for name in ["one", "two", "three"] {
            let at = seed + 500 + norms.len() as u64;
            let var = |values: Vec<f32>| Var::from_tensor(&tensor(&values, &[width])).unwrap();
            let norm = BatchNorm {
                weight: make("norm weight", &[width]),
                bias: make("norm bias", &[width]),
                running_mean: var(numbers(at, width)),
                running_var: var(numbers(at + 50, width).iter().map(|v| v * 0.5 + 1.0).collect()),
                epsilon: 1e-5,
                momentum: 0.1,
                updates: Default::default(),
            };
            norms.push((name, norm));
        }
        Self {
            image,
            stride,
            parameters,
            norms,
        }
    }

    fn recording(&self) -> Recording {
        let get = |name: &str| {
            let found = self.parameters.iter().find(|(known, _)| *known == name);
            found.unwrap().1.as_tensor()
        };
        let norm = |name: &str| Some(&self.norms.iter().find(|(known, _)| *known == name).unwrap().1);
        let (relu, none) = (Activation::Relu, Activation::None);
        let (mut net, x) = Recording::new(self.image);
        let first = net.convolution(x, get("first"), None, (self.stride, 1), norm("one"), None, relu);
        let first = first.unwrap();
        // The images are read twice.
        let shape = (self.stride, 0);
        let shortcut = net.convolution(x, get("shortcut"), Some(get("shortcut bias")), shape, None, None, none);
        let shortcut = shortcut.unwrap();
        // A bias before a norm, and a residual.
        let (weight, bias) = (get("second"), Some(get("second bias")));
        let second = net.convolution(first, weight, bias, (1, 1), norm("two"), Some(shortcut), relu);
        let second = second.unwrap();
        let active = net.norm_relu(second, norm("three").unwrap()).unwrap();
        // A residual that is read by a norm as well, without a norm of its own.
        let (weight, bias) = (get("third"), Some(get("third bias")));
        let third = net.convolution(active, weight, bias, (1, 0), None, Some(second), relu);
        let third = third.unwrap();
        let fourth = net.convolution(third, get("fourth"), None, (1, 1), None, Some(active), none);
        let pooled = net.max_pool(fourth.unwrap(), 2).unwrap();
        let mean = net.mean_per_channel(shortcut);
        let dropped = net.dropout(mean, 3);
        let head = net.linear(dropped, get("head"), None, none).unwrap();
        // Two readers of the head, so that gradients of logits add up as well.
        let (weight, bias) = (get("linear"), Some(get("linear bias")));
        let [c, h, w] = [
            weight.dims()[1] / pooled_len(self),
            pooled_height(self),
            pooled_width(self),
        ];
        let weight = weight.reshape((CLASSES, c, h, w)).unwrap();
        net.convolution(pooled, &weight, bias, (1, 0), None, Some(head), none)
            .unwrap();
        net
    }

    /// Compares everything for one batch. Returns how far off each gradient is, ‖a − e‖² / ‖e‖².
    fn compare(
        &self,
        gpu: &Emulator,
        form: Form,
        batch: usize,
        statistics: Statistics,
        seed: u64,
    ) -> Vec<(&'static str, f64)> {
        let recording = self.recording();
        let running: Vec<[Var; 2]> = recording
            .running
            .iter()
            .map(|running| [running.mean.clone(), running.variance.clone()])
            .collect();
        let variant = Variant {
            form,
            batch,
            update: statistics == Statistics::BatchAndUpdate,
            dropout: seed.is_multiple_of(2),
            to_images: !seed.is_multiple_of(3),
        };
        let program = Program::new(&recording.graph, variant).unwrap();
        assert!(program.reaches_all);

        // On the machine, before the CPU moves the running statistics.
        let put = |var: &Var| gpu.floats(&flat(var.as_tensor()));
        let parameters: Vec<u64> = recording
            .parameters
            .iter()
            .map(|tensor| gpu.floats(&flat(tensor)))
            .collect();
        let running_at: Vec<[u64; 2]> = running.iter().map(|pair| [put(&pair[0]), put(&pair[1])]).collect();
        let [channels, rows, columns] = self.image;
        let shape = [batch, channels, rows, columns];
        let n: usize = shape.iter().product();
        let images = held(form, numbers(seed + 900, n).iter().map(|x| 0.5 + 0.5 * x).collect());
        let weights = held(form, numbers(seed + 901, batch * CLASSES));
        let width = recording.graph.shapes[1][0];
        let factors: Vec<f32> = numbers(seed + 902, batch * width)
            .iter()
            .map(|&u| if u < 0.0 { 0.0 } else { 2.0 })
            .collect();
        let bases = Bases {
            work: gpu.alloc(program.work as usize),
            images: gpu.floats(&images),
            logits: gpu.room(batch * CLASSES),
            logit_gradient: gpu.floats(&weights),
            image_gradient: if variant.to_images { gpu.room(n) } else { 0 },
            gradients: gpu.room(program.gradient_len),
            factors: if variant.dropout { gpu.floats(&factors) } else { 0 },
            parameters: &parameters,
            running: &running_at,
        };
        program.forward(gpu, &bases).unwrap();
        program.backward(gpu, &bases).unwrap();

        // On the CPU.
        let on_cpu = Var::from_tensor(&tensor(&images, &shape)).unwrap();
        let input = if variant.to_images {
            on_cpu.as_tensor().clone()
        } else {
            on_cpu.as_detached_tensor()
        };
        let draw = |_: u64, _: usize| factors.clone();
        let draw: Option<trained::Factors<'_>> = if variant.dropout { Some(&draw) } else { None };
        let logits = trained::logits(recording, &input, statistics, draw, &Pool::default()).unwrap();
        let summed = (&logits * tensor(&weights, &[batch, CLASSES]))
            .unwrap()
            .sum_all()
            .unwrap();
        let gradients = summed.backward().unwrap();

        // bfloat16 keeps 8 bits, and errors add up over six layers.
        let tolerance = if form.half { 0.08 } else { 1e-4 };
        let found = gpu.get(bases.logits, batch * CLASSES);
        assert_near("logits", &found, &flat(&logits), tolerance);
        for (pair, at) in running.iter().zip(&running_at) {
            for (var, &at) in pair.iter().zip(at) {
                let found = gpu.get(at, width);
                assert_near_sums("running statistics", &found, &flat(var.as_tensor()), tolerance, 1.0);
            }
        }
        let mut pairs = Vec::new();
        if variant.to_images {
            let found = gpu.get(bases.image_gradient, n);
            pairs.push(("images", found, flat(gradients.get(&on_cpu).unwrap())));
        }
        for (name, var) in &self.parameters {
            let expected = flat(gradients.get(var).unwrap());
            let start = bases.gradients + 4 * program.gradients[self.place_of(name, var)] as u64;
            pairs.push((name, gpu.get(start, expected.len()), expected));
        }
        // Tiny values are rounding errors, such as the gradient of a bias before a norm, which cancels it.
        let largest = pairs
            .iter()
            .map(|(_, _, expected)| square(expected))
            .fold(0.0, f64::max);
        let off = pairs.into_iter().map(|(name, found, expected)| {
            let difference: Vec<f32> = found.iter().zip(&expected).map(|(a, e)| a - e).collect();
            (name, square(&difference) / (square(&expected) + 1e-4 * largest))
        });
        off.collect()
    }

    /// The number of a parameter.
    fn place_of(&self, name: &str, var: &Var) -> usize {
        let wanted = flat(var.as_tensor());
        let all = self.recording().parameters;
        let found = all.iter().position(|tensor| flat(tensor) == wanted);
        found.unwrap_or_else(|| panic!("{name} is not there"))
    }
}

fn pooled_height(net: &Net) -> usize {
    net.image[1].div_ceil(net.stride) / 2
}

fn pooled_width(net: &Net) -> usize {
    net.image[2].div_ceil(net.stride) / 2
}

fn pooled_len(net: &Net) -> usize {
    pooled_height(net) * pooled_width(net)
}

fn square(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum()
}

/// The numbers that a form can hold next to these.
fn held(form: Form, values: Vec<f32>) -> Vec<f32> {
    let hold = |value: f32| {
        if form.half {
            half::bf16::from_f32(value).to_f32()
        } else {
            value
        }
    };
    values.into_iter().map(hold).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn networks(
        batch in 2usize..5,
        channels in 1usize..4,
        width in 1usize..6,
        rows in 4usize..8,
        columns in 4usize..8,
        stride in 1usize..3,
        last: bool,
        update: bool,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let statistics = if update { Statistics::BatchAndUpdate } else { Statistics::Batch };
        let form = Form { half: false, last };
        let net = Net::new([channels, rows, columns], width, stride, form, seed);
        for (name, off) in net.compare(&gpu, form, batch, statistics, seed) {
            // Rounding is far below it, and what is wrong far above.
            prop_assert!(off <= 1e-3, "gradient of {name}: {off} of its square");
        }
    }
}

/// Fixed networks, because rounding to 8 bits turns some ReLUs over, and now and then one that matters.
#[test]
fn networks_in_bfloat16() {
    let gpu = emulator!();
    for seed in 0..4 {
        for last in [false, true] {
            let form = Form { half: true, last };
            let net = Net::new([3, 6, 7], 5, 1 + seed as usize % 2, form, seed);
            for (name, off) in net.compare(&gpu, form, 6, Statistics::BatchAndUpdate, seed) {
                // 0.014 is the most that was seen.
                assert!(off <= 0.05, "gradient of {name}: {off} of its square");
            }
        }
    }
}

#[test]
fn one_value_per_channel_has_no_variance() {
    let net = Net::new([1, 1, 1], 1, 1, PLAIN, 0);
    let (mut recording, x) = Recording::new([1, 1, 1]);
    recording.norm_relu(x, &net.norms[0].1).unwrap();
    let variant = Variant {
        form: PLAIN,
        batch: 1,
        update: false,
        dropout: false,
        to_images: false,
    };
    let error = Program::new(&recording.graph, variant).unwrap_err().to_string();
    assert!(error.contains("no variance"), "{error}");
}

/// A residual block takes one pass for norm, sum and ReLU, and one for their gradients.
#[test]
fn norm_sum_and_relu_are_one_pass() {
    let net = Net::new([3, 6, 6], 4, 1, PLAIN, 0);
    let norm = &net.norms[0].1;
    let weight = tensor(&numbers(1, 4 * 4 * 9), &[4, 4, 3, 3]);
    let (mut recording, x) = Recording::new([4, 1, 1]);
    recording
        .convolution(x, &weight, None, (1, 1), Some(norm), Some(x), Activation::Relu)
        .unwrap();
    let variant = Variant {
        form: PLAIN,
        batch: 4,
        update: true,
        dropout: false,
        to_images: true,
    };
    let program = Program::new(&recording.graph, variant).unwrap();
    // Images in, convolution, two for the moments, one for the rest, logits out; gradient in, two for sums, one for
    // norm, sum and ReLU, weights, images, gradient out.
    assert_eq!(program.lengths(), [6, 7]);
}
