//! A network whose parameters do not change, as one operation from images to logits.
//!
//! While an attack runs, the network is a constant. Its weights are packed once, batch normalisation is
//! folded into the convolution before it or becomes one scale and shift, and a group of images goes
//! through all layers before the next one starts, so that activations stay in the caches. Between layers
//! channels lie side by side, inside the border of zeros that the next convolution reads. For the gradient only
//! the signs of the activations are kept.

mod backward;
mod forward;
mod pack;
mod plan;
mod run;
mod workspace;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use crate::ascent::{Ascended, Ascent};
#[cfg(feature = "cuda")]
use crate::cuda::frozen as gpu;
use crate::graph::{Graph, Layer, Recording};
use plan::Plan;

/// What networks of one structure that are frozen on a GPU one after the other hand on: memory, chosen algorithms,
/// captured graphs. On the CPU there is nothing in it.
#[derive(Clone, Default)]
pub struct Pool(#[cfg(feature = "cuda")] gpu::Pool);

/// A frozen network.
#[derive(Clone)]
pub struct Frozen {
    /// Channels, height and width of an image.
    image: [usize; 3],
    network: Network,
}

/// A frozen network where its parameters are.
#[derive(Clone)]
enum Network {
    Cpu(Arc<Plan>),
    #[cfg(feature = "cuda")]
    Gpu(Arc<gpu::Network>),
}

impl Frozen {
    /// Freezes a network with the numbers that its parameters have now. It takes over what an earlier one left in the
    /// pool, and leaves it there in the end.
    ///
    /// # Errors
    /// A convolution whose residual is its own input.
    pub fn new(recording: &Recording, pool: &Pool) -> Result<Self> {
        let recording = recording.at_rest();
        check(&recording.graph)?;
        Ok(Self {
            image: recording.graph.shapes[0],
            network: Network::new(recording, pool)?,
        })
    }

    /// The logits `[B, K]` of f32 `images` `[B, C, H, W]`.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        if images.dims().get(1..) != Some(&self.image) || images.dtype() != DType::F32 {
            bail!(
                "frozen: images {:?} {:?} instead of [B, C, H, W] = [B, {:?}] F32",
                images.dims(),
                images.dtype(),
                self.image,
            );
        }
        let images = images.contiguous()?;
        match &self.network {
            Network::Cpu(plan) => images.apply_op1(run::Run::new(plan.clone(), images.track_op())),
            #[cfg(feature = "cuda")]
            Network::Gpu(network) => images.apply_op1(gpu::Run::new(network.clone())),
        }
    }

    /// A whole ascent without leaving the GPU; `None` where the network is not on one.
    pub fn ascend(&self, ascent: &Ascent<'_>) -> Result<Option<Ascended>> {
        match &self.network {
            Network::Cpu(_) => {
                let _ = ascent;
                Ok(None)
            }
            #[cfg(feature = "cuda")]
            Network::Gpu(network) => network.ascend(ascent).map(Some),
        }
    }
}

impl Network {
    fn new(recording: Recording, pool: &Pool) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if recording
            .parameters
            .iter()
            .any(|parameter| parameter.device().is_cuda())
        {
            return Ok(Self::Gpu(Arc::new(gpu::Network::new(recording, &pool.0))));
        }
        let _ = pool;
        Ok(Self::Cpu(Arc::new(Plan::new(&recording)?)))
    }
}

fn check(graph: &Graph) -> Result<()> {
    for step in &graph.steps {
        if let Layer::Convolution(convolution) = step.layer
            && convolution.residual == Some(step.input)
        {
            bail!("frozen: a convolution's input cannot be its residual");
        }
    }
    Ok(())
}
