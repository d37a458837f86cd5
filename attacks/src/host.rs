//! Moves numbers between the host and the device of the images.

use candle_core::{DType, Device, Result, Shape, Tensor, WithDType};

/// The numbers in that shape, in the precision and on the device of `images`.
pub(crate) fn placed<D: WithDType>(values: Vec<D>, shape: impl Into<Shape>, images: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)?
        .to_dtype(images.dtype())?
        .to_device(images.device())
}

/// All numbers of a tensor in double precision, on the host.
pub(crate) fn doubles(values: &Tensor) -> Result<Vec<f64>> {
    values
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .flatten_all()?
        .to_vec1()
}
