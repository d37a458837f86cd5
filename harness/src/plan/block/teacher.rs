//! Which defenses of a comparison have a teacher, and what they learn from it.

use attacks::Setting;
use defenses::Group;
use serde_json::{Map, Value, json};

use super::{BlockResolver, TEACHER, UNLABELED};
use crate::matrix::{DatasetEntry, MatrixError, OtherNetwork, Unlabeled};
use crate::plan::{Plan, Schooling, Teacher};

/// In a defense's entry, in place of a teacher: it has none.
const NONE: &str = "none";
const ALL_LABELED: &str = "every example has its label; set `labeled: 1000` or so in `dataset`, or name a file of \
                           `extra` images there";

impl Schooling {
    /// Adds what it decides to a training's configuration; a training that learns from nobody keeps the key it has.
    pub(super) fn add_to_key(&self, dataset: &DatasetEntry, config: &mut Value) {
        if let Some(labeled) = dataset.labeled {
            config["dataset"]["labeled"] = json!(labeled);
        }
        if let Some(teacher) = &self.teacher {
            config[TEACHER] = json!({ "training": teacher.key, "checkpoint": teacher.checkpoint });
        }
        if let Some(unlabeled) = &self.unlabeled {
            config[UNLABELED] = json!(unlabeled);
        }
    }
}

impl BlockResolver<'_> {
    /// Refuses a number of labels that leaves no example with one, or none without.
    pub(super) fn check_labeled(&self, entry: &datasets::Entry) -> Result<(), MatrixError> {
        let dataset = &self.block.dataset;
        if self.block.unlabeled.is_some() && !dataset.has_unlabeled() {
            return Err(self.error(UNLABELED, ALL_LABELED));
        }
        let Some(labeled) = dataset.labeled else { return Ok(()) };
        let all = dataset.limit.train.map_or(entry.train, |limit| limit.min(entry.train));
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

    /// What a defense learns from which teacher. The teacher's training comes into the plan.
    pub(super) fn schooling(
        &self,
        plan: &mut Plan,
        field: &str,
        defense: &Map<String, Value>,
        setting: &Setting,
        entry: &datasets::Entry,
        digest: &str,
    ) -> Result<Schooling, MatrixError> {
        let mut own = defense.clone();
        let treats = self.defense(field, defense, setting)?.method.treats();
        let hidden = self.block.dataset.has_unlabeled();
        let declined = own.get(TEACHER).is_some_and(|it| it == NONE);
        let own_teacher: Option<OtherNetwork> = match declined {
            true => None,
            false => self.take(field, &mut own, TEACHER)?,
        };
        let own_unlabeled: Option<Unlabeled> = self.take(field, &mut own, UNLABELED)?;
        self.check_unlabeled(field, own_unlabeled, declined)?;
        let inherited = self.block.teacher.as_ref().filter(|_| !declined);
        let (teacher, place) = match (&own_teacher, inherited) {
            (Some(own), _) => (own, format!("{field}.{TEACHER}")),
            (None, Some(inherited)) => (inherited, TEACHER.to_string()),
            (None, None) => {
                self.check_alone(field, treats, hidden && !declined)?;
                return Ok(Schooling::default());
            }
        };
        match treats {
            None if !hidden && own_teacher.is_some() => {
                let message = "this defense asks no teacher anything: all examples have their labels (`labeled` in \
                               `dataset`), and it treats none otherwise (`treat`)";
                return Err(self.error(&place, message));
            }
            None if !hidden => return Ok(Schooling::default()),
            Some(Group::Unlabeled) if !hidden => return Err(self.error(field, ALL_LABELED)),
            _ => {}
        }
        let teacher = self.teacher(plan, &place, teacher, setting, entry, digest)?;
        let unlabeled = own_unlabeled.or(self.block.unlabeled).unwrap_or_default();
        Ok(Schooling {
            teacher: Some(teacher),
            unlabeled: hidden.then_some(unlabeled),
        })
    }

    /// Adds a teacher's training to the plan.
    fn teacher(
        &self,
        plan: &mut Plan,
        place: &str,
        other: &OtherNetwork,
        setting: &Setting,
        entry: &datasets::Entry,
        digest: &str,
    ) -> Result<Teacher, MatrixError> {
        let setting = match &other.network {
            Some(network) => self.setting(entry, network, &format!("{place}.network"))?,
            None => setting.clone(),
        };
        self.check_has_best(&format!("{place}.checkpoint"), other.checkpoint)?;
        let field = format!("{place}.defense");
        let treats = self.defense(&field, &other.defense, &setting)?.method.treats();
        let taught = [TEACHER, UNLABELED]
            .into_iter()
            .find(|key| other.defense.contains_key(*key));
        if treats.is_some() || taught.is_some() {
            let field = taught.map_or(field.clone(), |key| format!("{field}.{key}"));
            return Err(self.error(
                &field,
                "a teacher has no teacher itself: it trains on labeled examples alone",
            ));
        }
        let schooling = Schooling::default();
        let training = self.training(&field, (&other.defense, ""), &setting, other.seed, digest, &schooling)?;
        let key = training.key.clone();
        Ok(Teacher {
            training: plan.add_training(training),
            key,
            checkpoint: other.checkpoint,
        })
    }

    /// Refuses a defense without a teacher that needs one. `hidden`: labels are, and it does not say that it takes the
    /// labeled examples alone.
    fn check_alone(&self, field: &str, treats: Option<Group>, hidden: bool) -> Result<(), MatrixError> {
        if treats.is_some() {
            let message = "this defense treats some examples otherwise, and a teacher must say which: name a \
                           `teacher`, such as `teacher: { defense: standard }`";
            return Err(self.error(field, message));
        }
        if !hidden {
            return Ok(());
        }
        let someone_has = self.block.defenses.iter().any(|it| it.contains_key(TEACHER));
        match someone_has {
            true => Err(self.error(
                field,
                "nobody gives the unlabeled examples labels for this defense: name a `teacher`, or write \
                 `teacher: none` to train on the labeled ones alone",
            )),
            false => Err(self.error(
                if self.block.dataset.labeled.is_some() {
                    "dataset.labeled"
                } else {
                    "dataset.extra"
                },
                "nobody gives the unlabeled examples labels: name a `teacher`, such as `teacher: { defense: natural }`",
            )),
        }
    }

    fn check_unlabeled(&self, field: &str, own: Option<Unlabeled>, declined: bool) -> Result<(), MatrixError> {
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
            let message = format!("the weight is {weight}; it must be above 0, and `teacher: none` does without them");
            return Err(self.error(&format!("{place}.weight"), message));
        }
        match share.filter(|share| !(*share > 0.0 && *share < 1.0)) {
            Some(share) => {
                let message = format!("the share is {share}; it must lie between 0 and 1, such as 0.5");
                Err(self.error(&format!("{place}.share"), message))
            }
            None => Ok(()),
        }
    }

    /// Refuses a share of a batch that comes to no example.
    pub(super) fn check_share(
        &self,
        entry: &Map<String, Value>,
        field: &str,
        schooling: &Schooling,
        batch: usize,
    ) -> Result<(), MatrixError> {
        let share = schooling.unlabeled.and_then(|it| it.share);
        match share.filter(|share| batch as f64 * share < 1.0) {
            None => Ok(()),
            Some(share) => {
                let place = match entry.contains_key(UNLABELED) {
                    true => format!("{field}.{UNLABELED}.share"),
                    false => format!("{UNLABELED}.share"),
                };
                let message = format!("a share of {share} of a batch of {batch} is less than one example");
                Err(self.error(&place, message))
            }
        }
    }

    /// Refuses a comparison's teacher that no defense asks.
    pub(super) fn check_asked(&self, asked: bool) -> Result<(), MatrixError> {
        match &self.block.teacher {
            Some(_) if !asked => Err(self.error(
                TEACHER,
                "no defense asks this teacher anything: give a defense `treat`, or set `labeled: 1000` or so in \
                 `dataset`",
            )),
            _ => Ok(()),
        }
    }
}
