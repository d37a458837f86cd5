//! Mean over windows that do not overlap.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::check::{check_dtypes, image_dims};
use crate::element::{Element, dispatch, values};

/// The mean of every `size` × `size` window of `images` `[B, C, H, W]`: `[B, C, H/size, W/size]`.
/// Rows and columns that fill no window are left out.
pub fn avg_pool2d(images: &Tensor, size: usize) -> Result<Tensor> {
    check_dtypes("avg_pool2d", &[("images", images)])?;
    let [_, _, height, width] = image_dims("avg_pool2d", images.dims())?;
    if size == 0 || height < size || width < size {
        bail!("avg_pool2d: images {:?} have no {size}x{size} window", images.dims());
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("avg_pool2d", images)? {
        return crate::cuda::operations::avg_pool2d(images, size);
    }
    images.contiguous()?.apply_op1(AveragePool { size })
}

struct AveragePool {
    size: usize,
}

impl CustomOp1 for AveragePool {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(x, "avg_pool2d", forward(self.size, x, layout))
    }

    fn bwd(&self, images: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        if !images.track_op() {
            return Ok(None);
        }
        let op = AveragePoolGradient {
            size: self.size,
            images: images.shape().clone(),
        };
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}

struct AveragePoolGradient {
    size: usize,
    images: Shape,
}

impl CustomOp1 for AveragePoolGradient {
    fn name(&self) -> &'static str {
        "avg_pool2d-gradient"
    }

    fn cpu_fwd(&self, g: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(g, "avg_pool2d", backward(self, g, layout))
    }
}

fn forward<T: Element>(size: usize, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let images = values::<T>(x, layout)?;
    let (batch, channels, height, width) = layout.shape().dims4()?;
    let (rows, columns) = (height / size, width / size);
    let scale = T::from_f64(1.0 / (size * size) as f64);
    let mut out = vec![T::zero(); batch * channels * rows * columns];
    out.par_chunks_mut(rows * columns)
        .zip(images.par_chunks(height * width))
        .for_each(|(out, plane)| {
            for (row, plane) in plane.chunks(width).enumerate().take(rows * size) {
                let out = &mut out[row / size * columns..][..columns];
                for (out, window) in out.iter_mut().zip(plane.chunks_exact(size)) {
                    for value in window {
                        *out += *value;
                    }
                }
            }
            for out in out {
                *out *= scale;
            }
        });
    Ok((T::to_cpu_storage_owned(out), (batch, channels, rows, columns).into()))
}

fn backward<T: Element>(op: &AveragePoolGradient, g: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let gradient = values::<T>(g, layout)?;
    let (_, _, height, width) = op.images.dims4()?;
    let (size, rows, columns) = (op.size, height / op.size, width / op.size);
    let scale = T::from_f64(1.0 / (size * size) as f64);
    let mut out = vec![T::zero(); op.images.elem_count()];
    out.par_chunks_mut(height * width)
        .zip(gradient.par_chunks(rows * columns))
        .for_each(|(out, gradient)| {
            for (row, out) in out.chunks_mut(width).enumerate().take(rows * size) {
                let gradient = &gradient[row / size * columns..][..columns];
                for (window, gradient) in out.chunks_exact_mut(size).zip(gradient) {
                    window.fill(*gradient * scale);
                }
            }
        });
    Ok((T::to_cpu_storage_owned(out), op.images.clone()))
}
