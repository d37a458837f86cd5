//! SmallCNN for MNIST: Zhang et al. 2019 (TRADES), arXiv:1901.08573.
//!
//! Source: <https://github.com/yaodongyu/TRADES/blob/6e8e11b/models/small_cnn.py>.

use candle_core::{Result, Tensor};
use kernels::{Activation, Layers, Value};

use crate::body::Body;
use crate::builder::{Builder, Init};
use crate::layers::{Convolution, Linear, Pass, dropout_half};
use crate::named::Named;

/// The network.
pub(crate) struct SmallCnn {
    conv1: Convolution,
    conv2: Convolution,
    conv3: Convolution,
    conv4: Convolution,
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

/// The side of the planes after all convolutions and poolings.
fn final_side(side: usize) -> usize {
    (side.saturating_sub(4) / 2).saturating_sub(4) / 2
}

impl Named for SmallCnn {
    const NAME: &'static str = "small-cnn";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "four convolutions and three linear layers, dropout, for MNIST";
    const SOURCE: &'static str = "TRADES, Zhang et al. 2019, arXiv:1901.08573; yaodongyu/TRADES models/small_cnn.py";

    fn check([_, height, width]: [usize; 3], _: usize) -> std::result::Result<(), String> {
        if final_side(height.min(width)) == 0 {
            return Err("sides must be at least 16".into());
        }
        Ok(())
    }

    fn new(make: &mut Builder, image: [usize; 3], classes: usize) -> Result<Self> {
        Self::of_widths(make, [32, 32, 64, 64], [200, 200], image, classes)
    }
}

impl SmallCnn {
    /// The same network with other widths of the convolutions and of the hidden linear layers.
    pub(crate) fn of_widths(
        make: &mut Builder,
        widths: [usize; 4],
        hidden: [usize; 2],
        [channels, height, width]: [usize; 3],
        classes: usize,
    ) -> Result<Self> {
        let features = widths[3] * final_side(height) * final_side(width);
        let mut conv = |name: &str, outputs, inputs| {
            let name = format!("feature_extractor.{name}");
            make.convolution_with_bias(&name, [outputs, inputs, 3], 0, Init::Kaiming)
        };
        Ok(Self {
            conv1: conv("conv1", widths[0], channels)?,
            conv2: conv("conv2", widths[1], widths[0])?,
            conv3: conv("conv3", widths[2], widths[1])?,
            conv4: conv("conv4", widths[3], widths[2])?,
            fc1: make.linear("classifier.fc1", [hidden[0], features], Init::PyTorch)?,
            fc2: make.linear("classifier.fc2", [hidden[1], hidden[0]], Init::PyTorch)?,
            fc3: make.linear("classifier.fc3", [classes, hidden[1]], Init::Zero)?,
        })
    }
}

impl Body for SmallCnn {
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let x = self.conv1.forward_relu(images, pass)?;
        let x = self.conv2.forward_relu(&x, pass)?;
        let x = kernels::max_pool2d(&x, 2)?;
        let x = self.conv3.forward_relu(&x, pass)?;
        let x = self.conv4.forward_relu(&x, pass)?;
        let x = kernels::max_pool2d(&x, 2)?.flatten_from(1)?;
        let x = self.fc1.forward_relu(&x, pass)?;
        let x = dropout_half(&x, pass, 0)?;
        let x = self.fc2.forward_relu(&x, pass)?;
        self.fc3.forward(&x, pass)
    }

    fn describe(&self, make: &mut dyn Layers, images: Value) -> Result<Option<Value>> {
        let x = self.conv1.describe(make, images, None, None, Activation::Relu)?;
        let x = self.conv2.describe(make, x, None, None, Activation::Relu)?;
        let x = make.max_pool(x, 2)?;
        let x = self.conv3.describe(make, x, None, None, Activation::Relu)?;
        let x = self.conv4.describe(make, x, None, None, Activation::Relu)?;
        let x = make.max_pool(x, 2)?;
        let x = self.fc1.describe(make, x, Activation::Relu)?;
        let x = make.dropout(x, 0);
        let x = self.fc2.describe(make, x, Activation::Relu)?;
        self.fc3.describe(make, x, Activation::None).map(Some)
    }
}
