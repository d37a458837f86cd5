//! Which defenses of a comparison have a teacher, and what they take from it.

use attacks::Setting;
use defenses::Group;
use serde_json::{Map, Value};

use super::scope::{Checked, Scope, TEACHER, UNLABELED};
use crate::cell::{Supervision, Teacher};
use crate::matrix::{OtherNetwork, Unlabeled};
use crate::plan::Plan;

/// Instead of a teacher, in a defense's entry: the defense has none.
const NONE: &str = "none";
const ALL_LABELED: &str = "every example has its label; set `labeled: 1000` or so in `dataset`, or name a file of \
                           `extra` images there";

impl Scope<'_> {
    /// Fails for a number of labels that leaves no example with one, or none without.
    pub(super) fn check_labeled(&self) -> Checked<()> {
        let dataset = &self.block.dataset;
        if self.block.unlabeled.is_some() && !dataset.has_unlabeled() {
            return Err(self.error(UNLABELED, ALL_LABELED));
        }
        let Some(labeled) = dataset.labeled else { return Ok(()) };
        let all = dataset
            .limit
            .train
            .map_or(self.entry.train, |limit| limit.min(self.entry.train));
        let left = all.saturating_sub(dataset.validation);
        if labeled == 0 || labeled >= left {
            let message = format!(
                "{labeled} of {left} training examples cannot be the labeled ones; write a number from 1 to {}, or \
                 leave it out if all are to keep their labels",
                left.saturating_sub(1)
            );
            return Err(self.error("dataset.labeled", message));
        }
        Ok(())
    }

    /// What a defense takes from which teacher. Adds the teacher's training to the plan.
    pub(super) fn supervision(
        &self,
        plan: &mut Plan,
        field: &str,
        defense: &Map<String, Value>,
        setting: &Setting,
    ) -> Checked<Supervision> {
        let mut own = defense.clone();
        let treats = self.defense(field, defense, setting)?.method.treats();
        let hidden = self.block.dataset.has_unlabeled();
        let declined = own.get(TEACHER).is_some_and(|teacher| teacher == NONE);
        let own_teacher: Option<OtherNetwork> = if declined {
            None
        } else {
            self.take(field, &mut own, TEACHER)?
        };
        let own_unlabeled: Option<Unlabeled> = self.take(field, &mut own, UNLABELED)?;
        self.check_unlabeled(field, own_unlabeled, declined)?;
        let inherited = self.block.teacher.as_ref().filter(|_| !declined);
        let (teacher, place) = match (&own_teacher, inherited) {
            (Some(own), _) => (own, format!("{field}.{TEACHER}")),
            (None, Some(inherited)) => (inherited, TEACHER.to_string()),
            (None, None) => {
                self.check_alone(field, treats, hidden && !declined)?;
                return Ok(Supervision::default());
            }
        };
        match treats {
            None if !hidden && own_teacher.is_some() => {
                let message = "this defense does not use a teacher: every example has its label (`labeled` in \
                               `dataset`), and it treats all examples alike (`treat`)";
                return Err(self.error(&place, message));
            }
            None if !hidden => return Ok(Supervision::default()),
            Some(Group::Unlabeled) if !hidden => return Err(self.error(field, ALL_LABELED)),
            _ => {}
        }
        let teacher = self.teacher(plan, &place, teacher, setting)?;
        let unlabeled = own_unlabeled.or(self.block.unlabeled).unwrap_or_default();
        Ok(Supervision {
            teacher: Some(teacher),
            unlabeled: hidden.then_some(unlabeled),
        })
    }

    /// Adds a teacher's training to the plan.
    fn teacher(&self, plan: &mut Plan, place: &str, other: &OtherNetwork, setting: &Setting) -> Checked<Teacher> {
        let setting = match &other.network {
            Some(network) => self.setting(network, &format!("{place}.network"))?,
            None => setting.clone(),
        };
        self.check_has_best(&format!("{place}.checkpoint"), other.checkpoint)?;
        let field = format!("{place}.defense");
        let treats = self.defense(&field, &other.defense, &setting)?.method.treats();
        let own_key = [TEACHER, UNLABELED]
            .into_iter()
            .find(|key| other.defense.contains_key(*key));
        if treats.is_some() || own_key.is_some() {
            let field = own_key.map_or(field.clone(), |key| format!("{field}.{key}"));
            return Err(self.error(
                &field,
                "a teacher cannot have a teacher: it trains on labeled examples alone",
            ));
        }
        let supervision = Supervision::default();
        let training = self.training(&field, (&other.defense, ""), &setting, other.seed, &supervision)?;
        let key = training.key.clone();
        Ok(Teacher {
            training: plan.add_training(training),
            key,
            checkpoint: other.checkpoint,
        })
    }

    /// Fails for a defense that needs a teacher and has none. `hidden`: some labels are hidden, and the defense does not
    /// say that it trains on the labeled examples alone.
    fn check_alone(&self, field: &str, treats: Option<Group>, hidden: bool) -> Checked<()> {
        if treats.is_some() {
            let message = "this defense treats some examples differently, and a teacher must say which: name a \
                           `teacher`, such as `teacher: { defense: standard }`";
            return Err(self.error(field, message));
        }
        if !hidden {
            return Ok(());
        }
        let others_have_one = self.block.defenses.iter().any(|entry| entry.contains_key(TEACHER));
        if others_have_one {
            let message = "nothing gives the unlabeled examples labels for this defense: name a `teacher`, or write \
                           `teacher: none` to train on the labeled ones alone";
            return Err(self.error(field, message));
        }
        let field = if self.block.dataset.labeled.is_some() {
            "dataset.labeled"
        } else {
            "dataset.extra"
        };
        let message =
            "nothing gives the unlabeled examples labels: name a `teacher`, such as `teacher: { defense: natural }`";
        Err(self.error(field, message))
    }

    fn check_unlabeled(&self, field: &str, own: Option<Unlabeled>, declined: bool) -> Checked<()> {
        let place = format!("{field}.{UNLABELED}");
        if own.is_some() && !self.block.dataset.has_unlabeled() {
            return Err(self.error(&place, ALL_LABELED));
        }
        if own.is_some() && declined {
            return Err(self.error(
                &place,
                "without a teacher, this defense sees labeled examples alone; leave it out",
            ));
        }
        let (unlabeled, place) = match (own, self.block.unlabeled) {
            (Some(own), _) => (own, place),
            (None, Some(inherited)) => (inherited, UNLABELED.to_string()),
            (None, None) => return Ok(()),
        };
        let Unlabeled { weight, share } = unlabeled;
        if !(weight.is_finite() && weight > 0.0) {
            let message = format!(
                "the weight is {weight}; it must be above 0 (`teacher: none` leaves the unlabeled examples out)"
            );
            return Err(self.error(&format!("{place}.weight"), message));
        }
        if let Some(share) = share.filter(|share| !(*share > 0.0 && *share < 1.0)) {
            let message = format!("the share is {share}; it must be between 0 and 1, such as 0.5");
            return Err(self.error(&format!("{place}.share"), message));
        }
        Ok(())
    }

    /// Fails where no defense uses the comparison's teacher.
    pub(super) fn check_teacher_used(&self, used: bool) -> Checked<()> {
        match &self.block.teacher {
            Some(_) if !used => Err(self.error(
                TEACHER,
                "no defense uses this teacher: give a defense `treat`, or set `labeled: 1000` or so in `dataset`",
            )),
            _ => Ok(()),
        }
    }
}
