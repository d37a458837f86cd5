//! A network that mixes in operations of Candle: a convolution, its square, average pooling, a linear layer.

use candle_core::{Result, Tensor};
use models::{Body, Builder, Convolution, Init, Linear, Named, Pass};

/// The network.
pub(crate) struct Quadratic {
    conv: Convolution,
    head: Linear,
}

const WIDTH: usize = 24;

impl Named for Quadratic {
    const NAME: &'static str = "quadratic";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "a convolution, squared, pooled, and a linear layer";
    const SOURCE: &'static str = "this example";

    fn check([_, height, width]: [usize; 3], _: usize) -> std::result::Result<(), String> {
        if height.min(width) < 3 {
            return Err("sides must be at least 3".into());
        }
        Ok(())
    }

    fn new(make: &mut Builder, [channels, _, _]: [usize; 3], classes: usize) -> Result<Self> {
        Ok(Self {
            conv: make.convolution_with_bias("conv", [WIDTH, channels, 3], 1, Init::PyTorch)?,
            head: make.linear("head", [classes, 4 * WIDTH], Init::PyTorch)?,
        })
    }
}

impl Body for Quadratic {
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let x = self.conv.forward(images, pass)?.sqr()?;
        // Candle's own average pooling into a 2×2 grid, one cell per quarter of the image.
        let (_, _, height, width) = x.dims4()?;
        let quarters = x.narrow(2, 0, height / 2 * 2)?.narrow(3, 0, width / 2 * 2)?;
        let quarters = quarters.avg_pool2d((height / 2, width / 2))?;
        self.head.forward(&quarters.flatten_from(1)?, pass)
    }

    // No `describe`: `kernels` has no layer for the square, so this network runs through Candle's graph.
}
