//! How a network is trained, apart from the objective.

use attacks::{Family, Invalid, Setting};
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

/// How the learning rate falls. Places are counted in the unit of the recipe's length. Epochs are counted
/// from 1: place 75 is reached when the 75th epoch begins, as in the scripts of TRADES and MART. Steps are
/// counted from 0: place 20000 is reached when 20000 steps have been made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// It does not.
    Constant {},
    /// Multiplied by `factor` once for each place that has been reached.
    Steps {
        /// Where it falls.
        at: Vec<u64>,
        /// By what it is multiplied there.
        factor: f64,
    },
    /// Multiplied by the factor of the last place that has been reached.
    Piecewise {
        /// Where it changes.
        at: Vec<u64>,
        /// By what the full rate is multiplied from there on, one for each place.
        factors: Vec<f64>,
    },
    /// Half a cosine from the full rate to 0, updated every step.
    Cosine {},
}

impl Schedule {
    /// The learning rate of the step after `step` steps and `epoch` whole epochs, of which each has
    /// `steps_per_epoch`. `base` is the rate before any schedule.
    pub fn rate(&self, base: f64, epoch: u64, step: u64, steps_per_epoch: u64, length: Length) -> f64 {
        let reached = |at: &[u64]| {
            let place = match length {
                Length::Epochs(_) => epoch + 1,
                Length::Steps(_) => step,
            };
            at.iter().filter(|&&at| at <= place).count()
        };
        match self {
            Self::Constant {} => base,
            Self::Steps { at, factor } => base * factor.powi(reached(at) as i32),
            Self::Piecewise { at, factors } => match reached(at) {
                0 => base,
                count => base * factors[count - 1],
            },
            Self::Cosine {} => {
                let steps = match length {
                    Length::Epochs(epochs) => epochs * steps_per_epoch,
                    Length::Steps(steps) => steps,
                };
                let done = step as f64 / steps.max(1) as f64;
                base * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        let (at, factors) = match self {
            Self::Constant {} | Self::Cosine {} => return Ok(()),
            Self::Steps { at, factor } => (at, std::slice::from_ref(factor)),
            Self::Piecewise { at, factors } => {
                if at.len() != factors.len() {
                    let message = format!("{} places but {} factors", at.len(), factors.len());
                    return Err(Invalid::new("schedule.factors", message));
                }
                (at, factors.as_slice())
            }
        };
        if at.windows(2).any(|pair| pair[0] >= pair[1]) {
            let message = format!("the places {at:?} do not ascend");
            return Err(Invalid::new("schedule.at", message));
        }
        if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
            let message = format!("the rate cannot be multiplied by {factor}; write a factor above 0, such as 0.1");
            let field = if matches!(self, Self::Steps { .. }) {
                "schedule.factor"
            } else {
                "schedule.factors"
            };
            return Err(Invalid::new(field, message));
        }
        Ok(())
    }
}

impl Recipe {
    /// Refuses values with which nothing can be trained.
    pub fn check(&self) -> Result<(), Invalid> {
        let (unit, length) = match self.length {
            Length::Epochs(epochs) => ("epochs", epochs),
            Length::Steps(steps) => ("steps", steps),
        };
        if length == 0 {
            return Err(Invalid::new(
                format!("length.{unit}"),
                format!("0 {unit} train nothing"),
            ));
        }
        if self.batch == 0 {
            return Err(Invalid::new("batch", "a batch of 0 examples trains nothing"));
        }
        if let Some(largest) = self.clip_gradient.filter(|norm| !(norm.is_finite() && *norm > 0.0)) {
            let message =
                format!("the gradient cannot be clipped to a norm of {largest}; leave it out or write a norm above 0");
            return Err(Invalid::new("clip_gradient", message));
        }
        self.optimizer.check()?;
        self.schedule.check()
    }
}

impl Optimizer {
    fn check(&self) -> Result<(), Invalid> {
        let within = |field: &str, value: f64, ok: bool, right: &str| {
            if ok {
                Ok(())
            } else {
                Err(Invalid::new(
                    format!("optimizer.{field}"),
                    format!("{field} is {value}; {right}"),
                ))
            }
        };
        let fraction = |value: f64| (0.0..1.0).contains(&value);
        let rate = self.rate();
        within(
            "rate",
            rate,
            rate.is_finite() && rate > 0.0,
            "the learning rate must be above 0",
        )?;
        let (Self::Sgd { weight_decay, .. } | Self::Adam { weight_decay, .. }) = *self;
        within(
            "weight_decay",
            weight_decay,
            weight_decay.is_finite() && weight_decay >= 0.0,
            "it must be 0 or more",
        )?;
        match *self {
            Self::Sgd { momentum, nesterov, .. } => {
                within("momentum", momentum, fraction(momentum), "it must lie in [0, 1)")?;
                if nesterov && momentum == 0.0 {
                    return Err(Invalid::new("optimizer.nesterov", "Nesterov's form needs momentum"));
                }
            }
            Self::Adam { betas, epsilon, .. } => {
                for beta in betas {
                    within("betas", beta, fraction(beta), "both must lie in [0, 1)")?;
                }
                within(
                    "epsilon",
                    epsilon,
                    epsilon.is_finite() && epsilon > 0.0,
                    "it must be above 0",
                )?;
            }
        }
        Ok(())
    }
}

/// One recipe for every defense, so that they can be compared. Colour images: "Bag of Tricks for Adversarial
/// Training", Pang et al. 2021, arXiv:2010.00467 (110 epochs, 0.1 falling tenfold at 100 and 105, weight decay
/// 5e-4, batches of 128). Digits: TRADES's MNIST script, yaodongyu/TRADES 6e8e11b.
pub fn shared_recipe(setting: &Setting) -> Recipe {
    let sgd = |rate, weight_decay| Optimizer::Sgd {
        rate,
        momentum: 0.9,
        nesterov: false,
        weight_decay,
        decay: Decay::All,
    };
    match setting.family {
        Family::Cifar => Recipe {
            length: Length::Epochs(110),
            batch: 128,
            optimizer: sgd(0.1, 5e-4),
            schedule: Schedule::Steps {
                at: vec![100, 105],
                factor: 0.1,
            },
            clip_gradient: None,
            augment: vec![Augmentation::Crop4, Augmentation::Flip],
        },
        Family::Mnist => Recipe {
            length: Length::Epochs(100),
            batch: 128,
            optimizer: sgd(0.01, 0.0),
            schedule: Schedule::Steps {
                at: vec![55, 75, 90],
                factor: 0.1,
            },
            clip_gradient: None,
            augment: vec![],
        },
    }
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
