//! One comparison of a matrix, resolved: every combination becomes a cell.

use std::collections::{BTreeMap, BTreeSet};

use attacks::Setting;

use super::attack::ResolvedAttack;
use super::scope::{Checked, Noted, Scope, TEACHER};
use crate::plan::Plan;

impl Scope<'_> {
    /// Adds every cell of the block to the plan. What has a mistake is left out, and everything else is looked at.
    pub(super) fn add_to(&self, plan: &mut Plan) {
        // Nothing below works with an empty list, or finishes in reasonable time with one that is too long.
        if self.check_lists().is_err() {
            return;
        }
        let labels = self.check_labeled();
        let mut teacher_used = Ok(false);
        for (n, network) in self.block.networks.iter().enumerate() {
            let Ok(setting) = self.setting(network, &format!("networks[{n}]")) else {
                teacher_used = Err(Noted);
                continue;
            };
            let attacks = self.attacks(&setting);
            let targets = self.add_trainings(plan, &setting);
            if let (Ok(used), Ok(targets)) = (&mut teacher_used, &targets) {
                *used |= targets.teacher_used;
            } else {
                teacher_used = Err(Noted);
            }
            if let (Ok((white_box, transferred)), Ok(targets)) = (attacks, targets) {
                // The first mistake is enough: cells that conflict usually conflict many times.
                let _ = self.add_evaluations(plan, &targets.trainings, &white_box, &transferred, &setting);
            }
        }
        if let (Ok(used), Ok(())) = (teacher_used, labels) {
            let _ = self.check_teacher_used(used);
        }
    }

    /// Adds a training for every defense and seed.
    fn add_trainings(&self, plan: &mut Plan, setting: &Setting) -> Checked<Targets> {
        let mut targets = Targets::default();
        let mut noted = None;
        // The entry that asked for each training first.
        let mut asked: BTreeMap<usize, usize> = BTreeMap::new();
        for (i, listed) in self.block.defenses.iter().enumerate() {
            let field = format!("defenses[{i}]");
            let Ok(swept) = self.swept(&field, listed, setting) else {
                noted = Some(Noted);
                continue;
            };
            for (defense, value) in swept {
                // Both are evaluated, since each may find mistakes of its own.
                let supervision = self.supervision(plan, &field, &defense, setting);
                for seed in self.distinct_seeds() {
                    let supervision = supervision.clone().unwrap_or_default();
                    let Ok(training) = self.training(&field, (&defense, &value), setting, seed, &supervision) else {
                        noted = Some(Noted);
                        break;
                    };
                    let label = training.label.clone();
                    let index = plan.add_training(training);
                    if plan.trainings[index].label != label && !asked.contains_key(&index) {
                        let message = format!(
                            "`{label}` is the same training as `{}` of another comparison; give both one `label`",
                            plan.trainings[index].label
                        );
                        noted = Some(self.error(&field, message));
                    }
                    if let Some(first) = asked.insert(index, i) {
                        noted = Some(self.repeats(&field, first));
                    }
                    targets.trainings.push(index);
                }
                match supervision {
                    Ok(supervision) => {
                        targets.teacher_used |= supervision.teacher.is_some() && !defense.contains_key(TEACHER);
                    }
                    Err(supervision) => noted = Some(supervision),
                }
            }
        }
        match noted {
            Some(noted) => Err(noted),
            None => self.check_labels(plan, &targets.trainings).map(|()| targets),
        }
    }

    /// The seeds without repeats, which are a mistake of their own.
    fn distinct_seeds(&self) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        self.seeds.iter().copied().filter(|seed| seen.insert(*seed)).collect()
    }

    fn repeats(&self, field: &str, first: usize) -> Noted {
        let message = format!(
            "the same defense as `defenses[{first}]`, with the same fields and recipe; leave one of them out, since both \
             are one training"
        );
        self.error(field, message)
    }

    fn add_evaluations(
        &self,
        plan: &mut Plan,
        targets: &[usize],
        white_box: &[ResolvedAttack],
        transferred: &[ResolvedAttack],
        setting: &Setting,
    ) -> Checked<()> {
        for &target in targets {
            for &checkpoint in &self.block.checkpoints {
                for attack in white_box {
                    self.add(plan, self.evaluation(plan, target, checkpoint, attack, None))?;
                }
            }
        }
        let Some(transfer) = &self.block.transfer else {
            return Ok(());
        };
        for &target in targets {
            for (checkpoint, source) in self.sources(plan, transfer, targets, target, setting)? {
                for attack in transferred {
                    let source = Some(source.clone());
                    self.add(plan, self.evaluation(plan, target, checkpoint, attack, source))?;
                }
            }
        }
        Ok(())
    }
}

/// The trainings of one network.
#[derive(Default)]
struct Targets {
    trainings: Vec<usize>,
    /// Whether a defense uses the comparison's own teacher.
    teacher_used: bool,
}
