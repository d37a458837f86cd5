//! Element by element: sums, ReLU and its gradient, other types and orders.

use candle_core::Result;

use super::argument::Arg::{At, F64, U32};
use super::argument::{Address, Arg, count, flag};
use super::form::{Extent, Form, typed};
use super::launch::{Machine, each};
use crate::convolution::Geometry;

/// out = act(x + bias + other); `bias` and `other` may be nowhere. `mark` gets 1 where the result is not zero, if it
/// is somewhere.
pub(crate) fn finish(
    machine: &impl Machine,
    form: Form,
    [out, mark]: [Address; 2],
    [x, bias, other]: [Address; 3],
    extent: Extent,
    relu: bool,
) -> Result<()> {
    let n = extent.len();
    let [channels, pixels] = extent.channel_of(form);
    let args = [
        At(out),
        At(x),
        At(bias),
        At(other),
        At(mark),
        U32(n),
        channels,
        pixels,
        flag(relu),
    ];
    each(machine, typed!(form, "finish"), n, &args)
}

/// The gradient of a ReLU, from its result. `out` may be `g`.
pub(crate) fn relu_gradient(
    machine: &impl Machine,
    form: Form,
    out: Address,
    [y, g]: [Address; 2],
    n: u32,
) -> Result<()> {
    each(
        machine,
        typed!(form, "relu_gradient"),
        n,
        &[At(out), At(y), At(g), U32(n)],
    )
}

/// The gradient of a ReLU in place, from what [`finish`] marked.
pub(crate) fn mask(machine: &impl Machine, form: Form, g: Address, mark: Address, n: u32) -> Result<()> {
    each(machine, typed!(form, "mask"), n, &[At(g), At(mark), U32(n)])
}

/// out = x, or out + x.
pub(crate) fn add(machine: &impl Machine, form: Form, out: Address, x: Address, n: u32, sum: bool) -> Result<()> {
    each(machine, typed!(form, "add"), n, &[At(out), At(x), U32(n), flag(sum)])
}

/// Each number times its factor. `out` may be `x`.
pub(crate) fn times(machine: &impl Machine, form: Form, [out, x, factors]: [Address; 3], n: u32) -> Result<()> {
    each(
        machine,
        typed!(form, "times"),
        n,
        &[At(out), At(x), At(factors), U32(n)],
    )
}

/// max(scale · x + shift, 0), marked as by [`finish`].
pub(crate) fn scale_relu(
    machine: &impl Machine,
    form: Form,
    [out, mark]: [Address; 2],
    [x, scale, shift]: [Address; 3],
    extent: Extent,
) -> Result<()> {
    let n = extent.len();
    let [channels, pixels] = extent.channel_of(form);
    let args = [At(out), At(x), At(scale), At(shift), At(mark), U32(n), channels, pixels];
    each(machine, typed!(form, "scale_relu"), n, &args)
}

/// The gradient of [`scale_relu`].
pub(crate) fn scale_relu_gradient(
    machine: &impl Machine,
    form: Form,
    out: Address,
    [g, scale, mark]: [Address; 3],
    extent: Extent,
    accumulate: bool,
) -> Result<()> {
    let n = extent.len();
    let [channels, pixels] = extent.channel_of(form);
    let args = [
        At(out),
        At(g),
        At(scale),
        At(mark),
        U32(n),
        channels,
        pixels,
        flag(accumulate),
    ];
    each(machine, typed!(form, "scale_relu_gradient"), n, &args)
}

/// f32 numbers as bfloat16 numbers.
pub(crate) fn to_bf16(machine: &impl Machine, out: Address, x: Address, n: u32) -> Result<()> {
    each(machine, "to_bf16", n, &[At(out), At(x), U32(n)])
}

/// bfloat16 numbers as f32 numbers.
pub(crate) fn to_f32(machine: &impl Machine, out: Address, x: Address, n: u32) -> Result<()> {
    each(machine, "to_f32", n, &[At(out), At(x), U32(n)])
}

/// From f32 `[B, C, A]`, in the order of tensors, into a form.
pub(crate) fn enter(machine: &impl Machine, form: Form, out: Address, x: Address, extent: Extent) -> Result<()> {
    each(
        machine,
        typed!(form, "enter"),
        extent.len(),
        &exchange(form, out, x, extent),
    )
}

/// From a form to f32 `[B, C, A]`.
pub(crate) fn leave(machine: &impl Machine, form: Form, out: Address, x: Address, extent: Extent) -> Result<()> {
    each(
        machine,
        typed!(form, "leave"),
        extent.len(),
        &exchange(form, out, x, extent),
    )
}

fn exchange(form: Form, out: Address, x: Address, extent: Extent) -> [Arg; 6] {
    let [n, channels, area] = [extent.len(), extent.channels, extent.area].map(U32);
    [At(out), At(x), n, channels, area, form.order()]
}

/// A batch normalisation by running statistics: weight, bias, mean, variance, each `[C]`, or all nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Constants {
    pub(crate) norm: [Address; 4],
    pub(crate) epsilon: f64,
}

/// A convolution's weights in a form, times what a normalisation after it multiplies by.
pub(crate) fn fold(
    machine: &impl Machine,
    form: Form,
    out: Address,
    weight: Address,
    constants: Constants,
    geometry: &Geometry,
) -> Result<()> {
    let [norm_weight, _, _, variance] = constants.norm;
    let n = count(geometry.outputs * geometry.patch())?;
    let args = [
        At(out),
        At(weight),
        At(norm_weight),
        At(variance),
        F64(constants.epsilon),
        U32(n),
        U32(geometry.inputs as u32),
        U32(geometry.kernel_pixels() as u32),
        form.order(),
    ];
    each(machine, typed!(form, "fold"), n, &args)
}

/// What a normalisation multiplies by and adds, the first or not, the bias before it included.
pub(crate) fn fold_norm(
    machine: &impl Machine,
    [scale, shift]: [Address; 2],
    bias: Address,
    constants: Constants,
    channels: u32,
) -> Result<()> {
    let [weight, norm_bias, mean, variance] = constants.norm.map(At);
    let args = [
        At(scale),
        At(shift),
        At(bias),
        weight,
        norm_bias,
        mean,
        variance,
        F64(constants.epsilon),
        U32(channels),
    ];
    each(machine, "fold_norm", channels, &args)
}
