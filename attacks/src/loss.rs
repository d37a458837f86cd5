//! The losses an attack can ascend.
//!
//! Each is one value per example; an attack follows the gradient of their sum, so that a batch of
//! one moves exactly as it does in a batch of many. z are logits, p = softmax(z), y the label,
//! M = max_{k≠y} z_k.

use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Invalid;
use crate::losses::{at, cross_entropy, dlr, dlr_targeted, kl, margin, one_hot, ranking, soft_margin};

/// A loss that an attack ascends: large where the network is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Loss {
    /// −log p_y.
    #[default]
    CrossEntropy,
    /// KL(p(x) ‖ p(x′)) with the clean prediction p(x) held constant: TRADES.
    Kl,
    /// M − z_y.
    Margin,
    /// log Σ_{k≠y} exp z_k − z_y, a smooth margin: MMA.
    SoftMargin,
    /// −max(z_y − M + κ, 0), example by example: Carlini and Wagner 2017 (arXiv:1608.04644) as in Madry's
    /// and FAT's code. An example that is wrong by more than κ is left alone.
    Cw {
        /// κ, in logits: by how much an example should be wrong.
        kappa: f64,
    },
    /// As `cw`, with M the largest of the wrong logits and 0: Dynamic AT's code.
    CwZeroMask {
        /// κ, in logits.
        kappa: f64,
    },
    /// max(M − z_y + κ, 0): as `cw`, clamped on the other side, so that it is the confidently right
    /// examples that are left alone: advertorch's `CWLoss`.
    CwAdvertorch {
        /// κ, in logits.
        kappa: f64,
    },
    /// −max(Σ_B (z_y − M), 0) over the whole batch: RobustWRN's code. **Depends on the batch**: every
    /// gradient is zero as soon as the batch is wrong on balance. Kept to explain published numbers.
    CwBatchSum,
    /// −(z_y − M) / (z₍₁₎ − z₍₃₎): Croce and Hein 2020. Needs 3 classes.
    Dlr,
    /// −(z_y − z_t) / (z₍₁₎ − ½(z₍₃₎ + z₍₄₎)), t the wrong class at `rank` in the clean prediction. Needs
    /// 4 classes.
    DlrTargeted {
        /// 1: the most probable wrong class; 2: the next.
        rank: usize,
    },
}

impl Loss {
    /// One value per example `[B]`. `clean_logits` are those of the unperturbed images, detached; only
    /// the losses for which [`needs_clean`](Self::needs_clean) holds read them.
    pub fn per_example(&self, logits: &Tensor, labels: &Tensor, clean_logits: Option<&Tensor>) -> Result<Tensor> {
        let clean = || clean_logits.ok_or_else(|| candle_core::Error::msg(format!("{self} needs the clean logits")));
        match *self {
            Self::CrossEntropy => cross_entropy(logits, labels),
            Self::Kl => kl(&clean()?.detach(), logits),
            Self::Margin => margin(logits, labels),
            Self::SoftMargin => soft_margin(logits, labels),
            Self::Cw { kappa } => relu(&(margin(logits, labels)?.neg()? + kappa)?)?.neg(),
            Self::CwZeroMask { kappa } => relu(&(zero_mask_margin(logits, labels)?.neg()? + kappa)?)?.neg(),
            Self::CwAdvertorch { kappa } => relu(&(margin(logits, labels)? + kappa)?),
            Self::CwBatchSum => {
                let total = relu(&margin(logits, labels)?.neg()?.sum_all()?)?.neg()?;
                let share = (total / logits.dim(0)? as f64)?;
                share.broadcast_as(logits.dim(0)?)
            }
            Self::Dlr => dlr(logits, labels),
            Self::DlrTargeted { rank } => dlr_targeted(logits, labels, &wrong_class(clean()?, labels, rank)?),
        }
    }

    /// Whether the loss compares with the clean prediction.
    pub fn needs_clean(&self) -> bool {
        matches!(self, Self::Kl | Self::DlrTargeted { .. })
    }

    /// Whether an example's gradient depends on its companions in the batch.
    pub fn depends_on_batch(&self) -> bool {
        matches!(self, Self::CwBatchSum)
    }

    /// The loss that a frozen network on a GPU ascends in all steps at once, if there is one.
    pub(crate) fn fused(&self) -> Option<kernels::ascent::Loss> {
        use kernels::ascent::Loss as Fused;
        match *self {
            Self::CrossEntropy => Some(Fused::CrossEntropy),
            Self::Kl => Some(Fused::Kl),
            Self::Margin => Some(Fused::Margin),
            Self::SoftMargin => Some(Fused::SoftMargin),
            Self::Cw { kappa } => Some(Fused::Cw(kappa as f32)),
            Self::CwAdvertorch { kappa } => Some(Fused::Hinge(kappa as f32)),
            Self::CwZeroMask { .. } | Self::CwBatchSum | Self::Dlr | Self::DlrTargeted { .. } => None,
        }
    }

    /// Refuses values that have no meaning, and too few classes.
    pub fn check(&self, classes: usize) -> std::result::Result<(), Invalid> {
        let need = match *self {
            Self::Dlr => 3,
            Self::DlrTargeted { rank } => {
                if rank == 0 || rank >= classes.max(2) {
                    let message = format!("rank is {rank}; of {classes} classes, the wrong ones have ranks 1 and up");
                    return Err(Invalid::new("loss.dlr-targeted.rank", message));
                }
                4
            }
            _ => 2,
        };
        if classes < need {
            return Err(Invalid::new(
                "loss",
                format!("{self} needs {need} classes, there are {classes}"),
            ));
        }
        match *self {
            Self::Cw { kappa } | Self::CwZeroMask { kappa } | Self::CwAdvertorch { kappa } => check_kappa(kappa)
                .map_err(|invalid| Invalid {
                    field: format!("loss.{}.kappa", self.name()),
                    ..invalid
                }),
            _ => Ok(()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::CrossEntropy => "cross-entropy",
            Self::Kl => "kl",
            Self::Margin => "margin",
            Self::SoftMargin => "soft-margin",
            Self::Cw { .. } => "cw",
            Self::CwZeroMask { .. } => "cw-zero-mask",
            Self::CwAdvertorch { .. } => "cw-advertorch",
            Self::CwBatchSum => "cw-batch-sum",
            Self::Dlr => "dlr",
            Self::DlrTargeted { .. } => "dlr-targeted",
        }
    }
}

/// Refuses a κ that is negative or not finite.
pub(crate) fn check_kappa(kappa: f64) -> std::result::Result<(), Invalid> {
    if kappa.is_finite() && kappa >= 0.0 {
        return Ok(());
    }
    Err(Invalid::new(
        "kappa",
        format!("kappa is {kappa}; it must be at least 0, the literature uses 0 and 50"),
    ))
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Cw { kappa } | Self::CwZeroMask { kappa } | Self::CwAdvertorch { kappa } => {
                write!(f, "(kappa={kappa})")
            }
            Self::DlrTargeted { rank } => write!(f, "(rank={rank})"),
            _ => Ok(()),
        }
    }
}

/// max(v, 0) with gradient 0 at 0.
fn relu(values: &Tensor) -> Result<Tensor> {
    values
        .gt(&values.zeros_like()?)?
        .where_cond(values, &values.zeros_like()?)
}

/// max_k ((1 − onehot(y)) ∘ z)_k − z_y: the label's own place holds a 0.
fn zero_mask_margin(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let masked = one_hot(labels, logits.dim(1)?)?.where_cond(&logits.zeros_like()?, logits)?;
    let largest = masked.detach().argmax(1)?;
    at(&masked, &largest)? - at(logits, labels)?
}

/// The wrong class at `rank`, counted from 1, in a prediction.
pub(crate) fn wrong_class(logits: &Tensor, labels: &Tensor, rank: usize) -> Result<Tensor> {
    let never = (logits.zeros_like()?.detach() + f64::NEG_INFINITY)?;
    let wrong = one_hot(labels, logits.dim(1)?)?.where_cond(&never, &logits.detach())?;
    Ok(ranking(&wrong, rank)?.swap_remove(rank - 1))
}
