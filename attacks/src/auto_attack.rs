//! AutoAttack: Croce and Hein 2020, arXiv:2003.01690, as in fra31/auto-attack (a392200).
//!
//! | version | attacks, each on the survivors of those before |
//! | --- | --- |
//! | `standard` | APGD-CE, APGD-T with 9 classes, FAB-T with 9 classes, Square with 5000 queries |
//! | `plus` | APGD-CE and APGD-DLR with 5 restarts, FAB with 5 restarts, Square, APGD-T, FAB-T |
//! | `custom` | any list |
//!
//! Images `[B, C, H, W]` in `[0, 1]`, L∞ or L2; 100 steps each. An example is broken if any attack breaks it, and the
//! first image to do so is kept; a robust example keeps its clean image. Where there are fewer than 9 wrong classes, all
//! are tried. `standard` is the version of published numbers, so its values are fixed: shorten a `custom` list instead.
//!
//! An example that is robust to all of `standard` with 10 classes costs 7,812 forward passes and 1,910 backward ones;
//! in the authors' code 7,857 and 1,910, and 7 more in checks of the network. The difference: clean images are classified
//! once, not again by each attack, and images that an attack found are not classified again.
//!
//! [`Progress`] holds an evaluation's state between two attacks: a plain value that can be stored and resumed.
//! Deviations: those of the four attacks. The authors' `rand` version, for networks that answer at random, is absent.

use candle_core::Result;
use models::Classifier;
use random::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::survivors::Examples;
use crate::targets::resolve_targets;
use crate::{
    Aim, Apgd, ApgdT, Attack, Batch, BatchNorm, Cost, Description, Fab, Invalid, Loss, Method, Perturbed, Probe,
    Progress, Queries, Sequence, Setting, Square, Threat,
};

/// AutoAttack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoAttack {
    /// Which list of attacks; `standard`.
    #[serde(default)]
    pub version: Version,
    /// The attacks in their order. To be written for `custom` alone.
    #[serde(default)]
    pub attacks: Option<Vec<Member>>,
    /// Steps of APGD and FAB; 100.
    #[serde(default = "default_steps")]
    pub steps: u64,
    /// Restarts of the attacks without targets, APGD-CE, APGD-DLR and FAB; 1, for `plus` 5.
    #[serde(default)]
    pub restarts: Option<u64>,
    /// Classes that APGD-T and FAB-T try; 9, or all wrong ones if there are fewer.
    #[serde(default)]
    pub targets: Option<u64>,
    /// Queries of Square; 5000.
    #[serde(default = "default_queries")]
    pub queries: u64,
}

/// A version of AutoAttack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// The one that published numbers mean.
    #[default]
    Standard,
    /// More restarts, and the attacks without targets as well.
    Plus,
    /// The attacks listed.
    Custom,
}

/// An attack of AutoAttack. The numbers choose its random draws: never renumber, only append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[repr(u64)]
pub enum Member {
    /// [`Apgd`] on cross entropy.
    ApgdCe = 1,
    /// [`Apgd`] on DLR.
    ApgdDlr = 2,
    /// [`ApgdT`].
    ApgdT = 3,
    /// [`Fab`] at the nearest boundary.
    Fab = 4,
    /// [`Fab`] at the boundary to each class.
    FabT = 5,
    /// [`Square`].
    Square = 6,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Standard => "standard",
            Self::Plus => "plus",
            Self::Custom => "custom",
        })
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ApgdCe => "apgd-ce",
            Self::ApgdDlr => "apgd-dlr",
            Self::ApgdT => "apgd-t",
            Self::Fab => "fab",
            Self::FabT => "fab-t",
            Self::Square => "square",
        })
    }
}

impl Version {
    /// Its list; `None`: the user writes it.
    fn attacks(self) -> Option<Vec<Member>> {
        use Member::*;
        match self {
            Self::Standard => Some(vec![ApgdCe, ApgdT, FabT, Square]),
            Self::Plus => Some(vec![ApgdCe, ApgdDlr, Fab, Square, ApgdT, FabT]),
            Self::Custom => None,
        }
    }

    fn restarts(self) -> u64 {
        match self {
            Self::Standard | Self::Custom => 1,
            Self::Plus => 5,
        }
    }
}

fn default_steps() -> u64 {
    100
}

fn default_queries() -> u64 {
    5000
}

impl Default for AutoAttack {
    fn default() -> Self {
        Self {
            version: Version::default(),
            attacks: None,
            steps: default_steps(),
            restarts: None,
            targets: None,
            queries: default_queries(),
        }
    }
}

impl Method for AutoAttack {
    const NAME: &'static str = "auto-attack";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "APGD-CE, APGD-T, FAB-T and Square, each on the survivors of those before";
    const SOURCE: &'static str = "Croce and Hein 2020, arXiv:2003.01690";
    const EXAMPLE: &'static str =
        r#"{"version": "custom", "attacks": ["apgd-ce", "apgd-t", "fab-t", "square"], "steps": 5, "queries": 20}"#;

    fn resolve(&mut self, setting: &Setting) -> std::result::Result<(), Invalid> {
        let version = self.version;
        let fixed = |field: &str, written: String, own: String| {
            let message = format!("{field} of the {version} version is {own}, not {written}; write `version: custom`");
            Err(Invalid::new(field, message))
        };
        match (version.attacks(), &self.attacks) {
            (Some(own), Some(written)) if own != *written => {
                return fixed("attacks", listed(written), listed(&own));
            }
            (Some(own), _) => self.attacks = Some(own),
            (None, Some(written)) if !written.is_empty() => check_twice(written)?,
            (None, _) => {
                let message = "a custom version needs a list, such as `attacks: [apgd-ce, apgd-t, fab-t, square]`";
                return Err(Invalid::new("attacks", message));
            }
        }
        let all = (setting.classes.saturating_sub(1) as u64).min(9);
        let restarts = *self.restarts.get_or_insert(version.restarts());
        if version != Version::Custom {
            let targets = self.targets.unwrap_or(all);
            let numbers = [
                ("steps", self.steps, default_steps()),
                ("restarts", restarts, version.restarts()),
                ("targets", targets, all),
                ("queries", self.queries, default_queries()),
            ];
            for (field, written, own) in numbers {
                if written != own {
                    return fixed(field, written.to_string(), own.to_string());
                }
            }
        }
        crate::positive("steps", self.steps)?;
        crate::positive("restarts", restarts)?;
        crate::positive("queries", self.queries)?;
        resolve_targets(&mut self.targets, setting.classes)?;
        for &member in self.attacks.iter().flatten() {
            let need = match member {
                Member::ApgdDlr => Loss::Dlr.check(setting.classes),
                Member::ApgdT => Loss::DlrTargeted { rank: 1 }.check(setting.classes),
                _ => Ok(()),
            };
            need.map_err(|invalid| {
                let message = format!("{member}: {}; write `version: custom` without it", invalid.message);
                Invalid::new("attacks", message)
            })?;
        }
        Ok(())
    }
}

fn listed(members: &[Member]) -> String {
    let names: Vec<String> = members.iter().map(Member::to_string).collect();
    names.join(", ")
}

/// The second run of an attack would use the same random draws.
fn check_twice(members: &[Member]) -> std::result::Result<(), Invalid> {
    for (place, member) in members.iter().enumerate() {
        if members[..place].contains(member) {
            let message = format!("{member} is listed twice; use `restarts` for more restarts");
            return Err(Invalid::new("attacks", message));
        }
    }
    Ok(())
}

impl Attack for AutoAttack {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        let mut probe = Probe::new(classifier, BatchNorm::Eval)?;
        let mut progress = Progress::begin(&mut probe, batch)?;
        while self.advance(&mut probe, batch, threat, random, &mut progress)? {}
        Ok(progress.survivors.into_perturbed(&probe))
    }

    fn describe(&self) -> Description {
        Description {
            steps: Some(self.steps),
            step_size: None,
            restarts: self.restarts,
            loss: Some(format!(
                "{}({})",
                self.version,
                listed(self.attacks.as_deref().unwrap_or_default())
            )),
            start: None,
            batch_norm: Some(BatchNorm::Eval.to_string()),
        }
    }

    fn in_parts(&self) -> Option<&dyn Sequence> {
        Some(self)
    }

    fn ceiling(&self, classes: usize) -> Option<Cost> {
        // Each attack would classify the clean images; here it is done once for all.
        let mut total = Cost {
            forwards: 1,
            backwards: 0,
        };
        for member in self.attacks.as_ref()? {
            let mut cost = match member {
                Member::ApgdCe => self.apgd(Loss::CrossEntropy).ceiling(classes),
                Member::ApgdDlr => self.apgd(Loss::Dlr).ceiling(classes),
                Member::ApgdT => self.apgd_t().ceiling(classes),
                Member::Fab => self.fab(Aim::Nearest).ceiling(classes),
                Member::FabT => self.fab(Aim::Targets(self.targets?)).ceiling(classes),
                Member::Square => self.square().ceiling(classes),
            }?;
            cost.forwards -= 1;
            total += cost;
        }
        Some(total)
    }
}

impl Sequence for AutoAttack {
    fn advance(
        &self,
        probe: &mut Probe<'_>,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
        progress: &mut Progress,
    ) -> Result<bool> {
        let (Some(attacks), Some(targets)) = (&self.attacks, self.targets) else {
            candle_core::bail!("auto-attack: attacks and targets are open; resolve the configuration first");
        };
        let Some(&member) = attacks.get(progress.done) else {
            return Ok(false);
        };
        if progress.survivors.rows().is_empty() {
            return Ok(false);
        }
        let examples = Examples {
            batch: Batch {
                images: batch.images.detach(),
                ..batch.clone()
            },
            clean_logits: progress.clean_logits.clone(),
        };
        let random = random.at(member as u64);
        let before = progress.survivors.rows();
        let survivors = &mut progress.survivors;
        match member {
            Member::ApgdCe => self
                .apgd(Loss::CrossEntropy)
                .take(probe, &examples, threat, &random, survivors),
            Member::ApgdDlr => self.apgd(Loss::Dlr).take(probe, &examples, threat, &random, survivors),
            Member::ApgdT => self.apgd_t().take(probe, &examples, threat, &random, survivors),
            Member::Fab => self
                .fab(Aim::Nearest)
                .take(probe, &examples, threat, &random, survivors),
            Member::FabT => self
                .fab(Aim::Targets(targets))
                .take(probe, &examples, threat, &random, survivors),
            Member::Square => {
                let mut queries = Queries::start(batch.ids.len());
                self.square()
                    .take(probe, &examples, threat, &random, survivors, &mut queries)
            }
        }?;
        for row in before {
            if progress.survivors.broken[row] {
                progress.broken_by[row] = Some(progress.done);
            }
        }
        progress.done += 1;
        Ok(true)
    }
}

impl AutoAttack {
    fn apgd(&self, loss: Loss) -> Apgd {
        Apgd {
            steps: self.steps,
            restarts: self.restarts.unwrap_or(1),
            loss,
            ..Apgd::default()
        }
    }

    fn apgd_t(&self) -> ApgdT {
        ApgdT {
            steps: self.steps,
            targets: self.targets,
            ..ApgdT::default()
        }
    }

    fn fab(&self, aim: Aim) -> Fab {
        Fab {
            steps: self.steps,
            aim: Some(aim),
            restarts: match aim {
                Aim::Nearest => self.restarts.unwrap_or(1),
                Aim::Targets(_) => 1,
            },
            ..Fab::default()
        }
    }

    fn square(&self) -> Square {
        Square {
            queries: self.queries,
            ..Square::default()
        }
    }
}

#[cfg(test)]
mod tests;
