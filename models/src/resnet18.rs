//! ResNet-18 for 32×32 images, as MART has it: He et al. 2016, arXiv:1512.03385, with a 3×3 stem and
//! ReLU after the addition.
//!
//! Source: <https://github.com/YisenWang/MART/blob/2d83e17/resnet.py>.
//! Deviation: the last pooling is over the whole plane, which on 32×32 images is the authors' 4×4.

use candle_core::{Result, Tensor};
use kernels::{Activation, Layers, Value};

use crate::body::Body;
use crate::builder::{Builder, Init};
use crate::layers::{BatchNorm, Convolution, Linear, Pass, mean_per_channel};
use crate::named::Named;

/// The network.
pub(crate) struct ResNet18 {
    conv1: Convolution,
    bn1: BatchNorm,
    blocks: Vec<Block>,
    linear: Linear,
}

struct Block {
    conv1: Convolution,
    bn1: BatchNorm,
    conv2: Convolution,
    bn2: BatchNorm,
    shortcut: Option<(Convolution, BatchNorm)>,
}

impl Named for ResNet18 {
    const NAME: &'static str = "resnet18";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "18-layer residual network for 32x32 images";
    const SOURCE: &'static str = "MART, Wang et al. 2020; YisenWang/MART resnet.py";

    fn new(make: &mut Builder, image: [usize; 3], classes: usize) -> Result<Self> {
        Self::of_sizes(make, [64, 128, 256, 512], [2; 4], image, classes)
    }
}

impl ResNet18 {
    /// The same network with other widths and numbers of blocks in its four layers.
    pub(crate) fn of_sizes(
        make: &mut Builder,
        widths: [usize; 4],
        depths: [usize; 4],
        [channels, _, _]: [usize; 3],
        classes: usize,
    ) -> Result<Self> {
        let conv1 = make.convolution("conv1", [widths[0], channels, 3], 1, 1, Init::PyTorch)?;
        let bn1 = make.batch_norm("bn1", widths[0])?;
        let mut blocks = Vec::new();
        let mut inputs = widths[0];
        for (layer, (outputs, depth)) in (1..).zip(widths.into_iter().zip(depths)) {
            for block in 0..depth {
                let stride = if layer > 1 && block == 0 { 2 } else { 1 };
                blocks.push(Block::new(
                    make,
                    &format!("layer{layer}.{block}"),
                    inputs,
                    outputs,
                    stride,
                )?);
                inputs = outputs;
            }
        }
        Ok(Self {
            conv1,
            bn1,
            blocks,
            linear: make.linear("linear", [classes, inputs], Init::PyTorch)?,
        })
    }
}

impl Block {
    fn new(make: &mut Builder, name: &str, inputs: usize, outputs: usize, stride: usize) -> Result<Self> {
        Ok(Self {
            conv1: make.convolution(&format!("{name}.conv1"), [outputs, inputs, 3], stride, 1, Init::PyTorch)?,
            bn1: make.batch_norm(&format!("{name}.bn1"), outputs)?,
            conv2: make.convolution(&format!("{name}.conv2"), [outputs, outputs, 3], 1, 1, Init::PyTorch)?,
            bn2: make.batch_norm(&format!("{name}.bn2"), outputs)?,
            shortcut: if inputs == outputs && stride == 1 {
                None
            } else {
                Some((
                    make.convolution(
                        &format!("{name}.shortcut.0"),
                        [outputs, inputs, 1],
                        stride,
                        0,
                        Init::PyTorch,
                    )?,
                    make.batch_norm(&format!("{name}.shortcut.1"), outputs)?,
                ))
            },
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let out = self.conv1.forward(x, pass)?;
        let out = self.bn1.forward_relu(&out, pass)?;
        let out = self.conv2.forward(&out, pass)?;
        let out = self.bn2.forward(&out, pass)?;
        let shortcut = match &self.shortcut {
            Some((conv, bn)) => bn.forward(&conv.forward(x, pass)?, pass)?,
            None => x.clone(),
        };
        kernels::add_relu(&out, &shortcut)
    }

    fn describe(&self, make: &mut dyn Layers, x: Value) -> Result<Value> {
        let out = self.conv1.describe(make, x, Some(&self.bn1), None, Activation::Relu)?;
        let shortcut = match &self.shortcut {
            Some((conv, bn)) => conv.describe(make, x, Some(bn), None, Activation::None)?,
            None => x,
        };
        self.conv2
            .describe(make, out, Some(&self.bn2), Some(shortcut), Activation::Relu)
    }
}

impl Body for ResNet18 {
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let x = self.conv1.forward(images, pass)?;
        let mut x = self.bn1.forward_relu(&x, pass)?;
        for block in &self.blocks {
            x = block.forward(&x, pass)?;
        }
        self.linear.forward(&mean_per_channel(&x)?, pass)
    }

    fn describe(&self, make: &mut dyn Layers, images: Value) -> Result<Option<Value>> {
        let mut x = self
            .conv1
            .describe(make, images, Some(&self.bn1), None, Activation::Relu)?;
        for block in &self.blocks {
            x = block.describe(make, x)?;
        }
        let x = make.mean_per_channel(x);
        self.linear.describe(make, x, Activation::None).map(Some)
    }
}
