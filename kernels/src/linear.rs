//! The fully connected layer: y = x · wᵀ.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::activation::Activation;
use crate::bias::add_bias;
use crate::check::check_dtypes;
use crate::element::{Element, dispatch, values};
use crate::product::{CHAIN, Packed, Room, SLACK, multiply, multiply_columns};
use crate::tile::Columns;

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
    if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
        bail!(
            "linear: bias {:?} does not fit weights {:?}",
            bias.dims(),
            weights.dims()
        );
    }
    let sizes = Sizes {
        batch,
        features,
        outputs,
    };
    let product = product(inputs, weights, sizes)?;
    match bias {
        Some(bias) => add_bias(&product, bias, Activation::None),
        None => Ok(product),
    }
}

fn product(inputs: &Tensor, weights: &Tensor, sizes: Sizes) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if crate::cuda::operations::takes("linear", inputs)? {
        return crate::cuda::operations::linear(inputs, weights);
    }
    inputs.contiguous()?.apply_op2(&weights.contiguous()?, Linear(sizes))
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
        let to_inputs = if inputs.track_op() {
            Some(gradient.apply_op2_no_bwd(weights, &ToInputs(self.0))?)
        } else {
            None
        };
        let to_weights = if weights.track_op() {
            Some(inputs.apply_op2_no_bwd(&gradient, &ToWeights(self.0))?)
        } else {
            None
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

/// x · wᵀ.
fn forward<T: Element>(
    sizes: Sizes,
    x: &CpuStorage,
    lx: &Layout,
    w: &CpuStorage,
    lw: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (inputs, weights) = (values::<T>(x, lx)?, values::<T>(w, lw)?);
    let Sizes {
        batch,
        features,
        outputs,
    } = sizes;
    let right = Packed::new(&[0], features, outputs, |k, output| weights[output * features + k]);
    let out = rows_times(inputs, [batch, features], &right);
    Ok((T::to_cpu_storage_owned(out), (batch, outputs).into()))
}

/// g · w.
fn to_inputs<T: Element>(
    sizes: Sizes,
    g: &CpuStorage,
    lg: &Layout,
    w: &CpuStorage,
    lw: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (gradient, weights) = (values::<T>(g, lg)?, values::<T>(w, lw)?);
    let Sizes {
        batch,
        features,
        outputs,
    } = sizes;
    let right = Packed::new(&[0], outputs, features, |k, feature| weights[k * features + feature]);
    let out = rows_times(gradient, [batch, outputs], &right);
    Ok((T::to_cpu_storage_owned(out), (batch, features).into()))
}

/// The product of rows `[rows, depth]` with a packed right operand, some rows per task.
fn rows_times<T: Element>(rows: &[T], [count, depth]: [usize; 2], right: &Packed<T>) -> Vec<T> {
    const ROWS: usize = 24;
    let columns = right.columns();
    let mut out = vec![T::zero(); count * columns];
    out.par_chunks_mut(ROWS * columns)
        .zip(rows.par_chunks(ROWS * depth))
        .for_each(|(out, rows)| {
            let starts: Vec<usize> = (0..rows.len()).step_by(depth).collect();
            multiply(rows, &starts, right, |tile| {
                for row in tile.rows.clone() {
                    out[row * columns + tile.column..][..tile.columns].copy_from_slice(tile.row(row));
                }
            });
        });
    out
}

/// gᵀ · x.
fn to_weights<T: Element>(
    sizes: Sizes,
    x: &CpuStorage,
    lx: &Layout,
    g: &CpuStorage,
    lg: &Layout,
) -> Result<(CpuStorage, Shape)> {
    const ROWS: usize = 24;
    let (inputs, gradient) = (values::<T>(x, lx)?, values::<T>(g, lg)?);
    let Sizes { features, outputs, .. } = sizes;
    // The last tile may read past the last row.
    let mut padded = Vec::with_capacity(inputs.len() + SLACK);
    padded.extend_from_slice(inputs);
    padded.resize(inputs.len() + SLACK, T::zero());
    let mut out = vec![T::zero(); outputs * features];
    out.par_chunks_mut(ROWS * features).enumerate().for_each(|(task, out)| {
        let rows = out.len() / features;
        let mut room = Room::default();
        // As many examples as one chain may sum, in order.
        for first in (0..sizes.batch).step_by(CHAIN) {
            let operands = Columns {
                left: &gradient[task * ROWS..],
                right: &padded,
                starts: &[(first * outputs, first * features)],
                count: CHAIN.min(sizes.batch - first),
                left_step: outputs,
                right_step: features,
            };
            multiply_columns(&operands, rows, features, &mut room, |tile| {
                for row in tile.rows.clone() {
                    let out = &mut out[row * features + tile.column..][..tile.columns];
                    out.iter_mut()
                        .zip(tile.row(row))
                        .for_each(|(out, &value)| *out += value);
                }
            });
        }
    });
    Ok((T::to_cpu_storage_owned(out), (outputs, features).into()))
}
