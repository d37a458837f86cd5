//! Operands and results of an operation: tensors of Candle's, and where their numbers lie.

use std::sync::Arc;

use candle_core::cuda::CudaStorageSlice;
use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};

use crate::cuda::card::Card;
use crate::cuda::machine::{Address, Extent, Form, count};

/// How Candle's tensors are laid out.
pub(super) const FORM: Form = Form {
    half: false,
    last: false,
};

/// The card that holds a tensor.
pub(crate) fn card(tensor: &Tensor) -> Result<Arc<Card>> {
    Card::of(tensor.device().as_cuda_device()?)
}

/// Where an operand's numbers start.
pub(super) fn place(card: &Card, storage: &CudaStorage, layout: &Layout) -> Result<Address> {
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
pub(super) fn filled(card: &Card, len: usize, write: impl FnOnce(Address) -> Result<()>) -> Result<CudaStorage> {
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
pub(super) fn partial(card: &Card, extent: Extent) -> Result<CudaSlice<u8>> {
    card.room(extent.partial_bytes(FORM))
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
pub(super) use only_on_a_gpu;

/// Whether these operations take a tensor: f32, on a GPU. f64 on a GPU is refused by name.
pub(crate) fn takes(op: &str, tensor: &Tensor) -> Result<bool> {
    match (tensor.device().is_cuda(), tensor.dtype()) {
        (false, _) => Ok(false),
        (true, DType::F32) => Ok(true),
        (true, other) => bail!("{op}: on a GPU numbers must be f32, not {other:?}"),
    }
}
