//! Pooling over windows that do not overlap.

use candle_core::Result;

use super::argument::Arg::{At, U32};
use super::argument::{Address, Arg, flag};
use super::form::{Form, typed};
use super::launch::{Machine, each};
use super::norm::Target;

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

    /// One window for each channel of each image.
    pub(crate) fn whole(images: [usize; 4]) -> Self {
        let [_, _, down, across] = images;
        Self { images, down, across }
    }

    pub(crate) fn out(&self) -> [usize; 4] {
        let [b, c, h, w] = self.images;
        [b, c, h / self.down, w / self.across]
    }

    /// Channels, height and width.
    fn sizes(&self) -> [Arg; 3] {
        let [_, c, h, w] = self.images.map(|size| size as u32);
        [c, h, w].map(U32)
    }

    fn window(&self) -> [Arg; 2] {
        [self.down, self.across].map(|size| U32(size as u32))
    }

    fn len(&self) -> u32 {
        self.images.iter().product::<usize>() as u32
    }

    fn out_len(&self) -> u32 {
        self.out().iter().product::<usize>() as u32
    }
}

/// The maxima of all windows, and their places if `places` is somewhere.
pub(crate) fn max_pool(
    machine: &impl Machine,
    form: Form,
    [out, places]: [Address; 2],
    x: Address,
    windows: Windows,
) -> Result<()> {
    let ([channels, height, width], [size, _]) = (windows.sizes(), windows.window());
    let n = windows.out_len();
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
    each(machine, typed!(form, "max_pool"), n, &args)
}

/// The gradient of [`max_pool`].
pub(crate) fn max_pool_gradient(
    machine: &impl Machine,
    form: Form,
    out: Target,
    [places, g]: [Address; 2],
    windows: Windows,
) -> Result<()> {
    let ([channels, height, width], [size, _]) = (windows.sizes(), windows.window());
    let n = windows.len();
    let args = [
        At(out.at),
        At(places),
        At(g),
        U32(n),
        channels,
        height,
        width,
        size,
        form.order(),
        flag(out.accumulate),
    ];
    each(machine, typed!(form, "max_pool_gradient"), n, &args)
}

/// The means of all windows.
pub(crate) fn mean_pool(machine: &impl Machine, form: Form, out: Address, x: Address, windows: Windows) -> Result<()> {
    let ([channels, height, width], [down, across]) = (windows.sizes(), windows.window());
    let n = windows.out_len();
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
    each(machine, typed!(form, "mean_pool"), n, &args)
}

/// The gradient of [`mean_pool`].
pub(crate) fn mean_pool_gradient(
    machine: &impl Machine,
    form: Form,
    out: Target,
    g: Address,
    windows: Windows,
) -> Result<()> {
    let ([channels, height, width], [down, across]) = (windows.sizes(), windows.window());
    let n = windows.len();
    let args = [
        At(out.at),
        At(g),
        U32(n),
        channels,
        height,
        width,
        down,
        across,
        form.order(),
        flag(out.accumulate),
    ];
    each(machine, typed!(form, "mean_pool_gradient"), n, &args)
}
