//! A network for small pictures, ours: conv3×3 (16), batch norm, ReLU, conv3×3 stride 2 (32), batch
//! norm, ReLU, linear. On 8×8 digits an epoch of adversarial training takes seconds.

use candle_core::{Result, Tensor};
use kernels::{Activation, Layers, Value};

use crate::body::Body;
use crate::builder::{Builder, Init};
use crate::layers::{BatchNorm, Convolution, Linear, Pass};
use crate::named::Named;

/// The network.
pub(crate) struct TinyCnn {
    conv1: Convolution,
    bn1: BatchNorm,
    conv2: Convolution,
    bn2: BatchNorm,
    fc: Linear,
}

impl Named for TinyCnn {
    const NAME: &'static str = "tiny-cnn";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "two convolutions with batch norm and a linear layer, for 8x8 digits";
    const SOURCE: &'static str = "this project";

    fn new(make: &mut Builder, [channels, height, width]: [usize; 3], classes: usize) -> Result<Self> {
        let features = 32 * height.div_ceil(2) * width.div_ceil(2);
        Ok(Self {
            conv1: make.convolution("conv1", [16, channels, 3], 1, 1, Init::PyTorch)?,
            bn1: make.batch_norm("bn1", 16)?,
            conv2: make.convolution("conv2", [32, 16, 3], 2, 1, Init::PyTorch)?,
            bn2: make.batch_norm("bn2", 32)?,
            fc: make.linear("fc", [classes, features], Init::PyTorch)?,
        })
    }
}

impl Body for TinyCnn {
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let x = self.conv1.forward(images, pass)?;
        let x = self.bn1.forward_relu(&x, pass)?;
        let x = self.conv2.forward(&x, pass)?;
        let x = self.bn2.forward_relu(&x, pass)?;
        self.fc.forward(&x.flatten_from(1)?, pass)
    }

    fn describe(&self, make: &mut dyn Layers, images: Value) -> Result<Option<Value>> {
        let x = self
            .conv1
            .describe(make, images, Some(&self.bn1), None, Activation::Relu)?;
        let x = self.conv2.describe(make, x, Some(&self.bn2), None, Activation::Relu)?;
        self.fc.describe(make, x, Activation::None).map(Some)
    }
}
