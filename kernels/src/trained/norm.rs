//! Batch normalisation over images whose channels lie side by side.

use std::sync::atomic::Ordering;

use candle_core::Result;
use rayon::prelude::*;

use crate::batch_norm::{Statistics, update};
use crate::graph::{Norm, Running};
use crate::wide::wide;

/// A batch's mean and 1/√(variance + ε) per channel.
pub(super) struct Moments {
    pub(super) mean: Vec<f64>,
    pub(super) scale: Vec<f64>,
}

/// Numbers of one task of a pass over all pixels. By it, not by threads, sums are cut.
const TASK: usize = 1 << 15;

/// Pixels that are summed in single precision; their sums are added in double precision.
const RUN: usize = 32;

/// The statistics of `pixels` `[N, C]`; the running ones move towards them if asked.
pub(super) fn moments(
    norm: &Norm,
    running: &Running,
    pixels: &[f32],
    channels: usize,
    statistics: Statistics,
) -> Result<Moments> {
    let count = (pixels.len() / channels) as f64;
    if count < 2.0 {
        candle_core::bail!("batch_norm: a batch with one value per channel has no variance");
    }
    let [mean, _] = sums(channels, [pixels, pixels], |pixels, _, out| {
        add_up(pixels, pixels, &[], out);
    });
    let mean: Vec<f64> = mean.iter().map(|sum| sum / count).collect();
    let center: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
    let [_, squares] = sums(channels, [pixels, pixels], |pixels, _, out| {
        add_up(pixels, &[], &center, out);
    });
    // `center` is the mean rounded; the correction makes the variance exact again.
    let variance: Vec<f64> = squares
        .iter()
        .zip(mean.iter().zip(&center))
        .map(|(sum, (mean, &center))| sum / count - (mean - f64::from(center)).powi(2))
        .collect();
    if statistics == Statistics::BatchAndUpdate {
        running.updates.fetch_add(1, Ordering::Relaxed);
        update(&running.mean, norm.momentum, &mean, 1.0)?;
        update(&running.variance, norm.momentum, &variance, count / (count - 1.0))?;
    }
    let scale = variance.iter().map(|v| 1.0 / (v + norm.epsilon).sqrt()).collect();
    Ok(Moments { mean, scale })
}

/// y = (x − mean) · scale · weight + bias, plus the residual if given, then the ReLU if asked.
pub(super) fn normalise(
    norm: &Norm,
    parameters: &[&[f32]],
    moments: &Moments,
    pixels: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    out: &mut [f32],
) {
    let (weight, bias) = (parameters[norm.weight], parameters[norm.bias]);
    let channels = weight.len();
    let mean: Vec<f32> = moments.mean.iter().map(|&mean| mean as f32).collect();
    let scale = moments.scale.iter().zip(weight);
    let scale: Vec<f32> = scale
        .map(|(scale, &weight)| (scale * f64::from(weight)) as f32)
        .collect();
    let task = task(channels);
    out.par_chunks_mut(task)
        .zip(pixels.par_chunks(task))
        .enumerate()
        .for_each(|(index, (out, pixels))| {
            let residual = residual.map(|residual| &residual[index * task..][..out.len()]);
            normalise_pixels(pixels, residual.unwrap_or(&[]), [&mean, &scale, bias], relu, out);
        });
}

/// From the gradient of the normalised pixels to that of the pixels, in place, and those of weight and
/// bias: Σ g·x̂ and Σ g per channel. Mean and variance depend on x as well, so
/// (g − mean g − x̂ · mean(g · x̂)) · scale · weight.
pub(super) fn backward(
    norm: &Norm,
    parameters: &[&[f32]],
    moments: &Moments,
    pixels: &[f32],
    gradient: &mut [f32],
    to_parameters: &mut [Vec<f32>],
) {
    let weight = parameters[norm.weight];
    let channels = weight.len();
    let count = (pixels.len() / channels) as f64;
    let center: Vec<f32> = moments.mean.iter().map(|&mean| mean as f32).collect();
    let [plain, weighted] = sums(channels, [gradient, pixels], |gradient, pixels, out| {
        add_up(gradient, pixels, &center, out);
    });
    let [mut scale, mut offset, mut slope] = [(); 3].map(|()| vec![0.0f32; channels]);
    for c in 0..channels {
        let weighted = weighted[c] * moments.scale[c];
        to_parameters[norm.weight][c] = weighted as f32;
        to_parameters[norm.bias][c] = plain[c] as f32;
        let factor = moments.scale[c] * f64::from(weight[c]);
        scale[c] = factor as f32;
        offset[c] = (factor * plain[c] / count) as f32;
        slope[c] = (factor * moments.scale[c] * weighted / count) as f32;
    }
    let task = task(channels);
    gradient
        .par_chunks_mut(task)
        .zip(pixels.par_chunks(task))
        .for_each(|(gradient, pixels)| to_pixels(gradient, pixels, [&scale, &offset, &slope, &center]));
}

/// The numbers of a task: whole runs of pixels.
fn task(channels: usize) -> usize {
    (TASK / channels).next_multiple_of(RUN) * channels
}

/// Two sums per channel over pixels of two arrays: of tasks side by side, added up in order.
fn sums(
    channels: usize,
    [a, b]: [&[f32]; 2],
    add_up: impl Fn(&[f32], &[f32], &mut [Vec<f64>; 2]) + Sync,
) -> [Vec<f64>; 2] {
    let task = task(channels);
    let parts: Vec<[Vec<f64>; 2]> = a
        .par_chunks(task)
        .zip(b.par_chunks(task))
        .map(|(a, b)| {
            let mut out = [vec![0.0; channels], vec![0.0; channels]];
            for (a, b) in a.chunks(RUN * channels).zip(b.chunks(RUN * channels)) {
                add_up(a, b, &mut out);
            }
            out
        })
        .collect();
    let mut total = [vec![0.0; channels], vec![0.0; channels]];
    for part in &parts {
        for (total, part) in total.iter_mut().zip(part) {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
    }
    total
}

/// Channels that are summed side by side.
const LANES: usize = 16;

wide! {
    /// Adds, per channel, Σ a and Σ a·(b − center) over a run of pixels. Without `b`: Σ (a − center)².
    /// Without `center`: the first sum alone.
    fn add_up[](a: &[f32], b: &[f32], center: &[f32], out: &mut [Vec<f64>; 2]) {
        let channels = out[0].len();
        let [plain, weighted] = out;
        for first in (0..channels).step_by(LANES) {
            let lanes = LANES.min(channels - first);
            let (mut sum, mut product) = ([0.0f32; LANES], [0.0f32; LANES]);
            let mut middle = [0.0f32; LANES];
            if !center.is_empty() {
                middle[..lanes].copy_from_slice(&center[first..first + lanes]);
            }
            let mut start = first;
            if lanes == LANES {
                while start + LANES <= a.len() {
                    let x: [f32; LANES] = *a[start..].first_chunk().expect("whole lanes");
                    sum = std::array::from_fn(|i| sum[i] + x[i]);
                    if !center.is_empty() {
                        if b.is_empty() {
                            product = std::array::from_fn(|i| product[i] + (x[i] - middle[i]) * (x[i] - middle[i]));
                        } else {
                            let y: [f32; LANES] = *b[start..].first_chunk().expect("as many pixels");
                            product = std::array::from_fn(|i| product[i] + x[i] * (y[i] - middle[i]));
                        }
                    }
                    start += channels;
                }
            } else {
                while start < a.len() {
                    for i in 0..lanes {
                        let x = a[start + i];
                        sum[i] += x;
                        if !center.is_empty() {
                            let other = if b.is_empty() { x - middle[i] } else { x };
                            let y = if b.is_empty() { x } else { b[start + i] };
                            product[i] += other * (y - middle[i]);
                        }
                    }
                    start += channels;
                }
            }
            for i in 0..lanes {
                plain[first + i] += f64::from(sum[i]);
                weighted[first + i] += f64::from(product[i]);
            }
        }
    }
}

wide! {
    /// For pixels side by side; an empty residual is none.
    fn normalise_pixels[](pixels: &[f32], residual: &[f32], constants: [&[f32]; 3], relu: bool, out: &mut [f32]) {
        let [mean, scale, shift] = constants;
        let channels = mean.len();
        for (index, (out, x)) in out.chunks_exact_mut(channels).zip(pixels.chunks_exact(channels)).enumerate() {
            let constants = mean.iter().zip(scale).zip(shift);
            for ((out, &x), ((&mean, &scale), &shift)) in out.iter_mut().zip(x).zip(constants) {
                *out = (x - mean) * scale + shift;
            }
            if !residual.is_empty() {
                let residual = &residual[index * channels..][..channels];
                out.iter_mut().zip(residual).for_each(|(out, &residual)| *out += residual);
            }
            if relu {
                out.iter_mut().for_each(|out| *out = if *out <= 0.0 { 0.0 } else { *out });
            }
        }
    }
}

wide! {
    /// g · scale − offset − (x − center) · slope.
    fn to_pixels[](gradient: &mut [f32], pixels: &[f32], constants: [&[f32]; 4]) {
        let [scale, offset, slope, center] = constants;
        let channels = scale.len();
        for (g, x) in gradient.chunks_exact_mut(channels).zip(pixels.chunks_exact(channels)) {
            let constants = scale.iter().zip(offset).zip(slope.iter().zip(center));
            for ((g, &x), ((&scale, &offset), (&slope, &center))) in g.iter_mut().zip(x).zip(constants) {
                *g = *g * scale - offset - (x - center) * slope;
            }
        }
    }
}
