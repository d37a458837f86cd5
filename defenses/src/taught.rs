//! What a teacher, another trained network, says of the examples of a step.

use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of a batch through a teacher. Empty where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Taught {
    /// The weight of each example's loss `[B]`, above 0. `None`: all weigh the same.
    pub weights: Option<Vec<f32>>,
    /// The group of each example `[B]`; most are in none. `None`: no teacher was asked.
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

impl Taught {
    /// The mean of one loss per example `[B]`, scalar: Σᵢ wᵢ·lossᵢ / Σᵢ wᵢ.
    pub(crate) fn mean(&self, losses: &Tensor) -> Result<Tensor> {
        let Some(weights) = &self.weights else {
            return losses.mean_all();
        };
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        (losses * column(weights, losses)?)?.sum_all()? / sum
    }

    /// Which examples of the batch are in a group, `[B]`. Fails where no teacher was asked.
    pub fn members(&self, group: Group) -> Result<Vec<bool>> {
        let Some(groups) = &self.groups else {
            candle_core::bail!("no teacher was asked which examples are {group:?}");
        };
        Ok(groups.iter().map(|it| *it == Some(group)).collect())
    }
}

/// 1 for each member, else 0: `[B]`, of the type and on the device of `like`.
pub(crate) fn flags(members: &[bool], like: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> = members.iter().map(|&it| f32::from(u8::from(it))).collect();
    column(&values, like)
}

fn column(values: &[f32], like: &Tensor) -> Result<Tensor> {
    Tensor::new(values, like.device())?.to_dtype(like.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_gradient, assert_near, tensor};

    #[test]
    fn the_weighted_mean_worked_by_hand() {
        let losses = tensor(&[1.0, 2.0, 4.0], &[3]);
        let mean = |weights: Option<Vec<f32>>| {
            let taught = Taught { weights, groups: None };
            taught.mean(&losses).unwrap()
        };
        // (1·1 + 0.5·2 + 0.5·4) / 2
        assert_near(
            "weighted",
            &mean(Some(vec![1.0, 0.5, 0.5])),
            &tensor(&[2.0], &[]),
            1e-15,
        );
        assert_near("plain", &mean(None), &tensor(&[7.0 / 3.0], &[]), 1e-15);
        let taught = Taught {
            weights: Some(vec![1.0, 0.25, 0.5]),
            groups: None,
        };
        assert_gradient("weighted", &losses, |losses| taught.mean(losses));
    }

    #[test]
    fn members_are_those_of_the_group() {
        let taught = Taught {
            weights: None,
            groups: Some(vec![Some(Group::Correct), None, Some(Group::Misclassified)]),
        };
        assert_eq!(taught.members(Group::Misclassified).unwrap(), [false, false, true]);
        assert_eq!(taught.members(Group::Correct).unwrap(), [true, false, false]);
        assert!(Taught::default().members(Group::Correct).is_err());
    }
}
