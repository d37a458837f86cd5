//! Frozen networks and the steps of attacks on them, as whole programs.

use proptest::prelude::*;

use super::*;
use crate::ascent::Loss;
use crate::cuda::program::frozen::{AttackStep, Bases, Parameters, Program, Staging, sources};
use crate::graph::{Layers, Recording};
use crate::{Activation, BatchNorm, Statistics};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

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

    fn recording(&self) -> Recording {
        let (relu, none) = (Activation::Relu, Activation::None);
        let (mut net, x) = Recording::new(self.image);
        let norm = |which: usize| Some(&self.norms[which]);
        let first = net.convolution(x, &self.first, None, (self.stride, 1), norm(0), None, relu);
        let bias = Some(&self.bias);
        let shortcut = net.convolution(x, &self.shortcut, bias, (self.stride, 0), None, None, none);
        let (first, shortcut) = (first.unwrap(), shortcut.unwrap());
        let second = net.convolution(first, &self.second, None, (1, 1), norm(1), Some(shortcut), relu);
        let second = second.unwrap();
        let active = net.norm_relu(second, &self.norms[2]).unwrap();
        let third = net.convolution(active, &self.third, None, (1, 0), None, Some(second), none);
        // In evaluation mode nothing is dropped.
        let third = net.dropout(third.unwrap(), 1);
        let pooled = net.max_pool(third, 2).unwrap();
        // A value that a later layer reads was a residual before.
        let mean = net.mean_per_channel(shortcut);
        let head = net.linear(mean, &self.head, None, none).unwrap();
        let [width, rows, columns] = self.pooled();
        let linear = self.linear.reshape((5, width, rows, columns)).unwrap();
        let bias = Some(&self.linear_bias);
        net.convolution(pooled, &linear, bias, (1, 0), None, Some(head), none)
            .unwrap();
        net.at_rest()
    }

    /// The shape of what the pooling makes.
    fn pooled(&self) -> [usize; 3] {
        let [_, rows, columns] = self.image;
        let [rows, columns] = [rows, columns].map(|size| size.div_ceil(self.stride) / 2);
        [self.first.dims()[0], rows, columns]
    }

    fn check(&self, gpu: &Emulator, form: Form, batch: usize, seed: u64) {
        let recording = self.recording();
        let graph = &recording.graph;
        let parameters = Parameters::new(graph, form);
        let program = Program::new(graph, &parameters, form, batch).unwrap();
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
        let sources = sources(&recording, |tensor| Ok(gpu.floats(&flat(tensor)))).unwrap();
        parameters.fill(gpu, graph, form, &sources, bases.parameters).unwrap();
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
            // From the images that the machine has, so that one flipped sign does not spoil the next step.
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
