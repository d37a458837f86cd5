//! Sums per channel, and batch normalisation.

use candle_core::Result;

use super::argument::Arg::{At, F64, I32, U32};
use super::argument::{Address, flag};
use super::form::{Extent, Form, typed};
use super::launch::{Grid, Machine, WARP, each};

/// Σ g of every channel. `partial`: [`Extent::partial_bytes`] bytes.
pub(crate) fn channel_sums(
    machine: &impl Machine,
    form: Form,
    out: Address,
    g: Address,
    partial: Address,
    extent: Extent,
) -> Result<()> {
    partial_sums(machine, form, partial, 2, [0, g, 0, 0], extent)?;
    let args = [At(out), At(partial), U32(extent.channels), U32(extent.slices(form))];
    machine.launch("sum_slices", Grid::short_sums(extent.channels), &args)
}

fn partial_sums(
    machine: &impl Machine,
    form: Form,
    partial: Address,
    what: i32,
    operands: [Address; 4],
    extent: Extent,
) -> Result<()> {
    let [x, g, y, mean] = operands.map(At);
    let [batch, channels, area] = [extent.batch, extent.channels, extent.area].map(U32);
    let rows = if form.last {
        extent.channels.div_ceil(WARP)
    } else {
        extent.channels
    };
    let args = [
        At(partial),
        I32(what),
        x,
        g,
        y,
        mean,
        batch,
        channels,
        area,
        form.order(),
    ];
    machine.launch(
        typed!(form, "channel_sums"),
        Grid::sums(extent.slices(form), rows),
        &args,
    )
}

/// Per channel of a batch normalisation: mean and factor in f32, 1/√(variance + ε) in f64.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    pub(crate) mean: Address,
    pub(crate) factor: Address,
    pub(crate) scale: Address,
}

/// Whose statistics a batch normalisation takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// Running mean and variance.
    Running([Address; 2]),
    /// The batch's own, with room for partial sums; running ones move if given.
    Batch {
        partial: Address,
        running: Option<[Address; 2]>,
        momentum: f64,
    },
}

/// The statistics of a batch normalisation.
#[allow(clippy::too_many_arguments, reason = "as many things make one up")]
pub(crate) fn moments(
    machine: &impl Machine,
    form: Form,
    to: Moments,
    x: Address,
    weight: Address,
    source: Source,
    epsilon: f64,
    extent: Extent,
) -> Result<()> {
    let channels = extent.channels;
    let [to_mean, to_scale, to_factor] = [to.mean, to.scale, to.factor].map(At);
    match source {
        Source::Running([mean, variance]) => {
            let args = [
                to_mean,
                to_scale,
                to_factor,
                At(mean),
                At(variance),
                At(weight),
                U32(channels),
                F64(epsilon),
            ];
            each(machine, "running_moments", channels, &args)
        }
        Source::Batch {
            partial,
            running,
            momentum,
        } => {
            partial_sums(machine, form, partial, 0, [x, 0, 0, 0], extent)?;
            let [mean, variance] = running.unwrap_or([0, 0]);
            let args = [
                to_mean,
                to_scale,
                to_factor,
                At(mean),
                At(variance),
                At(weight),
                At(partial),
                U32(channels),
                U32(extent.slices(form)),
                F64(f64::from(extent.per_channel())),
                F64(epsilon),
                F64(momentum),
            ];
            machine.launch("batch_moments", Grid::short_sums(channels), &args)
        }
    }
}

/// (x − mean) · factor + bias, plus `other` unless it is nowhere, then ReLU if asked.
pub(crate) fn normalise(
    machine: &impl Machine,
    form: Form,
    out: Address,
    [x, bias, other]: [Address; 3],
    moments: Moments,
    extent: Extent,
    relu: bool,
) -> Result<()> {
    let n = extent.len();
    let [channels, pixels] = extent.channel_of(form);
    let args = [
        At(out),
        At(x),
        At(moments.mean),
        At(moments.factor),
        At(bias),
        At(other),
        U32(n),
        channels,
        pixels,
        flag(relu),
    ];
    each(machine, typed!(form, "normalise"), n, &args)
}

/// What the gradient of a batch normalisation reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normalised {
    pub(crate) x: Address,
    /// The result, where a ReLU followed; else nowhere.
    pub(crate) y: Address,
    pub(crate) moments: Moments,
    pub(crate) weight: Address,
    /// Whether the statistics were the batch's own.
    pub(crate) of_batch: bool,
    pub(crate) extent: Extent,
}

/// Where sums over the gradient go: four times `[C]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GradientSums {
    pub(crate) partial: Address,
    pub(crate) to_weight: Address,
    pub(crate) to_bias: Address,
    pub(crate) slope: Address,
    pub(crate) offset: Address,
}

/// The gradients to weight and bias, and what the one to the images needs.
pub(crate) fn norm_gradient_sums(
    machine: &impl Machine,
    form: Form,
    of: &Normalised,
    g: Address,
    to: GradientSums,
) -> Result<()> {
    let extent = of.extent;
    partial_sums(machine, form, to.partial, 1, [of.x, g, of.y, of.moments.mean], extent)?;
    let args = [
        At(to.to_weight),
        At(to.to_bias),
        At(to.slope),
        At(to.offset),
        At(to.partial),
        At(of.moments.scale),
        At(of.weight),
        U32(extent.channels),
        U32(extent.slices(form)),
        F64(f64::from(extent.per_channel())),
        flag(of.of_batch),
    ];
    machine.launch("norm_gradient_sums", Grid::short_sums(extent.channels), &args)
}

/// Where a gradient goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// The place; it may be that of the gradient that is read.
    pub(crate) at: Address,
    /// Whether to add to the numbers at that place.
    pub(crate) accumulate: bool,
}

impl Target {
    pub(crate) fn new(at: Address) -> Self {
        Self { at, accumulate: false }
    }
}

/// The gradient to the images, and to `other` of [`normalise`] if it is wanted; `sums` where the statistics were the
/// batch's own.
pub(crate) fn norm_gradient(
    machine: &impl Machine,
    form: Form,
    [out, other]: [Target; 2],
    of: &Normalised,
    g: Address,
    sums: Option<GradientSums>,
) -> Result<()> {
    let (slope, offset) = sums.map_or((0, 0), |sums| (sums.slope, sums.offset));
    let n = of.extent.len();
    let [channels, pixels] = of.extent.channel_of(form);
    let args = [
        At(out.at),
        At(g),
        At(of.y),
        At(of.x),
        At(of.moments.mean),
        At(of.moments.factor),
        At(slope),
        At(offset),
        At(other.at),
        U32(n),
        channels,
        pixels,
        flag(out.accumulate),
        flag(other.accumulate),
    ];
    each(machine, typed!(form, "normalise_gradient"), n, &args)
}
