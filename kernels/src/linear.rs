//! The fully connected layer: y = x · wᵀ.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use crate::bias::{Activation, add_bias};
use crate::element::{Element, check_dtypes, dispatch, values};
use crate::product::{Packed, Strided, multiply_in_columns};

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
    let product = inputs.contiguous()?.apply_op2(&weights.contiguous()?, Linear(sizes))?;
    match bias {
        Some(bias) => add_bias(&product, bias, Activation::None),
        None => Ok(product),
    }
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

/// x · wᵀ.
fn forward<T: Element>(
    sizes: Sizes,
    x: &CpuStorage,
    lx: &Layout,
    w: &CpuStorage,
    lw: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (inputs, weights) = (values::<T>(x, lx)?, values::<T>(w, lw)?);
    let mut left = Packed::empty();
    left.fill(sizes.batch, sizes.features, |row, k| {
        &inputs[row * sizes.features + k..]
    });
    let right = Strided {
        values: weights,
        columns: sizes.outputs,
        depth_stride: 1,
        column_stride: sizes.features,
    };
    let out = multiply_in_columns(&left, &right);
    Ok((T::to_cpu_storage_owned(out), (sizes.batch, sizes.outputs).into()))
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
    let mut left = Packed::empty();
    left.fill(sizes.batch, sizes.outputs, |row, k| {
        &gradient[row * sizes.outputs + k..]
    });
    let right = Strided {
        values: weights,
        columns: sizes.features,
        depth_stride: sizes.features,
        column_stride: 1,
    };
    let out = multiply_in_columns(&left, &right);
    Ok((T::to_cpu_storage_owned(out), (sizes.batch, sizes.features).into()))
}

/// gᵀ · x.
fn to_weights<T: Element>(
    sizes: Sizes,
    x: &CpuStorage,
    lx: &Layout,
    g: &CpuStorage,
    lg: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (inputs, gradient) = (values::<T>(x, lx)?, values::<T>(g, lg)?);
    let left = Packed::new(sizes.outputs, sizes.batch, |row, k| gradient[k * sizes.outputs + row]);
    let right = Strided {
        values: inputs,
        columns: sizes.features,
        depth_stride: sizes.features,
        column_stride: 1,
    };
    let out = multiply_in_columns(&left, &right);
    Ok((T::to_cpu_storage_owned(out), (sizes.outputs, sizes.features).into()))
}
