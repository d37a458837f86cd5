//! Frozen networks against the same layers one by one.

use candle_core::{DType, Device, Tensor, Var};
use kernels::frozen::{Frozen, Pool};
use kernels::{Activation, BatchNorm, Layers, Recording, Statistics};
use proptest::prelude::*;
use reference::assert_close_to_largest;

use crate::naive::{self, bits};

fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    naive::numbers(seed, shape).to_dtype(DType::F32).unwrap()
}

fn norm(seed: u64, channels: usize) -> BatchNorm {
    let var = |tensor: Tensor| Var::from_tensor(&tensor).unwrap();
    BatchNorm {
        weight: (numbers(seed, &[channels]) * 0.3).unwrap().affine(1.0, 1.0).unwrap(),
        bias: numbers(seed + 1, &[channels]),
        running_mean: var(numbers(seed + 2, &[channels])),
        running_var: var(numbers(seed + 3, &[channels]).affine(0.5, 1.0).unwrap()),
        epsilon: 1e-5,
        momentum: 0.1,
        updates: Default::default(),
    }
}

/// Two convolutions with everything that may follow one, between pooling and a linear layer.
struct Net {
    image: [usize; 3],
    first: Tensor,
    second: Tensor,
    stride: usize,
    shortcut: Tensor,
    bias: Tensor,
    norms: [BatchNorm; 3],
    linear: Tensor,
}

impl Net {
    fn new(image: [usize; 3], width: usize, kernel: usize, stride: usize, seed: u64) -> Self {
        let [channels, rows, columns] = image;
        let [rows, columns] = [rows.div_ceil(stride) / 2, columns.div_ceil(stride) / 2];
        Self {
            image,
            first: numbers(seed, &[width, channels, kernel, kernel]),
            second: numbers(seed + 1, &[width, width, 3, 3]),
            stride,
            shortcut: numbers(seed + 2, &[width, channels, 1, 1]),
            bias: numbers(seed + 3, &[width]),
            norms: [norm(seed + 4, width), norm(seed + 8, width), norm(seed + 12, width)],
            linear: numbers(seed + 20, &[5, width * rows * columns]),
        }
    }

    fn padding(&self) -> usize {
        self.first.dims()[2] / 2
    }

    fn plain(&self, x: &Tensor) -> Tensor {
        let norm = |x: &Tensor, which: usize, activation| {
            kernels::batch_norm(x, &self.norms[which], Statistics::Running, activation).unwrap()
        };
        let out = kernels::conv2d(x, &self.first, self.stride, self.padding()).unwrap();
        let out = norm(&out, 0, Activation::Relu);
        let out = kernels::conv2d(&out, &self.second, 1, 1).unwrap();
        let out = norm(&out, 1, Activation::None);
        let shortcut = kernels::conv2d(x, &self.shortcut, self.stride, 0).unwrap();
        let shortcut = kernels::add_bias(&shortcut, &self.bias, Activation::None).unwrap();
        let out = kernels::add_relu(&out, &shortcut).unwrap();
        let out = norm(&out, 2, Activation::Relu);
        let out = kernels::max_pool2d(&out, 2).unwrap().flatten_from(1).unwrap();
        kernels::linear(&out, &self.linear, None).unwrap()
    }

    fn frozen(&self) -> Frozen {
        let (mut make, x) = Recording::new(self.image);
        let first = (self.stride, self.padding());
        let out = make.convolution(
            x,
            &self.first,
            None,
            first,
            Some(&self.norms[0]),
            None,
            Activation::Relu,
        );
        let shortcut = make.convolution(
            x,
            &self.shortcut,
            Some(&self.bias),
            (self.stride, 0),
            None,
            None,
            Activation::None,
        );
        let (out, shortcut) = (out.unwrap(), Some(shortcut.unwrap()));
        let norm = Some(&self.norms[1]);
        let out = make
            .convolution(out, &self.second, None, (1, 1), norm, shortcut, Activation::Relu)
            .unwrap();
        let out = make.norm_relu(out, &self.norms[2]).unwrap();
        let out = make.max_pool(out, 2).unwrap();
        make.linear(out, &self.linear, None, Activation::None).unwrap();
        Frozen::new(&make, &Pool::default()).unwrap()
    }
}

/// The place of a maximum is kept in eight bits, so a wider window would give another pixel the gradient.
#[test]
fn windows_whose_places_do_not_fit_are_refused() {
    let (mut make, x) = Recording::new([2, 40, 40]);
    assert!(make.max_pool(x, kernels::LARGEST_POOL).is_ok());
    for size in [0, 17, 40, 64] {
        let error = make.max_pool(x, size).unwrap_err().to_string();
        assert!(error.contains("must be 1 to 16 wide"), "{error}");
    }
    let (mut make, x) = Recording::new([2, 8, 8]);
    let error = make.max_pool(x, 9).unwrap_err().to_string();
    assert!(error.contains("has no 9x9 window"), "{error}");
}

/// One by one, the place of the maximum is found again for the gradient.
#[test]
fn wide_windows_one_by_one_have_the_right_gradient() {
    for (size, largest) in [(16, 255), (17, 288), (20, 399)] {
        let mut pixels = vec![0f32; size * size];
        pixels[largest] = 1.0;
        let images = Tensor::from_vec(pixels, (1, 1, size, size), &Device::Cpu).unwrap();
        let (_, gradient) = run(|x| kernels::max_pool2d(x, size).unwrap(), &images);
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected: Vec<f32> = (0..size * size).map(|i| if i == largest { 2.0 } else { 0.0 }).collect();
        assert_eq!(gradient, expected);
    }
}

/// Result and gradient of Σ result².
fn run(f: impl Fn(&Tensor) -> Tensor, images: &Tensor) -> (Tensor, Tensor) {
    let x = Var::from_tensor(images).unwrap();
    let out = f(&x);
    let gradient = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    (out, gradient.get(&x).unwrap().clone())
}

fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(f)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn frozen_layers_are_the_layers(
        batch in 1usize..6,
        channels in prop::sample::select(vec![1usize, 3, 17, 64]),
        width in prop::sample::select(vec![5usize, 16, 64, 65]),
        rows in 4usize..14,
        columns in 4usize..14,
        kernel in prop::sample::select(vec![1usize, 3, 5]),
        stride in 1usize..3,
        seed in 0u64..1000,
    ) {
        let net = Net::new([channels, rows, columns], width, kernel, stride, seed);
        let frozen = net.frozen();
        let images = numbers(seed + 50, &[batch, channels, rows, columns]);
        let plain = run(|x| net.plain(x), &images);
        let cold = with_threads(2, || run(|x| frozen.logits(x).unwrap(), &images));
        // A ReLU or a maximum may go the other way for one number among thousands.
        assert_close_to_largest("logits", &cold.0, &plain.0, 1e-4);
        let difference = (&cold.1 - &plain.1).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let size = plain.1.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        prop_assert!(difference <= 1e-6 * size, "gradient: {difference} of {size}");

        let again = with_threads(1, || run(|x| frozen.logits(x).unwrap(), &images));
        prop_assert_eq!(bits(&cold.0), bits(&again.0));
        prop_assert_eq!(bits(&cold.1), bits(&again.1));
        let last = run(|x| frozen.logits(x).unwrap(), &images.narrow(0, batch - 1, 1).unwrap());
        prop_assert_eq!(bits(&cold.0.narrow(0, batch - 1, 1).unwrap()), bits(&last.0));
        prop_assert_eq!(bits(&cold.1.narrow(0, batch - 1, 1).unwrap()), bits(&last.1));
    }
}

#[test]
fn a_frozen_network_refuses_other_images() {
    let frozen = Net::new([3, 8, 8], 4, 3, 1, 0).frozen();
    for images in [numbers(1, &[2, 3, 8, 9]), naive::numbers(1, &[2, 3, 8, 8])] {
        let message = frozen.logits(&images).unwrap_err().to_string();
        assert!(message.contains("[3, 8, 8]"), "{message}");
    }
    let empty = Tensor::zeros((0, 3, 8, 8), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(frozen.logits(&empty).unwrap().dims(), [0, 5]);
}
