//! What a GPU does, told apart from how it is told: sequences of kernel launches and convolutions.
//!
//! The card runs them through the driver. In tests an emulator runs the same sequences with the same
//! kernels on the processor.

use candle_core::{Result, bail};

use crate::convolution::Geometry;
pub(crate) use crate::resident::{Cut, SgdStep};

/// A place in a machine's memory; 0 is nowhere.
pub(crate) type Address = u64;

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arg {
    At(Address),
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    F64(f64),
}

/// Blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) blocks: [u32; 2],
    pub(crate) threads: u32,
}

const THREADS: u32 = 256;

impl Grid {
    /// For a loop over `n` numbers.
    pub(crate) fn over(n: u32) -> Self {
        // More blocks than run at once on any card gain nothing; the loop strides.
        const MOST: u32 = 4096;
        Self {
            blocks: [n.div_ceil(THREADS).clamp(1, MOST), 1],
            threads: THREADS,
        }
    }

    /// For loops over few, long rows.
    fn rows(n: u32) -> Self {
        Self {
            blocks: [n.div_ceil(32).max(1), 1],
            threads: 32,
        }
    }

    /// A whole block for each of x · y sums.
    fn sums(x: u32, y: u32) -> Self {
        Self {
            blocks: [x, y],
            threads: THREADS,
        }
    }
}

/// Which product of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pass {
    /// Images and weights to the result.
    Forward,
    /// The result's gradient and weights to the images' gradient.
    ToImages,
    /// Images and the result's gradient to the weights' gradient.
    ToWeights,
}

/// A convolution as a machine needs it described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Convolve {
    pub(crate) geometry: Geometry,
    /// bfloat16 instead of f32.
    pub(crate) half: bool,
    /// Channels last, in images and in weights.
    pub(crate) last: bool,
}

/// Something that runs kernels, in the order in which it is told.
pub(crate) trait Machine {
    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()>;

    /// `images`, `weights` and `result` are read or written as the pass says, gradients in the place of what they
    /// are gradients of. `accumulate` adds to what is there.
    fn convolve(
        &self,
        convolution: &Convolve,
        pass: Pass,
        images: Address,
        weights: Address,
        result: Address,
        accumulate: bool,
    ) -> Result<()>;
}

/// A number of elements that kernels can count.
pub(crate) fn count(elements: usize) -> Result<u32> {
    match u32::try_from(elements) {
        Ok(count) if count <= i32::MAX as u32 => Ok(count),
        _ => bail!("{elements} numbers are more than one kernel takes; use a smaller batch"),
    }
}

/// Batch, channels and pixels of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) batch: u32,
    pub(crate) channels: u32,
    pub(crate) area: u32,
}

impl Extent {
    /// Of a tensor `[B, C, …]`.
    pub(crate) fn new(dims: &[usize]) -> Result<Self> {
        count(dims.iter().product())?;
        Ok(Self {
            batch: dims[0] as u32,
            channels: dims[1] as u32,
            area: dims[2..].iter().product::<usize>() as u32,
        })
    }

    pub(crate) fn len(&self) -> u32 {
        self.batch * self.channels * self.area
    }

    /// Runs into which a channel's numbers are cut for a sum. By size alone, so that sums are the same bits
    /// on every card.
    pub(crate) fn slices(&self) -> u32 {
        const PER_SLICE: u32 = 16_384;
        (self.batch * self.area).div_ceil(PER_SLICE).clamp(1, 64)
    }
}

use Arg::{At, F32, F64, I32, U32, U64};

/// out = act(x + bias + other); `bias` and `other` may be nowhere.
pub(crate) fn finish(
    machine: &impl Machine,
    out: Address,
    [x, bias, other]: [Address; 3],
    extent: Extent,
    relu: bool,
) -> Result<()> {
    let args = [
        At(out),
        At(x),
        At(bias),
        At(other),
        At(0),
        U32(extent.len()),
        U32(extent.channels),
        U32(extent.area),
        I32(i32::from(relu)),
    ];
    machine.launch("finish_f32", Grid::over(extent.len()), &args)
}

/// The gradient of a ReLU, from its result.
pub(crate) fn relu_gradient(machine: &impl Machine, out: Address, y: Address, g: Address, n: u32) -> Result<()> {
    machine.launch("relu_gradient", Grid::over(n), &[At(out), At(y), At(g), U32(n)])
}

/// Σ g of every channel. `partial`: 2 · channels · slices doubles.
pub(crate) fn channel_sums(
    machine: &impl Machine,
    out: Address,
    g: Address,
    partial: Address,
    extent: Extent,
) -> Result<()> {
    partial_sums(machine, partial, 2, [0, g, 0, 0], extent)?;
    let slices = extent.slices();
    machine.launch(
        "sum_slices",
        Grid::over(extent.channels),
        &[At(out), At(partial), U32(extent.channels), U32(slices)],
    )
}

fn partial_sums(
    machine: &impl Machine,
    partial: Address,
    what: i32,
    [x, g, y, mean]: [Address; 4],
    extent: Extent,
) -> Result<()> {
    let args = [
        At(partial),
        I32(what),
        At(x),
        At(g),
        At(y),
        At(mean),
        U32(extent.batch),
        U32(extent.channels),
        U32(extent.area),
    ];
    machine.launch("channel_sums", Grid::sums(extent.slices(), extent.channels), &args)
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
    /// The batch's own, with room for partial sums; running ones move, if they are there.
    Batch {
        partial: Address,
        running: Option<[Address; 2]>,
        momentum: f64,
    },
}

/// The statistics of a batch normalisation.
pub(crate) fn moments(
    machine: &impl Machine,
    to: Moments,
    x: Address,
    weight: Address,
    source: Source,
    epsilon: f64,
    extent: Extent,
) -> Result<()> {
    let grid = Grid::over(extent.channels);
    match source {
        Source::Running([mean, variance]) => {
            let args = [
                At(to.mean),
                At(to.scale),
                At(to.factor),
                At(mean),
                At(variance),
                At(weight),
                U32(extent.channels),
                F64(epsilon),
            ];
            machine.launch("running_moments", grid, &args)
        }
        Source::Batch {
            partial,
            running,
            momentum,
        } => {
            partial_sums(machine, partial, 0, [x, 0, 0, 0], extent)?;
            let [mean, variance] = running.unwrap_or([0, 0]);
            let args = [
                At(to.mean),
                At(to.scale),
                At(to.factor),
                At(mean),
                At(variance),
                At(weight),
                At(partial),
                U32(extent.channels),
                U32(extent.slices()),
                F64(f64::from(extent.batch * extent.area)),
                F64(epsilon),
                F64(momentum),
            ];
            machine.launch("batch_moments", grid, &args)
        }
    }
}

/// (x − mean) · factor + bias, then perhaps ReLU.
pub(crate) fn normalise(
    machine: &impl Machine,
    out: Address,
    x: Address,
    moments: Moments,
    bias: Address,
    extent: Extent,
    relu: bool,
) -> Result<()> {
    let args = [
        At(out),
        At(x),
        At(moments.mean),
        At(moments.factor),
        At(bias),
        U32(extent.len()),
        U32(extent.channels),
        U32(extent.area),
        I32(i32::from(relu)),
    ];
    machine.launch("normalise", Grid::over(extent.len()), &args)
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
pub(crate) fn norm_gradient_sums(machine: &impl Machine, of: &Normalised, g: Address, to: GradientSums) -> Result<()> {
    let extent = of.extent;
    partial_sums(machine, to.partial, 1, [of.x, g, of.y, of.moments.mean], extent)?;
    let args = [
        At(to.to_weight),
        At(to.to_bias),
        At(to.slope),
        At(to.offset),
        At(to.partial),
        At(of.moments.scale),
        At(of.weight),
        U32(extent.channels),
        U32(extent.slices()),
        F64(f64::from(extent.batch * extent.area)),
        I32(i32::from(of.of_batch)),
    ];
    machine.launch("norm_gradient_sums", Grid::over(extent.channels), &args)
}

/// The gradient to the images; `sums` where the statistics were the batch's own.
pub(crate) fn norm_gradient(
    machine: &impl Machine,
    out: Address,
    of: &Normalised,
    g: Address,
    sums: Option<GradientSums>,
) -> Result<()> {
    let (slope, offset) = sums.map_or((0, 0), |sums| (sums.slope, sums.offset));
    let args = [
        At(out),
        At(g),
        At(of.y),
        At(of.x),
        At(of.moments.mean),
        At(of.moments.factor),
        At(slope),
        At(offset),
        U32(of.extent.len()),
        U32(of.extent.channels),
        U32(of.extent.area),
    ];
    machine.launch("normalise_gradient", Grid::over(of.extent.len()), &args)
}

/// Images `[B, C, H, W]` cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) images: [usize; 4],
    pub(crate) down: usize,
    pub(crate) across: usize,
}

impl Windows {
    pub(crate) fn square(images: [usize; 4], size: usize) -> Self {
        Self {
            images,
            down: size,
            across: size,
        }
    }

    pub(crate) fn out(&self) -> [usize; 4] {
        let [b, c, h, w] = self.images;
        [b, c, h / self.down, w / self.across]
    }

    fn sizes(&self) -> [Arg; 3] {
        let [_, c, h, w] = self.images.map(|size| size as u32);
        [U32(c), U32(h), U32(w)]
    }

    fn len(&self) -> u32 {
        self.images.iter().product::<usize>() as u32
    }

    fn out_len(&self) -> u32 {
        self.out().iter().product::<usize>() as u32
    }
}

/// Names of a kernel for f32 and bfloat16.
macro_rules! typed {
    ($half:expr, $name:literal) => {
        if $half {
            concat!($name, "_bf16")
        } else {
            concat!($name, "_f32")
        }
    };
}
pub(crate) use typed;

/// In which type and order numbers lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    pub(crate) half: bool,
    pub(crate) last: bool,
}

impl Form {
    fn order(self) -> Arg {
        I32(i32::from(self.last))
    }
}

/// The maxima of all windows, and their places if `places` is somewhere.
pub(crate) fn max_pool(
    machine: &impl Machine,
    form: Form,
    out: Address,
    places: Address,
    x: Address,
    windows: Windows,
) -> Result<()> {
    let [channels, height, width] = windows.sizes();
    let n = windows.out_len();
    let size = U32(windows.down as u32);
    let args = [
        At(out),
        At(places),
        At(x),
        U32(n),
        channels,
        height,
        width,
        size,
        form.order(),
    ];
    machine.launch(typed!(form.half, "max_pool"), Grid::over(n), &args)
}

/// The gradient of [`max_pool`].
pub(crate) fn max_pool_gradient(
    machine: &impl Machine,
    form: Form,
    out: Address,
    places: Address,
    g: Address,
    windows: Windows,
    accumulate: bool,
) -> Result<()> {
    let [channels, height, width] = windows.sizes();
    let n = windows.len();
    let args = [
        At(out),
        At(places),
        At(g),
        U32(n),
        channels,
        height,
        width,
        U32(windows.down as u32),
        form.order(),
        I32(i32::from(accumulate)),
    ];
    machine.launch(typed!(form.half, "max_pool_gradient"), Grid::over(n), &args)
}

/// The means of all windows.
pub(crate) fn mean_pool(machine: &impl Machine, form: Form, out: Address, x: Address, windows: Windows) -> Result<()> {
    let [channels, height, width] = windows.sizes();
    let n = windows.out_len();
    let (down, across) = (U32(windows.down as u32), U32(windows.across as u32));
    let args = [
        At(out),
        At(x),
        U32(n),
        channels,
        height,
        width,
        down,
        across,
        form.order(),
    ];
    machine.launch(typed!(form.half, "mean_pool"), Grid::over(n), &args)
}

/// The gradient of [`mean_pool`].
pub(crate) fn mean_pool_gradient(
    machine: &impl Machine,
    form: Form,
    out: Address,
    g: Address,
    windows: Windows,
    accumulate: bool,
) -> Result<()> {
    let [channels, height, width] = windows.sizes();
    let n = windows.len();
    let args = [
        At(out),
        At(g),
        U32(n),
        channels,
        height,
        width,
        U32(windows.down as u32),
        U32(windows.across as u32),
        form.order(),
        I32(i32::from(accumulate)),
    ];
    machine.launch(typed!(form.half, "mean_pool_gradient"), Grid::over(n), &args)
}

/// log softmax of every row.
pub(crate) fn log_softmax(machine: &impl Machine, out: Address, z: Address, [batch, classes]: [u32; 2]) -> Result<()> {
    let args = [At(out), At(z), U32(batch), U32(classes)];
    machine.launch("log_softmax", Grid::rows(batch), &args)
}

/// Its gradient, from its result.
pub(crate) fn log_softmax_gradient(
    machine: &impl Machine,
    out: Address,
    logs: Address,
    g: Address,
    [batch, classes]: [u32; 2],
) -> Result<()> {
    let args = [At(out), At(logs), At(g), U32(batch), U32(classes)];
    machine.launch("log_softmax_gradient", Grid::rows(batch), &args)
}

/// Cross entropy of every row.
pub(crate) fn cross_entropy(
    machine: &impl Machine,
    out: Address,
    z: Address,
    labels: Address,
    [batch, classes]: [u32; 2],
) -> Result<()> {
    let args = [At(out), At(z), At(labels), U32(batch), U32(classes)];
    machine.launch("cross_entropy", Grid::rows(batch), &args)
}

/// Its gradient.
pub(crate) fn cross_entropy_gradient(
    machine: &impl Machine,
    out: Address,
    [z, labels, g]: [Address; 3],
    [batch, classes]: [u32; 2],
) -> Result<()> {
    let args = [At(out), At(z), At(labels), At(g), U32(batch), U32(classes)];
    machine.launch("cross_entropy_gradient", Grid::rows(batch), &args)
}

/// The gradient to the logits of a loss that an attack ascends.
pub(crate) fn loss_gradient(
    machine: &impl Machine,
    out: Address,
    [z, labels, clean]: [Address; 3],
    loss: crate::ascent::Loss,
    [batch, classes]: [u32; 2],
) -> Result<()> {
    let (kind, kappa) = loss.code();
    let args = [
        At(out),
        At(z),
        At(labels),
        At(clean),
        I32(kind),
        F32(kappa),
        U32(batch),
        U32(classes),
    ];
    machine.launch("loss_gradient", Grid::rows(batch), &args)
}

/// v ← min(max(v + step · sign(g), lower), upper).
pub(crate) fn sign_step(
    machine: &impl Machine,
    out: Address,
    [v, g, lower, upper]: [Address; 4],
    step: f32,
    n: u32,
) -> Result<()> {
    let args = [At(out), At(v), At(g), At(lower), At(upper), F32(step), U32(n)];
    machine.launch("sign_step", Grid::over(n), &args)
}

/// 1 in `flags` for every image whose gradient is zero throughout.
pub(crate) fn flag_zero(machine: &impl Machine, flags: Address, g: Address, batch: u32, len: u32) -> Result<()> {
    machine.launch("flag_zero", Grid::sums(batch, 1), &[At(flags), At(g), U32(len)])
}

/// One step of gradient descent on one parameter.
pub(crate) fn sgd_step(machine: &impl Machine, [theta, buffer, g]: [Address; 3], step: &SgdStep, n: u32) -> Result<()> {
    let args = [
        At(theta),
        At(buffer),
        At(g),
        U32(n),
        F32(step.rate as f32),
        F32(step.momentum as f32),
        F32(step.decay as f32),
        I32(i32::from(step.nesterov)),
        I32(i32::from(step.first)),
    ];
    machine.launch("sgd_step", Grid::over(n), &args)
}

/// Draws `[rows, len]` of the examples whose ids lie at `ids`.
pub(crate) fn draws(
    machine: &impl Machine,
    out: Address,
    ids: Address,
    [rows, len]: [u32; 2],
    key: u64,
    normal: bool,
) -> Result<()> {
    let kernel = if normal { "philox_normal" } else { "philox_uniform" };
    let args = [At(out), At(ids), U32(rows), U32(len), U64(key)];
    machine.launch(kernel, Grid::over(rows * len.div_ceil(4)), &args)
}

/// Windows of the byte images that `rows` names; three numbers of `draws` for each.
pub(crate) fn crop_flip(
    machine: &impl Machine,
    out: Address,
    [images, rows, draws]: [Address; 3],
    batch: u32,
    cut: &Cut,
) -> Result<()> {
    let [c, h, w] = cut.image.map(|size| size as u32);
    let n = batch * c * h * w;
    let args = [
        At(out),
        At(images),
        At(rows),
        At(draws),
        U32(n),
        U32(c),
        U32(h),
        U32(w),
        U32(cut.pad as u32),
        I32(i32::from(cut.reflect)),
        F32(f32::from(cut.scale)),
    ];
    machine.launch("crop_flip", Grid::over(n), &args)
}
