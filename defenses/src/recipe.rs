//! How a network is trained, apart from the objective.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A training recipe, complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// How long to train.
    pub length: Length,
    /// Examples per step; the last step of an epoch takes what is left.
    pub batch: usize,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// The largest Euclidean norm of the whole gradient; longer ones are scaled down to it.
    #[serde(default)]
    pub clip_gradient: Option<f64>,
    /// What is done to each training image, in this order.
    #[serde(default)]
    pub augment: Vec<Augmentation>,
}

/// How long to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// Passes over the training examples.
    Epochs(u64),
    /// Optimizer steps.
    Steps(u64),
}

/// The optimizer, with its learning rate before any schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent as in PyTorch: g ← g + decay·θ; b ← momentum·b + g; θ ← θ − rate·b
    /// (Nesterov: θ ← θ − rate·(g + momentum·b)). The first step takes b = g.
    Sgd {
        /// Learning rate.
        rate: f64,
        /// Momentum.
        #[serde(default)]
        momentum: f64,
        /// Nesterov's form of it.
        #[serde(default)]
        nesterov: bool,
        /// Weight decay. Running statistics are never decayed.
        #[serde(default)]
        weight_decay: f64,
        /// What weight decay applies to.
        #[serde(default)]
        decay: Decay,
    },
    /// Adam: Kingma and Ba 2015, arXiv:1412.6980, with PyTorch's defaults.
    Adam {
        /// Learning rate.
        rate: f64,
        /// β₁ and β₂.
        #[serde(default = "default_betas")]
        betas: [f64; 2],
        /// ε in the denominator.
        #[serde(default = "default_adam_epsilon")]
        epsilon: f64,
        /// L2 penalty added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
}

impl Optimizer {
    /// Adam with PyTorch's defaults.
    pub fn adam(rate: f64) -> Self {
        Self::Adam {
            rate,
            betas: default_betas(),
            epsilon: default_adam_epsilon(),
            weight_decay: 0.0,
        }
    }
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_adam_epsilon() -> f64 {
    1e-8
}

/// What weight decay applies to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Every parameter, as `torch.optim` does.
    #[default]
    All,
    /// Convolution and linear weights only: neither batch norm nor biases.
    Weights,
}

/// How the learning rate falls. Places are counted in the unit of the recipe's length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// It does not.
    Constant {},
    /// Multiplied by `factor` once for each place that has been reached. With epochs, `at: [75]`
    /// means that the 75th epoch, counted from 1, is the first with the lower rate.
    Steps {
        /// Where it falls.
        at: Vec<u64>,
        /// By what it is multiplied there.
        factor: f64,
    },
    /// Half a cosine from the full rate to 0, updated every step.
    Cosine {},
}

/// One augmentation of a training image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// Pad by 4 zeros on every side and cut a random window of the old size.
    Crop4,
    /// Pad by 4 mirrored pixels on every side and cut a random window of the old size.
    Crop4Reflect,
    /// Flip left to right with probability ½.
    Flip,
}
