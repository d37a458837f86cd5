//! The predictions of a teacher, another trained network, for the examples of a step.

use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a teacher's predictions say about a batch. Empty without a teacher.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TeacherPredictions {
    /// The weight of each example's loss `[B]`, above 0. `None`: equal weights.
    pub weights: Option<Vec<f32>>,
    /// The group of each example `[B]`; most are in none. `None`: there is no teacher.
    pub groups: Option<Vec<Option<Group>>>,
}

/// Training examples that a teacher sets apart. No example is in two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// S⁻: the labeled examples that the teacher misclassifies, unperturbed.
    Misclassified,
    /// S⁺: as many of the labeled examples that it classifies correctly, drawn once for all trainings.
    Correct,
    /// Those whose label is the teacher's word.
    Unlabeled,
}

impl TeacherPredictions {
    /// The mean of one loss per example `[B]`, scalar: Σᵢ wᵢ·lossᵢ / Σᵢ wᵢ.
    pub(crate) fn mean(&self, losses: &Tensor) -> Result<Tensor> {
        let Some(weights) = &self.weights else {
            return losses.mean_all();
        };
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        (losses * column(weights, losses)?)?.sum_all()? / sum
    }

    /// Which examples of the batch are in a group, `[B]`. Fails without a teacher.
    pub fn members(&self, group: Group) -> Result<Vec<bool>> {
        let Some(groups) = &self.groups else {
            candle_core::bail!("no teacher says which examples are {group:?}");
        };
        Ok(groups.iter().map(|own| *own == Some(group)).collect())
    }
}

/// 1 for each member, else 0: `[B]`, of the type and on the device of `like`.
pub(crate) fn flags(members: &[bool], like: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> = members.iter().map(|&member| f32::from(u8::from(member))).collect();
    column(&values, like)
}

fn column(values: &[f32], like: &Tensor) -> Result<Tensor> {
    Tensor::new(values, like.device())?.to_dtype(like.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::{assert_gradient, assert_near, tensor};

    #[test]
    fn the_weighted_mean_worked_by_hand() {
        let losses = tensor(&[1.0, 2.0, 4.0], &[3]);
        let mean = |weights: Option<Vec<f32>>| {
            let teacher = TeacherPredictions { weights, groups: None };
            teacher.mean(&losses).unwrap()
        };
        // (1·1 + 0.5·2 + 0.5·4) / 2
        assert_near(
            "weighted",
            &mean(Some(vec![1.0, 0.5, 0.5])),
            &tensor(&[2.0], &[]),
            1e-15,
        );
        assert_near("plain", &mean(None), &tensor(&[7.0 / 3.0], &[]), 1e-15);
        let teacher = TeacherPredictions {
            weights: Some(vec![1.0, 0.25, 0.5]),
            groups: None,
        };
        assert_gradient("weighted", &losses, |losses| teacher.mean(losses));
    }

    #[test]
    fn members_are_those_of_the_group() {
        let teacher = TeacherPredictions {
            weights: None,
            groups: Some(vec![Some(Group::Correct), None, Some(Group::Misclassified)]),
        };
        assert_eq!(teacher.members(Group::Misclassified).unwrap(), [false, false, true]);
        assert_eq!(teacher.members(Group::Correct).unwrap(), [true, false, false]);
        assert!(TeacherPredictions::default().members(Group::Correct).is_err());
    }
}
