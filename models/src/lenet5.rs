//! The LeNet-5 of Madry et al. 2018 (arXiv:1706.06083), as advertorch has it: `LeNet5Madry`.
//!
//! Source: <https://github.com/BorealisAI/advertorch/blob/e063e34/advertorch_examples/models.py>.

use candle_core::{Result, Tensor};
use kernels::{Activation, Layers, Value};

use crate::body::Body;
use crate::builder::{Builder, Init};
use crate::layers::{Convolution, Linear, Pass};
use crate::named::Named;

/// The network.
pub(crate) struct LeNet5 {
    conv1: Convolution,
    conv2: Convolution,
    linear1: Linear,
    linear2: Linear,
}

impl Named for LeNet5 {
    const NAME: &'static str = "lenet5";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "two 5x5 convolutions and two linear layers, for MNIST";
    const SOURCE: &'static str = "Madry et al. 2018, arXiv:1706.06083; BorealisAI/advertorch LeNet5Madry";

    fn check([_, height, width]: [usize; 3], _: usize) -> std::result::Result<(), String> {
        if height.min(width) < 4 {
            return Err("sides must be at least 4".into());
        }
        Ok(())
    }

    fn new(make: &mut Builder, image: [usize; 3], classes: usize) -> Result<Self> {
        Self::of_widths(make, [32, 64, 1024], image, classes)
    }
}

impl LeNet5 {
    /// The same network with other widths of the convolutions and of the hidden linear layer.
    pub(crate) fn of_widths(
        make: &mut Builder,
        widths: [usize; 3],
        [channels, height, width]: [usize; 3],
        classes: usize,
    ) -> Result<Self> {
        let features = widths[1] * (height / 4) * (width / 4);
        Ok(Self {
            conv1: make.convolution_with_bias("conv1", [widths[0], channels, 5], 2, Init::PyTorch)?,
            conv2: make.convolution_with_bias("conv2", [widths[1], widths[0], 5], 2, Init::PyTorch)?,
            linear1: make.linear("linear1", [widths[2], features], Init::PyTorch)?,
            linear2: make.linear("linear2", [classes, widths[2]], Init::PyTorch)?,
        })
    }
}

impl Body for LeNet5 {
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let x = self.conv1.forward_relu(images, pass)?;
        let x = kernels::max_pool2d(&x, 2)?;
        let x = self.conv2.forward_relu(&x, pass)?;
        let x = kernels::max_pool2d(&x, 2)?.flatten_from(1)?;
        let x = self.linear1.forward_relu(&x, pass)?;
        self.linear2.forward(&x, pass)
    }

    fn describe(&self, make: &mut dyn Layers, images: Value) -> Result<Option<Value>> {
        let x = self.conv1.describe(make, images, None, None, Activation::Relu)?;
        let x = make.max_pool(x, 2)?;
        let x = self.conv2.describe(make, x, None, None, Activation::Relu)?;
        let x = make.max_pool(x, 2)?;
        let x = self.linear1.describe(make, x, Activation::Relu)?;
        self.linear2.describe(make, x, Activation::None).map(Some)
    }
}
