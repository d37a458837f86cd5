//! How the gradients of many parameters get from one operation to Candle.
//!
//! An operation of Candle's has three arguments at most. So each parameter is joined to a token, one number
//! that leads to the network's operation. On the way back that operation leaves all gradients in a
//! place that the joints know, and each joint takes its own from there.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};

/// The gradients of parameters, by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gradients(Arc<Mutex<Vec<Option<Tensor>>>>);

impl Gradients {
    /// A number through which gradients reach the parameters.
    pub(super) fn token(&self, parameters: &[Tensor], device: &Device) -> Result<Tensor> {
        let mut token = Tensor::zeros(1, DType::F32, device)?;
        for (index, parameter) in parameters.iter().enumerate() {
            let joint = Joint {
                index,
                gradients: self.clone(),
            };
            token = parameter.apply_op2(&token, joint)?;
        }
        Ok(token)
    }

    /// Leaves all gradients, each in its parameter's shape.
    pub(crate) fn leave(&self, gradients: Vec<Tensor>) {
        *self.0.lock().expect("no gradient panicked") = gradients.into_iter().map(Some).collect();
    }
}

struct Joint {
    index: usize,
    gradients: Gradients,
}

impl CustomOp2 for Joint {
    fn name(&self) -> &'static str {
        "trained-network-parameter"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), 1.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &candle_core::CudaStorage,
        _: &Layout,
        token: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        Ok((token.try_clone(layout)?, 1.into()))
    }

    fn bwd(
        &self,
        parameter: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut gradients = self.gradients.0.lock().expect("no gradient panicked");
        let Some(taken) = gradients.get_mut(self.index).and_then(Option::take) else {
            bail!("trained: no gradient for a parameter");
        };
        Ok((parameter.track_op().then_some(taken), Some(gradient.clone())))
    }
}
