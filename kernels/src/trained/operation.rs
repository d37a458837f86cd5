//! A pass as an operation of Candle's.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::pass::Pass;
use crate::element::values;

impl CustomOp2 for Pass {
    fn name(&self) -> &'static str {
        "trained-network"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let images = values::<f32>(x, lx)?;
        let batch = lx.dims()[0];
        let (logits, kept) = self.with_parameters(|parameters| self.forward(images, batch, parameters))?;
        if self.keep {
            *self.kept.lock().expect("no pass panicked") = Some(kept);
        }
        let classes = logits.len() / batch.max(1);
        Ok((CpuStorage::F32(logits), (batch, classes).into()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        token: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(kept) = self.kept.lock().expect("no pass panicked").take() else {
            bail!("trained: the gradient of a pass can be asked for once; make another pass");
        };
        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        let to_images = images.track_op();
        let found = self.with_parameters(|parameters| Ok(self.backward(kept, &gradient, parameters, to_images)))?;
        let to_images = found
            .images
            .map(|numbers| Tensor::from_vec(numbers, images.shape(), images.device()))
            .transpose()?;
        let parameters = self.recording.parameters.iter().zip(found.parameters);
        let parameters = parameters.map(|(tensor, numbers)| Tensor::from_vec(numbers, tensor.shape(), tensor.device()));
        self.gradients.leave(parameters.collect::<Result<_>>()?);
        Ok((to_images, Some(token.zeros_like()?)))
    }
}
