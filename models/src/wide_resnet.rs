//! Wide residual networks: Zagoruyko and Komodakis 2016, arXiv:1605.07146.
//!
//! Sources: <https://github.com/YisenWang/MART/blob/2d83e17/wideresnet.py>, whose `sub_block1` takes no
//! part in the forward pass but belongs to the state dictionary; for the MMA form, advertorch's
//! `get_cifar10_wrn28_widen_factor`, which standardises every image first.
//! Deviation: the last pooling is over the whole plane, which on 32×32 images is the authors' 8×8.

use candle_core::{D, Result, Tensor};
use kernels::{Activation, Layers, Value};

use crate::body::Body;
use crate::builder::{Builder, Init};
use crate::layers::{BatchNorm, Convolution, Linear, Pass, mean_per_channel};

/// The prefix of the names in the group that the forward pass does not use.
pub(crate) const UNUSED: &str = "sub_block1.";

/// Whose wide residual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// MART's and TRADES's, with the unused `sub_block1`.
    Mart,
    /// advertorch's, for MMA training: every image is standardised.
    Mma,
}

/// The network.
pub(crate) struct WideResNet {
    form: Form,
    conv1: Convolution,
    blocks: Vec<Block>,
    bn1: BatchNorm,
    fc: Linear,
}

struct Block {
    bn1: BatchNorm,
    conv1: Convolution,
    bn2: BatchNorm,
    conv2: Convolution,
    /// Where the width changes.
    shortcut: Option<Convolution>,
}

impl WideResNet {
    /// `depth` = 6 · blocks per group + 4; `widen` multiplies the channels.
    pub(crate) fn new(
        make: &mut Builder,
        form: Form,
        [depth, widen]: [usize; 2],
        [channels, _, _]: [usize; 3],
        classes: usize,
    ) -> Result<Self> {
        let (prefix, group, shortcut) = match form {
            Form::Mart => ("", "block", "convShortcut"),
            Form::Mma => ("1.", "convgroup", "conv_shortcut"),
        };
        let per_group = (depth - 4) / 6;
        let conv1 = make.convolution(&format!("{prefix}conv1"), [16, channels, 3], 1, 1, Init::KaimingFanOut)?;
        let mut blocks = Vec::new();
        let mut inputs = 16;
        for (index, stride) in [(1, 1), (2, 2), (3, 2)] {
            let outputs = (16 * widen) << (index - 1);
            let mut make_group = |name: String, blocks: &mut Vec<Block>| -> Result<()> {
                for layer in 0..per_group {
                    let (inputs, stride) = if layer == 0 { (inputs, stride) } else { (outputs, 1) };
                    let name = format!("{name}.layer.{layer}");
                    blocks.push(Block::new(make, &name, shortcut, inputs, outputs, stride)?);
                }
                Ok(())
            };
            make_group(format!("{prefix}{group}{index}"), &mut blocks)?;
            if form == Form::Mart && index == 1 {
                make_group("sub_block1".to_string(), &mut Vec::new())?;
            }
            inputs = outputs;
        }
        Ok(Self {
            form,
            conv1,
            blocks,
            bn1: make.batch_norm(&format!("{prefix}bn1"), inputs)?,
            fc: make.linear(&format!("{prefix}fc"), [classes, inputs], Init::PyTorchNoBias)?,
        })
    }
}

impl Block {
    fn new(
        make: &mut Builder,
        name: &str,
        shortcut: &str,
        inputs: usize,
        outputs: usize,
        stride: usize,
    ) -> Result<Self> {
        let init = Init::KaimingFanOut;
        Ok(Self {
            bn1: make.batch_norm(&format!("{name}.bn1"), inputs)?,
            conv1: make.convolution(&format!("{name}.conv1"), [outputs, inputs, 3], stride, 1, init)?,
            bn2: make.batch_norm(&format!("{name}.bn2"), outputs)?,
            conv2: make.convolution(&format!("{name}.conv2"), [outputs, outputs, 3], 1, 1, init)?,
            shortcut: if inputs == outputs {
                None
            } else {
                Some(make.convolution(&format!("{name}.{shortcut}"), [outputs, inputs, 1], stride, 0, init)?)
            },
        })
    }

    /// Where the width changes, the shortcut starts after the first batch norm and ReLU.
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let active = self.bn1.forward_relu(x, pass)?;
        let out = self.conv1.forward(&active, pass)?;
        let out = self.bn2.forward_relu(&out, pass)?;
        let out = self.conv2.forward(&out, pass)?;
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(&active, pass)? + out,
            None => x + out,
        }
    }

    fn describe(&self, make: &mut dyn Layers, x: Value) -> Result<Value> {
        let active = make.norm_relu(x, &self.bn1.as_norm())?;
        let out = self
            .conv1
            .describe(make, active, Some(&self.bn2), None, Activation::Relu)?;
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.describe(make, active, None, None, Activation::None)?,
            None => x,
        };
        self.conv2.describe(make, out, None, Some(shortcut), Activation::None)
    }
}

impl Body for WideResNet {
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let images = self.prepare(images)?;
        let mut x = self.conv1.forward(&images, pass)?;
        for block in &self.blocks {
            x = block.forward(&x, pass)?;
        }
        let x = self.bn1.forward_relu(&x, pass)?;
        self.fc.forward(&mean_per_channel(&x)?, pass)
    }

    fn prepare(&self, images: &Tensor) -> Result<Tensor> {
        match self.form {
            Form::Mart => Ok(images.clone()),
            Form::Mma => standardise(images),
        }
    }

    fn describe(&self, make: &mut dyn Layers, images: Value) -> Result<Option<Value>> {
        let mut x = self.conv1.describe(make, images, None, None, Activation::None)?;
        for block in &self.blocks {
            x = block.describe(make, x)?;
        }
        let x = make.norm_relu(x, &self.bn1.as_norm())?;
        let x = make.mean_per_channel(x);
        self.fc.describe(make, x, Activation::None).map(Some)
    }
}

/// Every image minus its mean, over its standard deviation (unbiased, at least 1/√N for N numbers).
fn standardise(images: &Tensor) -> Result<Tensor> {
    let flat = images.flatten_from(1)?;
    let count = flat.dim(1)? as f64;
    let centered = flat.broadcast_sub(&flat.mean_keepdim(D::Minus1)?)?;
    let deviation = (centered.sqr()?.sum_keepdim(D::Minus1)? / (count - 1.0))?.sqrt()?;
    let deviation = deviation.maximum(1.0 / count.sqrt())?;
    centered.broadcast_div(&deviation)?.reshape(images.shape())
}
