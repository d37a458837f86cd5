//! One training cell: defense, recipe, selection and key.

use attacks::Setting;
use serde_json::{Map, Value, json};

use super::recipe::{RecipeProblem, marks, resolve_recipe};
use super::scope::{Checked, METHOD_KEYS, Noted, Scope, UNLABELED};
use crate::cell::{SelectionRule, Supervision, Training};
use crate::key::{CheckpointKey, DataKey, NetworkKey, SelectionKey, TrainingKey, key_of_text};
use crate::label::{defense_label, slug};
use crate::matrix::SelectionSplit;

impl Scope<'_> {
    /// A training cell of this defense. `value` is what a sweep adds to its label.
    pub(super) fn training(
        &self,
        field: &str,
        (entry, value): (&Map<String, Value>, &str),
        setting: &Setting,
        seed: u64,
        supervision: &Supervision,
    ) -> Checked<Training> {
        let mut entry = entry.clone();
        let label = self.take::<String>(field, &mut entry, "label")?;
        let own_recipe = entry.remove("recipe");
        let defense = self.defense(field, &entry, setting)?;
        let (recipe, recipe_label) = resolve_recipe(
            defense.method.as_ref(),
            setting,
            self.block.recipe.as_ref(),
            own_recipe.as_ref(),
        )
        .map_err(|problems| self.note_recipe(field, problems))?;
        // As the field writes it: TRADES-AWP.
        let usual = || {
            let name = defense_label(defense.name);
            let name = [&[name.as_str()], &marks(&recipe)[..]].concat();
            let more = match supervision.unlabeled {
                Some(_) => " + unlabeled",
                None => "",
            };
            name.join("-") + more
        };
        let label = label.unwrap_or_else(usual) + value;
        self.check_share(&entry, field, supervision, recipe.batch)?;
        let selection = self.selection(setting)?;
        let networks = &self.methods.networks;
        let architecture = networks.find_for(&setting.network, setting.image, setting.classes);
        let architecture = architecture.expect("a checked network");
        // The size of a batch is the same for every seed.
        if self.seeds.first() == Some(&seed) {
            self.check_batches(field, own_recipe.as_ref(), &recipe, &architecture, supervision)?;
        }
        let dataset = self.block.dataset.clone();
        let slug = format!("{}-{}-{}-s{seed}", dataset.name, setting.network, slug(&label));
        let mut training = Training {
            key: String::new(),
            config: String::new(),
            slug,
            dataset,
            network: setting.network.clone(),
            setting: setting.clone(),
            architecture,
            defense,
            label,
            recipe,
            recipe_label,
            selection,
            seed,
            supervision: supervision.clone(),
        };
        training.config = self.config(&training);
        training.key = key_of_text(&training.config);
        Ok(training)
    }

    /// The resolved configuration of a training that has all other fields.
    fn config(&self, training: &Training) -> String {
        let Training { dataset, selection, .. } = training;
        let teacher = training.supervision.teacher.as_ref();
        TrainingKey {
            dataset: DataKey {
                digest: self.digest,
                limit: dataset.limit.train,
                validation: dataset.validation,
                labeled: dataset.labeled,
            },
            threat: training.setting.threat,
            network: NetworkKey {
                name: &training.network,
                version: training.architecture.version(),
            },
            defense: (&training.defense).into(),
            recipe: &training.recipe,
            selection: SelectionKey {
                split: selection.split,
                attack: (&selection.attack).into(),
                every: selection.every,
                test: selection
                    .split
                    .filter(|split| *split == SelectionSplit::Test)
                    .and(dataset.limit.test),
            },
            seed: training.seed,
            teacher: teacher.map(|teacher| CheckpointKey {
                training: &teacher.key,
                checkpoint: teacher.checkpoint,
            }),
            unlabeled: training.supervision.unlabeled,
        }
        .text()
    }

    fn note_recipe(&self, field: &str, problems: Vec<RecipeProblem>) -> Noted {
        for problem in problems {
            let place = if problem.in_own {
                format!("{field}.recipe")
            } else {
                "recipe".to_string()
            };
            let place = if problem.field.is_empty() {
                place
            } else {
                format!("{place}.{}", problem.field)
            };
            self.error(&place, problem.message);
        }
        Noted
    }

    fn selection(&self, setting: &Setting) -> Checked<SelectionRule> {
        let selection = &self.block.selection;
        let attack = match &selection.attack {
            Some(entry) => self.method(
                "selection.attack",
                entry.clone(),
                &self.methods.attacks,
                setting,
                METHOD_KEYS,
            )?,
            None => {
                let steps = json!({ "steps": 10, "step_size": setting.threat.epsilon.times(1, 4) });
                self.methods
                    .attacks
                    .parse("pgd", steps, setting)
                    .expect("a built-in attack")
            }
        };
        let split = match selection.split {
            SelectionSplit::Validation if self.block.dataset.validation == 0 => None,
            split => Some(split),
        };
        Ok(SelectionRule {
            split,
            attack,
            every: selection.every,
        })
    }

    /// Refuses a share of a batch that rounds down to zero examples.
    fn check_share(
        &self,
        entry: &Map<String, Value>,
        field: &str,
        supervision: &Supervision,
        batch: usize,
    ) -> Checked<()> {
        let share = supervision.unlabeled.and_then(|unlabeled| unlabeled.share);
        let Some(share) = share.filter(|share| batch as f64 * share < 1.0) else {
            return Ok(());
        };
        let place = if entry.contains_key(UNLABELED) {
            format!("{field}.{UNLABELED}.share")
        } else {
            format!("{UNLABELED}.share")
        };
        let message = format!("a share of {share} of a batch of {batch} is less than one example");
        Err(self.error(&place, message))
    }
}
