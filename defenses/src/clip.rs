//! Clipping of gradients.

use candle_core::backprop::GradStore;
use candle_core::{DType, Result};
use models::Parameter;

/// Scales the gradients of `parameters` so that their Euclidean norm, taken together, is at most `largest`, and
/// returns the norm before. As `torch.nn.utils.clip_grad_norm_`, but the squares are summed in double precision,
/// in the order of the parameters.
pub fn clip_gradients(parameters: &[Parameter], gradients: &mut GradStore, largest: f64) -> Result<f64> {
    let mut sum = 0.0;
    for parameter in parameters {
        if let Some(gradient) = gradients.get(&parameter.var) {
            sum += gradient.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
        }
    }
    let norm = sum.sqrt();
    let scale = largest / (norm + 1e-6);
    if scale < 1.0 {
        for parameter in parameters {
            if let Some(gradient) = gradients.remove(&parameter.var) {
                gradients.insert(&parameter.var, (gradient * scale)?);
            }
        }
    }
    Ok(norm)
}
