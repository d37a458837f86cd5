//! One comparison of a matrix, resolved: every combination becomes a cell.

use super::scope::{Scope, TEACHER};
use crate::matrix::MatrixError;
use crate::plan::Plan;

impl Scope<'_> {
    /// Adds every cell of the block to the plan.
    pub(super) fn add_to(&self, plan: &mut Plan) -> Result<(), MatrixError> {
        self.check_lists()?;
        self.check_labeled()?;
        let mut teacher_used = false;
        for (n, network) in self.block.networks.iter().enumerate() {
            let setting = self.setting(network, &format!("networks[{n}]"))?;
            let (attacks, transferred) = self.attacks(&setting)?;
            let mut targets = Vec::new();
            for (i, listed) in self.block.defenses.iter().enumerate() {
                let field = format!("defenses[{i}]");
                for (defense, value) in self.swept(&field, listed, &setting)? {
                    let supervision = self.supervision(plan, &field, &defense, &setting)?;
                    teacher_used |= supervision.teacher.is_some() && !defense.contains_key(TEACHER);
                    for &seed in &self.seeds {
                        let training = self.training(&field, (&defense, &value), &setting, seed, &supervision)?;
                        targets.push(plan.add_training(training));
                    }
                }
            }
            self.check_labels(plan, &targets)?;
            for &target in &targets {
                for &checkpoint in &self.block.checkpoints {
                    for attack in &attacks {
                        self.add(plan, self.evaluation(plan, target, checkpoint, attack, None))?;
                    }
                }
            }
            if let Some(transfer) = &self.block.transfer {
                for target in targets.clone() {
                    for source in self.sources(plan, transfer, &targets, target, &setting)? {
                        for attack in &transferred {
                            let (checkpoint, source) = source.clone();
                            self.add(plan, self.evaluation(plan, target, checkpoint, attack, Some(source)))?;
                        }
                    }
                }
            }
        }
        self.check_teacher_used(teacher_used)
    }
}
