//! The operations as Candle sees them. Operands are contiguous and f32; the functions that call these have
//! checked shapes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::cuda::CudaStorageSlice;
use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, Var, bail,
};

use super::card::Card;
use super::machine::{
    self, Address, Arg, Convolve, Cut, Extent, Form, GradientSums, Grid, Machine, Moments, Normalised, Pass, SgdStep,
    Source, Windows, count,
};
use crate::bias::Activation;
use crate::convolution::Geometry;
use crate::device::{Precision, settings};
use crate::{BatchNorm, Statistics};

/// The card on which a tensor lies.
pub(crate) fn card(tensor: &Tensor) -> Result<Arc<Card>> {
    Card::of(tensor.device().as_cuda_device()?)
}

/// Where an operand's numbers start.
fn place(card: &Card, storage: &CudaStorage, layout: &Layout) -> Result<Address> {
    let Some((start, _)) = layout.contiguous_offsets() else {
        bail!("operand of shape {:?} is not contiguous", layout.shape());
    };
    let (base, width) = match &storage.slice {
        CudaStorageSlice::F32(slice) => (card.address(slice), 4),
        CudaStorageSlice::U32(slice) => (card.address(slice), 4),
        CudaStorageSlice::U8(slice) => (card.address(slice), 1),
        _ => bail!("on a GPU operands must be f32"),
    };
    Ok(base + (start * width) as u64)
}

/// Where a tensor's numbers start. They stay there as long as the tensor lives.
pub(crate) fn at(card: &Card, tensor: &Tensor) -> Result<Address> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => place(card, storage, layout),
        _ => bail!("operand of shape {:?} is not on the GPU", layout.shape()),
    }
}

/// A new f32 storage, as `write` fills it.
fn filled(card: &Card, len: usize, write: impl FnOnce(Address) -> Result<()>) -> Result<CudaStorage> {
    count(len)?;
    let out: CudaSlice<f32> = card.room(len)?;
    if len > 0 {
        write(card.address(&out))?;
    }
    Ok(CudaStorage {
        slice: CudaStorageSlice::F32(out),
        device: card.device.clone(),
    })
}

/// A new tensor outside any graph, as `write` fills it.
pub(crate) fn made(card: &Card, shape: impl Into<Shape>, write: impl FnOnce(Address) -> Result<()>) -> Result<Tensor> {
    let shape = shape.into();
    let storage = filled(card, shape.elem_count(), write)?;
    Ok(Tensor::from_storage(
        Storage::Cuda(storage),
        shape,
        BackpropOp::none(),
        false,
    ))
}

/// Room for the partial sums of [`machine`]'s reductions.
fn partial(card: &Card, extent: Extent) -> Result<CudaSlice<f64>> {
    card.room(2 * (extent.channels * extent.slices()) as usize)
}

macro_rules! only_on_a_gpu {
    ($name:literal, $($argument:ident),*) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn cpu_fwd(&self, $($argument: &CpuStorage, _: &Layout),*) -> Result<(CpuStorage, Shape)> {
            $(let _ = $argument;)*
            bail!(concat!($name, ": the GPU's form of it, on the CPU"))
        }
    };
}

// ---- convolution

/// One product of a convolution, in the precision that is set.
fn product(card: &Card, geometry: &Geometry, pass: Pass, [images, weights, result]: [Address; 3]) -> Result<()> {
    let half = settings().precision == Precision::Bf16;
    let convolve = Convolve {
        geometry: *geometry,
        half,
        last: false,
    };
    if !half {
        return card.convolve(&convolve, pass, images, weights, result, false);
    }
    let lens = [
        geometry.batch * geometry.input_len(),
        geometry.outputs * geometry.patch(),
        geometry.batch * geometry.output_len(),
    ];
    let rounded: [CudaSlice<u16>; 3] = [card.room(lens[0])?, card.room(lens[1])?, card.room(lens[2])?];
    let places = [0, 1, 2].map(|i| card.address(&rounded[i]));
    let written = match pass {
        Pass::Forward => 2,
        Pass::ToImages => 0,
        Pass::ToWeights => 1,
    };
    let plain = [images, weights, result];
    for i in 0..3 {
        if i != written {
            let n = count(lens[i])?;
            card.launch(
                "to_bf16",
                Grid::over(n),
                &[Arg::At(places[i]), Arg::At(plain[i]), Arg::U32(n)],
            )?;
        }
    }
    card.convolve(&convolve, pass, places[0], places[1], places[2], false)?;
    let n = count(lens[written])?;
    let args = [Arg::At(plain[written]), Arg::At(places[written]), Arg::U32(n)];
    card.launch("to_f32", Grid::over(n), &args)
}

struct Convolution(Geometry);

pub(crate) fn conv2d(images: &Tensor, weights: &Tensor, geometry: Geometry) -> Result<Tensor> {
    images
        .contiguous()?
        .apply_op2(&weights.contiguous()?, Convolution(geometry))
}

impl CustomOp2 for Convolution {
    only_on_a_gpu!("conv2d", _x, _w);

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, w: &CudaStorage, lw: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let shape = Shape::from(self.0.output_shape());
        let operands = [place(&card, x, lx)?, place(&card, w, lw)?];
        let out = filled(&card, shape.elem_count(), |out| {
            product(&card, &self.0, Pass::Forward, [operands[0], operands[1], out])
        })?;
        Ok((out, shape))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let card = card(x)?;
        let g = g.contiguous()?;
        let [x_at, w_at, g_at] = [at(&card, x)?, at(&card, w)?, at(&card, &g)?];
        let to_images = || {
            made(&card, x.shape().clone(), |out| {
                product(&card, &self.0, Pass::ToImages, [out, w_at, g_at])
            })
        };
        let to_weights = || {
            made(&card, w.shape().clone(), |out| {
                product(&card, &self.0, Pass::ToWeights, [x_at, out, g_at])
            })
        };
        Ok((
            x.track_op().then(to_images).transpose()?,
            w.track_op().then(to_weights).transpose()?,
        ))
    }
}

// ---- batch normalisation

struct Normalise {
    mean: CudaSlice<f32>,
    factor: CudaSlice<f32>,
    scale: CudaSlice<f64>,
    of_batch: bool,
    relu: bool,
    extent: Extent,
}

impl Normalise {
    fn moments(&self, card: &Card) -> Moments {
        Moments {
            mean: card.address(&self.mean),
            factor: card.address(&self.factor),
            scale: card.address(&self.scale),
        }
    }
}

pub(crate) fn batch_norm(
    images: &Tensor,
    norm: &BatchNorm,
    statistics: Statistics,
    activation: Activation,
) -> Result<Tensor> {
    let card = card(images)?;
    let images = images.contiguous()?;
    let (weight, bias) = (norm.weight.contiguous()?, norm.bias.contiguous()?);
    let extent = Extent::new(images.dims())?;
    let channels = extent.channels as usize;
    let op = Normalise {
        mean: card.room(channels)?,
        factor: card.room(channels)?,
        scale: card.room(channels)?,
        of_batch: statistics != Statistics::Running,
        relu: activation == Activation::Relu,
        extent,
    };
    let running = [
        at(&card, norm.running_mean.as_tensor())?,
        at(&card, norm.running_var.as_tensor())?,
    ];
    let sums = partial(&card, extent)?;
    let source = match statistics {
        Statistics::Running => Source::Running(running),
        Statistics::Batch | Statistics::BatchAndUpdate => Source::Batch {
            partial: card.address(&sums),
            running: (statistics == Statistics::BatchAndUpdate).then_some(running),
            momentum: norm.momentum,
        },
    };
    let (x, weight_at) = (at(&card, &images)?, at(&card, &weight)?);
    machine::moments(&*card, op.moments(&card), x, weight_at, source, norm.epsilon, extent)?;
    if statistics == Statistics::BatchAndUpdate {
        norm.updates.fetch_add(1, Ordering::Relaxed);
    }
    images.apply_op3(&weight, &bias, op)
}

impl CustomOp3 for Normalise {
    only_on_a_gpu!("batch_norm", _x, _w, _b);

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        _: &CudaStorage,
        _: &Layout,
        b: &CudaStorage,
        lb: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let (x, bias) = (place(&card, x, lx)?, place(&card, b, lb)?);
        let out = filled(&card, lx.shape().elem_count(), |out| {
            machine::normalise(&*card, out, x, self.moments(&card), bias, self.extent, self.relu)
        })?;
        Ok((out, lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let card = card(x)?;
        let g = g.contiguous()?;
        let g_at = at(&card, &g)?;
        let of = Normalised {
            x: at(&card, x)?,
            y: if self.relu { at(&card, result)? } else { 0 },
            moments: self.moments(&card),
            weight: at(&card, weight)?,
            of_batch: self.of_batch,
            extent: self.extent,
        };
        let channels = self.extent.channels as usize;
        let mut sums = None;
        // What the sums lie in lives until all launches are told; the stream keeps their order.
        let room = partial(&card, self.extent)?;
        let both: CudaSlice<f32> = card.room(2 * channels)?;
        let (mut to_weight, mut to_bias) = (None, None);
        if self.of_batch || weight.track_op() || bias.track_op() {
            let [w, b] = [made(&card, channels, |_| Ok(()))?, made(&card, channels, |_| Ok(()))?];
            let places = GradientSums {
                partial: card.address(&room),
                to_weight: at(&card, &w)?,
                to_bias: at(&card, &b)?,
                slope: card.address(&both),
                offset: card.address(&both) + 4 * channels as u64,
            };
            machine::norm_gradient_sums(&*card, &of, g_at, places)?;
            to_weight = weight.track_op().then_some(w);
            to_bias = bias.track_op().then_some(b);
            sums = self.of_batch.then_some(places);
        }
        let to_images = || {
            made(&card, x.shape().clone(), |out| {
                machine::norm_gradient(&*card, out, &of, g_at, sums)
            })
        };
        Ok((x.track_op().then(to_images).transpose()?, to_weight, to_bias))
    }
}

// ---- sums and ReLU

/// act(a + bias) or act(a + b).
struct Sum {
    relu: bool,
    /// Whether the second operand is a bias per channel.
    bias: bool,
}

pub(crate) fn add_bias(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let relu = activation == Activation::Relu;
    x.contiguous()?.apply_op2(&bias.contiguous()?, Sum { relu, bias: true })
}

pub(crate) fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let op = Sum {
        relu: true,
        bias: false,
    };
    a.contiguous()?.apply_op2(&b.contiguous()?, op)
}

/// Any shape as one channel.
fn one_channel(len: usize) -> Result<Extent> {
    Ok(Extent {
        batch: 1,
        channels: 1,
        area: count(len)?,
    })
}

impl CustomOp2 for Sum {
    only_on_a_gpu!("sum", _x, _b);

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, b: &CudaStorage, lb: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let (x, b) = (place(&card, x, lx)?, place(&card, b, lb)?);
        let (extent, operands) = match self.bias {
            true => (Extent::new(lx.dims())?, [x, b, 0]),
            false => (one_channel(lx.shape().elem_count())?, [x, 0, b]),
        };
        let out = filled(&card, lx.shape().elem_count(), |out| {
            machine::finish(&*card, out, operands, extent, self.relu)
        })?;
        Ok((out, lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, b: &Tensor, result: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !x.track_op() && !b.track_op() {
            return Ok((None, None));
        }
        let g = match self.relu {
            true => relu_gradient(result, g)?,
            false => g.contiguous()?,
        };
        let to_second = match (b.track_op(), self.bias) {
            (false, _) => None,
            (true, false) => Some(g.clone()),
            (true, true) => {
                let card = card(x)?;
                let extent = Extent::new(x.dims())?;
                let room = partial(&card, extent)?;
                let g = at(&card, &g)?;
                Some(made(&card, b.shape().clone(), |out| {
                    machine::channel_sums(&*card, out, g, card.address(&room), extent)
                })?)
            }
        };
        Ok((x.track_op().then_some(g), to_second))
    }
}

fn relu_gradient(result: &Tensor, g: &Tensor) -> Result<Tensor> {
    let card = card(result)?;
    let g = g.contiguous()?;
    let (y, g_at) = (at(&card, result)?, at(&card, &g)?);
    let n = count(result.elem_count())?;
    made(&card, result.shape().clone(), |out| {
        machine::relu_gradient(&*card, out, y, g_at, n)
    })
}

struct Relu;

pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Relu)
}

impl CustomOp1 for Relu {
    only_on_a_gpu!("relu", _x);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let x = place(&card, x, layout)?;
        let extent = one_channel(layout.shape().elem_count())?;
        let out = filled(&card, layout.shape().elem_count(), |out| {
            machine::finish(&*card, out, [x, 0, 0], extent, true)
        })?;
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        x.track_op().then(|| relu_gradient(result, g)).transpose()
    }
}

// ---- pooling

struct Pool {
    windows: Windows,
    maximum: bool,
}

pub(crate) fn max_pool2d(images: &Tensor, size: usize) -> Result<Tensor> {
    let windows = Windows::square(images.dims4()?.into(), size);
    images.contiguous()?.apply_op1(Pool { windows, maximum: true })
}

pub(crate) fn avg_pool2d(images: &Tensor, size: usize) -> Result<Tensor> {
    let windows = Windows::square(images.dims4()?.into(), size);
    images.contiguous()?.apply_op1(Pool {
        windows,
        maximum: false,
    })
}

impl CustomOp1 for Pool {
    only_on_a_gpu!("pool", _x);

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let x = place(&card, x, layout)?;
        count(layout.shape().elem_count())?;
        let shape = Shape::from(self.windows.out().to_vec());
        let form = Form::default();
        let out = filled(&card, shape.elem_count(), |out| match self.maximum {
            true => machine::max_pool(&*card, form, out, 0, x, self.windows),
            false => machine::mean_pool(&*card, form, out, x, self.windows),
        })?;
        Ok((out, shape))
    }

    fn bwd(&self, images: &Tensor, result: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        if !images.track_op() {
            return Ok(None);
        }
        let card = card(images)?;
        let g = g.contiguous()?;
        let (x, g_at) = (at(&card, images)?, at(&card, &g)?);
        let form = Form::default();
        let gradient = made(&card, images.shape().clone(), |out| {
            if !self.maximum {
                return machine::mean_pool_gradient(&*card, form, out, g_at, self.windows, false);
            }
            // Which number was the maximum is found once more; nothing was kept for it.
            let places: CudaSlice<u8> = card.room(result.elem_count())?;
            let again: CudaSlice<f32> = card.room(result.elem_count())?;
            let places_at = card.address(&places);
            machine::max_pool(&*card, form, card.address(&again), places_at, x, self.windows)?;
            machine::max_pool_gradient(&*card, form, out, places_at, g_at, self.windows, false)
        })?;
        Ok(Some(gradient))
    }
}

// ---- fully connected

struct Linear;

pub(crate) fn linear(inputs: &Tensor, weights: &Tensor) -> Result<Tensor> {
    inputs.contiguous()?.apply_op2(&weights.contiguous()?, Linear)
}

impl CustomOp2 for Linear {
    only_on_a_gpu!("linear", _x, _w);

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, w: &CudaStorage, lw: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&x.device)?;
        let (batch, features) = lx.shape().dims2()?;
        let (outputs, _) = lw.shape().dims2()?;
        let (x, w) = (place(&card, x, lx)?, place(&card, w, lw)?);
        let out = filled(&card, batch * outputs, |out| {
            card.multiply(out, [x, w], [batch, outputs, features], [false, true])
        })?;
        Ok((out, (batch, outputs).into()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let card = card(x)?;
        let g = g.contiguous()?;
        let (batch, features) = x.dims2()?;
        let (outputs, _) = w.dims2()?;
        let [x_at, w_at, g_at] = [at(&card, x)?, at(&card, w)?, at(&card, &g)?];
        let to_inputs = || {
            made(&card, x.shape().clone(), |out| {
                card.multiply(out, [g_at, w_at], [batch, features, outputs], [false, false])
            })
        };
        let to_weights = || {
            made(&card, w.shape().clone(), |out| {
                card.multiply(out, [g_at, x_at], [outputs, features, batch], [true, false])
            })
        };
        Ok((
            x.track_op().then(to_inputs).transpose()?,
            w.track_op().then(to_weights).transpose()?,
        ))
    }
}

// ---- rows of logits

fn rows(dims: &[usize]) -> Result<[u32; 2]> {
    count(dims[0] * dims[1])?;
    Ok([dims[0] as u32, dims[1] as u32])
}

struct LogSoftmax;

pub(crate) fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    logits.contiguous()?.apply_op1(LogSoftmax)
}

impl CustomOp1 for LogSoftmax {
    only_on_a_gpu!("log_softmax", _z);

    fn cuda_fwd(&self, z: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&z.device)?;
        let (z, shape) = (place(&card, z, layout)?, rows(layout.dims())?);
        let out = filled(&card, layout.shape().elem_count(), |out| {
            machine::log_softmax(&*card, out, z, shape)
        })?;
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, z: &Tensor, result: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        if !z.track_op() {
            return Ok(None);
        }
        let card = card(z)?;
        let g = g.contiguous()?;
        let (logs, g_at, shape) = (at(&card, result)?, at(&card, &g)?, rows(z.dims())?);
        let to = made(&card, z.shape().clone(), |out| {
            machine::log_softmax_gradient(&*card, out, logs, g_at, shape)
        })?;
        Ok(Some(to))
    }
}

struct CrossEntropy;

/// A label that is no class gives a NaN: to look at the labels here would stop the stream.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    logits.contiguous()?.apply_op2(&labels.contiguous()?, CrossEntropy)
}

impl CustomOp2 for CrossEntropy {
    only_on_a_gpu!("cross_entropy", _z, _y);

    fn cuda_fwd(&self, z: &CudaStorage, lz: &Layout, y: &CudaStorage, ly: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&z.device)?;
        let (z, y, shape) = (place(&card, z, lz)?, place(&card, y, ly)?, rows(lz.dims())?);
        let batch = shape[0] as usize;
        let out = filled(&card, batch, |out| machine::cross_entropy(&*card, out, z, y, shape))?;
        Ok((out, batch.into()))
    }

    fn bwd(&self, z: &Tensor, labels: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !z.track_op() {
            return Ok((None, None));
        }
        let card = card(z)?;
        let g = g.contiguous()?;
        let operands = [at(&card, z)?, at(&card, labels)?, at(&card, &g)?];
        let shape = rows(z.dims())?;
        let to = made(&card, z.shape().clone(), |out| {
            machine::cross_entropy_gradient(&*card, out, operands, shape)
        })?;
        Ok((Some(to), None))
    }
}

// ---- what has no counterpart among the CPU's operations

pub(crate) fn sign_step(
    points: &Tensor,
    gradient: &Tensor,
    step: f64,
    lower: &Tensor,
    upper: &Tensor,
) -> Result<Tensor> {
    let card = card(points)?;
    let operands = [points, gradient, lower, upper].map(Tensor::contiguous);
    let [v, g, lower, upper] = operands;
    let (v, g, lower, upper) = (v?, g?, lower?, upper?);
    let places = [at(&card, &v)?, at(&card, &g)?, at(&card, &lower)?, at(&card, &upper)?];
    let n = count(v.elem_count())?;
    made(&card, v.shape().clone(), |out| {
        machine::sign_step(&*card, out, places, step as f32, n)
    })
}

pub(crate) fn sgd_step(theta: &Var, buffer: Option<&Tensor>, gradient: &Tensor, step: &SgdStep) -> Result<()> {
    let card = card(theta)?;
    let gradient = gradient.contiguous()?;
    let buffer = buffer.map_or(Ok(0), |buffer| at(&card, buffer))?;
    let places = [at(&card, theta.as_tensor())?, buffer, at(&card, &gradient)?];
    machine::sgd_step(&*card, places, step, count(theta.elem_count())?)
}

pub(crate) fn draws(like: &Tensor, key: u64, ids: &[u64], normal: bool) -> Result<Tensor> {
    let card = card(like)?;
    let len = like.elem_count() / ids.len().max(1);
    let shape = [count(ids.len())?, count(len)?];
    let ids = card.upload(ids)?;
    made(&card, like.shape().clone(), |out| {
        machine::draws(&*card, out, card.address(&ids), shape, key, normal)
    })
}

pub(crate) fn crop_flip(images: &Tensor, rows: &[u32], draws: &[[u32; 3]], cut: &Cut) -> Result<Tensor> {
    let card = card(images)?;
    let [c, h, w] = cut.image;
    let batch = count(rows.len())?;
    let (rows_on_card, draws) = (card.upload(rows)?, card.upload(draws.as_flattened())?);
    let operands = [at(&card, images)?, card.address(&rows_on_card), card.address(&draws)];
    made(&card, (rows.len(), c, h, w), |out| {
        machine::crop_flip(&*card, out, operands, batch, cut)
    })
}

/// Whether these operations take a tensor: f32, on a GPU. f64 on a GPU is refused by name.
pub(crate) fn takes(op: &str, tensor: &Tensor) -> Result<bool> {
    match (tensor.device().is_cuda(), tensor.dtype()) {
        (false, _) => Ok(false),
        (true, DType::F32) => Ok(true),
        (true, other) => bail!("{op}: on a GPU numbers must be f32, not {other:?}"),
    }
}
