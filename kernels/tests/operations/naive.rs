//! Operations written out as loops in f64, to compare with.

use candle_core::{DType, Device, Tensor};
use random::Stream;

/// Numbers in [-1, 1) of any shape, f64.
pub(crate) fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    let draws = Stream::new(seed).uniform(&[0], shape.iter().product());
    let values: Vec<f64> = draws.iter().map(|&u| 2.0 * f64::from(u) - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// All values as doubles.
pub(crate) fn doubles(tensor: &Tensor) -> Vec<f64> {
    reference::doubles(tensor)
}

/// The bits of all values of an f32 tensor.
pub(crate) fn bits(tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// The convolution as seven loops.
pub(crate) fn convolution(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Tensor {
    let (batch, channels, height, width) = x.dims4().unwrap();
    let (outputs, _, r, s) = w.dims4().unwrap();
    let rows = (height + 2 * padding - r) / stride + 1;
    let columns = (width + 2 * padding - s) / stride + 1;
    let (x, w) = (doubles(x), doubles(w));
    let mut out = Vec::with_capacity(batch * outputs * rows * columns);
    for b in 0..batch {
        for k in 0..outputs {
            for i in 0..rows {
                for j in 0..columns {
                    let mut sum = 0.0;
                    for c in 0..channels {
                        for di in 0..r {
                            for dj in 0..s {
                                let (y, z) = (i * stride + di, j * stride + dj);
                                if (padding..height + padding).contains(&y) && (padding..width + padding).contains(&z) {
                                    let at = ((b * channels + c) * height + y - padding) * width + z - padding;
                                    sum += x[at] * w[((k * channels + c) * r + di) * s + dj];
                                }
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    Tensor::from_vec(out, (batch, outputs, rows, columns), &Device::Cpu).unwrap()
}

/// d Σ(weights · f(x)) / dx by central differences, f64.
pub(crate) fn finite_differences(x: &Tensor, weights: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    assert_eq!(x.dtype(), DType::F64);
    let (values, weights) = (doubles(x), doubles(weights));
    let step = 1e-6;
    let at = |index: usize, offset: f64| -> f64 {
        let mut values = values.clone();
        values[index] += offset;
        let out = f(&Tensor::from_vec(values, x.shape(), &Device::Cpu).unwrap());
        doubles(&out).iter().zip(&weights).map(|(y, w)| y * w).sum()
    };
    let slopes: Vec<f64> = (0..values.len())
        .map(|index| (at(index, step) - at(index, -step)) / (2.0 * step))
        .collect();
    Tensor::from_vec(slopes, x.shape(), &Device::Cpu).unwrap()
}
