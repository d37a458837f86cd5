//! APGD-T: Auto-PGD towards each of the most probable wrong classes. Croce and Hein 2020, arXiv:2003.01690,
//! as in fra31/auto-attack (a392200).
//!
//! L = −(z_y − z_t) / (z₍₁₎ − ½(z₍₃₎ + z₍₄₎)), z the logits `[B, K]`, t each of the first wrong classes of the clean
//! prediction in turn
//!
//! Images `[B, C, H, W]` in `[0, 1]`. Steps, starts and results are those of [`crate::Apgd`]; a class is tried on the
//! examples that the classes before left unbroken. Needs 4 classes. Deviations: as there; and where fewer than 9 wrong classes
//! exist, all of them are tried, where the authors' code prints a warning and fails.

use candle_core::Result;
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::apgd::check_rho;
use crate::survivors::{Examples, Survivors};
use crate::targets::resolve_targets;
use crate::{
    Apgd, Attack, Batch, BatchNorm, Cost, Description, Invalid, Loss, Method, Perturbed, Probe, Setting, Start, Threat,
};

/// Auto-PGD on the targeted DLR loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApgdT {
    /// Gradient steps towards one class; 100.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// Classes tried, the most probable ones first; 9, or all wrong ones if there are fewer.
    #[serde(default)]
    pub targets: Option<u64>,
    /// Independent tries for each class; 1.
    #[serde(default = "default_restarts")]
    pub restarts: u64,
    /// ρ of [`Apgd`]; 0.75.
    #[serde(default = "default_rho")]
    pub rho: f64,
}

fn default_steps() -> u64 {
    100
}

fn default_restarts() -> u64 {
    1
}

fn default_rho() -> f64 {
    0.75
}

impl Default for ApgdT {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            targets: None,
            restarts: default_restarts(),
            rho: default_rho(),
        }
    }
}

impl Method for ApgdT {
    const NAME: &'static str = "apgd-t";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Auto-PGD on the targeted DLR loss, towards each of the most probable wrong classes";
    const SOURCE: &'static str = "Croce and Hein 2020, arXiv:2003.01690";
    const EXAMPLE: &'static str = r#"{"steps": 100, "targets": 9}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        crate::positive("steps", self.steps)?;
        crate::positive("restarts", self.restarts)?;
        check_rho(self.rho)?;
        resolve_targets(&mut self.targets, setting.classes)?;
        Loss::DlrTargeted { rank: 1 }.check(setting.classes)
    }
}

impl Attack for ApgdT {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        crate::survivors::perturb(classifier, batch, |probe, examples, survivors| {
            self.take(probe, examples, threat, random, survivors)
        })
    }

    fn describe(&self) -> Description {
        Description {
            steps: Some(self.steps),
            step_size: None,
            restarts: Some(self.restarts),
            loss: Some("dlr-targeted".to_string()),
            start: Some(Start::Uniform.to_string()),
            batch_norm: Some(BatchNorm::Eval.to_string()),
        }
    }

    fn ceiling(&self, _: usize) -> Option<Cost> {
        let runs = self.targets? * self.restarts * (self.steps + 1);
        Some(Cost {
            forwards: runs + 1,
            backwards: runs,
        })
    }
}

impl ApgdT {
    /// Attacks the survivors and removes those that it breaks.
    pub(crate) fn take(
        &self,
        probe: &mut Probe<'_>,
        examples: &Examples,
        threat: &Threat,
        random: &Stream,
        survivors: &mut Survivors,
    ) -> Result<()> {
        let Some(targets) = self.targets else {
            candle_core::bail!("apgd-t: targets is open; resolve the configuration first");
        };
        let draws = random.of(Purpose::AttackStart);
        for run in 0..targets * self.restarts {
            let loss = Loss::DlrTargeted {
                rank: (run / self.restarts) as usize + 1,
            };
            self.as_apgd().run(
                probe,
                examples,
                threat,
                loss,
                run,
                &draws,
                survivors,
                &mut |_, _| Ok(()),
            )?;
        }
        Ok(())
    }

    pub(crate) fn as_apgd(&self) -> Apgd {
        Apgd {
            steps: self.steps,
            rho: self.rho,
            ..Apgd::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::setting;
    use crate::{Family, Norm};

    #[test]
    fn targets_fit_the_classes() {
        let resolve = |targets, classes| {
            let setting = Setting {
                classes,
                ..setting(Family::Cifar, Norm::Linf)
            };
            let mut attack = ApgdT {
                targets,
                ..ApgdT::default()
            };
            attack
                .resolve(&setting)
                .map(|()| attack.targets.unwrap())
                .map_err(|invalid| invalid.field)
        };
        assert_eq!(resolve(None, 100), Ok(9));
        assert_eq!(resolve(None, 6), Ok(5));
        assert_eq!(resolve(Some(20), 100), Ok(20));
        assert_eq!(resolve(Some(6), 6), Err("targets".to_string()));
        assert_eq!(resolve(Some(0), 6), Err("targets".to_string()));
        // The loss looks at the fourth logit.
        assert_eq!(resolve(None, 3), Err("loss".to_string()));
    }
}
