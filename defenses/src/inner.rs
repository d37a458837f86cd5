//! The attack inside a training step.

use attacks::{Attack, BatchNorm, Invalid, Loss, Method, Pgd, Pixels, Setting, Start, Threat};
use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Step;

/// The projected gradient descent of a training step. What is left open takes the defense's default.
///
/// Steps: 10 of ε/4, which is 2/255 at 8/255; on digits at 0.3, 40 of 0.01. The released code of TRADES
/// and MART takes `epsilon: 0.031, step_size: 0.007` instead; write so to follow it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InnerAttack {
    /// The radius in training, if it is not the threat model's.
    #[serde(default)]
    pub epsilon: Option<Pixels>,
    /// Gradient steps.
    #[serde(default)]
    pub steps: Option<u64>,
    /// The length of a step.
    #[serde(default)]
    pub step_size: Option<Pixels>,
    /// Where it starts.
    #[serde(default)]
    pub start: Option<Start>,
    /// Whether the start is brought into the ball and `[0, 1]` before the first gradient; no.
    #[serde(default)]
    pub clip_start: Option<bool>,
    /// The loss ascended.
    #[serde(default)]
    pub loss: Option<Loss>,
    /// The batch-norm mode during the attack; `eval`, as in the released code.
    #[serde(default)]
    pub batch_norm: Option<BatchNorm>,
}

impl InnerAttack {
    /// Fills what is open and checks the rest.
    pub fn resolve(&mut self, setting: &Setting, start: Start, loss: Loss) -> std::result::Result<(), Invalid> {
        let epsilon = *self.epsilon.get_or_insert(setting.threat.epsilon);
        let setting = Setting {
            threat: Threat {
                epsilon,
                ..setting.threat
            },
            ..setting.clone()
        };
        setting.threat.check()?;
        let steps = *self.steps.get_or_insert(setting.training_steps());
        if self.step_size.is_none() {
            self.step_size = Some(setting.step_size(steps)?);
        }
        self.start.get_or_insert(start);
        self.clip_start.get_or_insert(false);
        self.loss.get_or_insert(loss);
        self.batch_norm.get_or_insert(BatchNorm::Eval);
        self.pgd()?.resolve(&setting)
    }

    /// Perturbed images of the step's batch, `[B, C, H, W]`, detached.
    pub fn perturb(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let threat = self.threat(step.threat);
        let pgd = self
            .pgd()
            .map_err(|open| candle_core::Error::msg(format!("{}: {open}", open.field)))?;
        step.attack(&pgd as &dyn Attack, &threat)
    }

    /// The threat model in training.
    pub fn threat(&self, threat: &Threat) -> Threat {
        Threat {
            epsilon: self.epsilon.unwrap_or(threat.epsilon),
            ..*threat
        }
    }

    /// The attack with all its values. An error names a field that is still open.
    fn pgd(&self) -> std::result::Result<Pgd, Invalid> {
        let open = |field: &str| Invalid::new(field, "open; resolve the configuration first");
        Ok(Pgd {
            steps: Some(self.steps.ok_or_else(|| open("steps"))?),
            step_size: Some(self.step_size.ok_or_else(|| open("step_size"))?),
            start: self.start.ok_or_else(|| open("start"))?,
            clip_start: self.clip_start.ok_or_else(|| open("clip_start"))?,
            loss: self.loss.ok_or_else(|| open("loss"))?,
            restarts: 1,
            batch_norm: self.batch_norm.ok_or_else(|| open("batch_norm"))?,
        })
    }
}

/// Normal noise of standard deviation 0.001, the start of TRADES's and MART's released code.
pub(crate) fn small_gaussian() -> Start {
    Start::Gaussian {
        sigma: Pixels::new(1, 1000),
    }
}
