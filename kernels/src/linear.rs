//! The fully connected layer: y = x · wᵀ + b.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::element::{Element, check_dtypes, dispatch, values};
use crate::matmul::{Destination, Matrix, multiply};

/// `inputs` `[B, I]` times the transpose of `weights` `[O, I]`, plus `bias` `[O]`: `[B, O]`.
pub fn linear(inputs: &Tensor, weights: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    check_dtypes("linear", &[("inputs", inputs), ("weights", weights)])?;
    let (&[batch, features], &[outputs, weight_features]) = (inputs.dims(), weights.dims()) else {
        bail!(
            "linear: inputs {:?} and weights {:?} must be [B, I] and [O, I]",
            inputs.dims(),
            weights.dims()
        );
    };
    if features != weight_features || outputs == 0 || features == 0 {
        bail!(
            "linear: inputs {:?} do not have the features of weights {:?}",
            inputs.dims(),
            weights.dims()
        );
    }
    let sizes = Sizes {
        batch,
        features,
        outputs,
    };
    let product = inputs.contiguous()?.apply_op2(&weights.contiguous()?, Linear(sizes))?;
    let Some(bias) = bias else {
        return Ok(product);
    };
    check_dtypes("linear", &[("weights", weights), ("biases", bias)])?;
    if bias.dims() != [outputs] {
        bail!(
            "linear: bias {:?} does not fit weights {:?}",
            bias.dims(),
            weights.dims()
        );
    }
    product.broadcast_add(bias)
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    features: usize,
    outputs: usize,
}

struct Linear(Sizes);

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(x, "linear", forward(self.0, x, lx, w, lw))
    }

    fn bwd(
        &self,
        inputs: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let to_inputs = match inputs.track_op() {
            true => Some(gradient.apply_op2_no_bwd(weights, &ToInputs(self.0))?),
            false => None,
        };
        let to_weights = match weights.track_op() {
            true => Some(inputs.apply_op2_no_bwd(&gradient, &ToWeights(self.0))?),
            false => None,
        };
        Ok((to_inputs, to_weights))
    }
}

struct ToInputs(Sizes);

impl CustomOp2 for ToInputs {
    fn name(&self) -> &'static str {
        "linear-gradient-to-inputs"
    }

    fn cpu_fwd(&self, g: &CpuStorage, lg: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(g, self.name(), to_inputs(self.0, g, lg, w, lw))
    }
}

struct ToWeights(Sizes);

impl CustomOp2 for ToWeights {
    fn name(&self) -> &'static str {
        "linear-gradient-to-weights"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, g: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(x, self.name(), to_weights(self.0, x, lx, g, lg))
    }
}

fn forward<T: Element>(
    sizes: Sizes,
    x: &CpuStorage,
    lx: &Layout,
    w: &CpuStorage,
    lw: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (inputs, weights) = (values::<T>(x, lx)?, values::<T>(w, lw)?);
    let weights = Matrix::new(weights, sizes.outputs, sizes.features).transposed();
    let out = rows(sizes.batch, sizes.features, sizes.outputs, inputs, weights);
    Ok((T::to_cpu_storage_owned(out), (sizes.batch, sizes.outputs).into()))
}

fn to_inputs<T: Element>(
    sizes: Sizes,
    g: &CpuStorage,
    lg: &Layout,
    w: &CpuStorage,
    lw: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (gradient, weights) = (values::<T>(g, lg)?, values::<T>(w, lw)?);
    let weights = Matrix::new(weights, sizes.outputs, sizes.features);
    let out = rows(sizes.batch, sizes.outputs, sizes.features, gradient, weights);
    Ok((T::to_cpu_storage_owned(out), (sizes.batch, sizes.features).into()))
}

/// One product per row, so that a row does not depend on how many there are.
fn rows<T: Element>(batch: usize, inner: usize, outer: usize, rows: &[T], matrix: Matrix<'_, T>) -> Vec<T> {
    let mut out = vec![T::zero(); batch * outer];
    out.par_chunks_mut(outer)
        .zip(rows.par_chunks(inner))
        .for_each(|(out, row)| multiply(Matrix::new(row, 1, inner), matrix, out, outer, Destination::Overwrite));
    out
}

/// wᵍ = gᵀ · x, a block of outputs per task.
fn to_weights<T: Element>(
    sizes: Sizes,
    x: &CpuStorage,
    lx: &Layout,
    g: &CpuStorage,
    lg: &Layout,
) -> Result<(CpuStorage, Shape)> {
    const BLOCK: usize = 32;
    let (inputs, gradient) = (values::<T>(x, lx)?, values::<T>(g, lg)?);
    let Sizes {
        batch,
        features,
        outputs,
    } = sizes;
    let inputs = Matrix::new(inputs, batch, features);
    let mut out = vec![T::zero(); outputs * features];
    if batch > 0 {
        out.par_chunks_mut(BLOCK * features)
            .enumerate()
            .for_each(|(block, out)| {
                let count = out.len() / features;
                let gradient = Matrix::strided(&gradient[block * BLOCK..], batch, count, outputs).transposed();
                multiply(gradient, inputs, out, features, Destination::Overwrite);
            });
    }
    Ok((T::to_cpu_storage_owned(out), (outputs, features).into()))
}
