//! What operands must be, checked before anything is computed.

use candle_core::{DType, Result, Tensor, bail};

/// Fails unless all operands are f32 or all are f64.
pub(crate) fn check_dtypes(op: &str, operands: &[(&str, &Tensor)]) -> Result<()> {
    let (first_name, first) = operands[0];
    if !matches!(first.dtype(), DType::F32 | DType::F64) {
        bail!("{op}: {first_name} are {:?}, neither f32 nor f64", first.dtype());
    }
    for (name, operand) in operands {
        if operand.dtype() != first.dtype() {
            bail!(
                "{op}: {first_name} are {:?} but {name} are {:?}",
                first.dtype(),
                operand.dtype()
            );
        }
    }
    Ok(())
}

/// The dimensions of images `[B, C, H, W]`; fails unless there are four.
pub(crate) fn image_dims(op: &str, dims: &[usize]) -> Result<[usize; 4]> {
    match *dims {
        [b, c, h, w] => Ok([b, c, h, w]),
        _ => bail!("{op}: images must be [B, C, H, W], not {dims:?}"),
    }
}
