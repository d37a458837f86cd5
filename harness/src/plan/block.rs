//! One comparison of a matrix, resolved: every combination becomes a cell, every default is filled.

mod sweep;
mod teacher;

use std::collections::BTreeMap;

use attacks::{Attack, Configured, Family, ParseError, Pixels, Registry, Setting, Threat};
use defenses::Defense;
use serde_json::{Map, Value, json};

use self::sweep::numbers;
use super::{
    Digests, Evaluation, Methods, Plan, Schooling, Select, Source, Training, attack_label, defense_label, slug,
};
use crate::key::key_of;
use crate::matrix::{
    Block, Checkpoint, DatasetEntry, Matrix, MatrixError, SelectionSplit, Sources, Transfer, from_value,
};
use crate::recipe::{marks, resolve_recipe};
use crate::suggest::nearest;

/// Raised whenever the training loop starts to give other numbers for the same configuration.
const TRAINING_VERSION: u32 = 2;
/// Raised whenever an evaluation starts to give other numbers for the same configuration.
const EVALUATION_VERSION: u32 = 2;

pub(super) struct BlockResolver<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) methods: &'a Methods,
    pub(super) index: usize,
    pub(super) block: &'a Block,
    pub(super) seeds: Vec<u64>,
}

/// A white-box or transferred attack with what the matrix says around it.
#[derive(Clone)]
struct Judge {
    attack: Configured<dyn Attack>,
    label: String,
    threat: Threat,
    dataset: DatasetEntry,
}

/// More evaluations of one block are a mistake.
const MOST_CELLS: usize = 1_000_000;

impl BlockResolver<'_> {
    pub(super) fn add_to(&self, plan: &mut Plan, digests: &mut Digests<'_>) -> anyhow::Result<()> {
        self.check_lists()?;
        let entry = self.dataset_entry()?;
        self.check_labeled(entry)?;
        let digest = digests(&self.block.dataset)?;
        let mut teacher_asked = false;
        for (n, network) in self.block.networks.iter().enumerate() {
            let setting = self.setting(entry, network, &format!("networks[{n}]"))?;
            let (attacks, transferred) = self.judges(&setting)?;
            for judge in attacks.iter().chain(&transferred) {
                digests(&judge.dataset)?;
            }
            let mut targets = Vec::new();
            for (i, listed) in self.block.defenses.iter().enumerate() {
                let field = format!("defenses[{i}]");
                for (defense, value) in self.swept(&field, listed, &setting)? {
                    let schooling = self.schooling(plan, &field, &defense, &setting, entry, &digest)?;
                    teacher_asked |= schooling.teacher.is_some() && !defense.contains_key(TEACHER);
                    for &seed in &self.seeds {
                        let training =
                            self.training(&field, (&defense, &value), &setting, seed, &digest, &schooling)?;
                        targets.push(plan.add_training(training));
                    }
                }
            }
            self.check_labels(plan, &targets)?;
            for &target in &targets {
                for &checkpoint in &self.block.checkpoints {
                    for judge in &attacks {
                        self.add(plan, self.evaluation(plan, target, checkpoint, judge, None))?;
                    }
                }
            }
            if let Some(transfer) = &self.block.transfer {
                for target in targets.clone() {
                    for source in self.sources(plan, transfer, &targets, target, &setting, entry, &digest)? {
                        for judge in &transferred {
                            let (checkpoint, source) = source.clone();
                            self.add(plan, self.evaluation(plan, target, checkpoint, judge, Some(source)))?;
                        }
                    }
                }
            }
        }
        Ok(self.check_asked(teacher_asked)?)
    }

    /// The networks on which images for a target are made, each with the target's checkpoint that is judged.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different thing, and one caller does not make a struct"
    )]
    fn sources(
        &self,
        plan: &mut Plan,
        transfer: &Transfer,
        targets: &[usize],
        target: usize,
        setting: &Setting,
        entry: &datasets::Entry,
        digest: &str,
    ) -> Result<Vec<(Checkpoint, Source)>, MatrixError> {
        let named = |plan: &Plan, training: usize, checkpoint| {
            let it = &plan.trainings[training];
            Source {
                checkpoint,
                label: format!("{} / {}", it.label, it.network),
                training,
            }
        };
        let checkpoints = &self.block.checkpoints;
        match (&transfer.source, transfer.sources) {
            (Some(from), None) => {
                let setting = match &from.network {
                    Some(network) => self.setting(entry, network, "transfer.source.network")?,
                    None => setting.clone(),
                };
                let field = "transfer.source.defense";
                let schooling = self.schooling(plan, field, &from.defense, &setting, entry, digest)?;
                let training = self.training(field, (&from.defense, ""), &setting, from.seed, digest, &schooling)?;
                let training = plan.add_training(training);
                if targets.contains(&training) {
                    let message = "the source is one of the targets itself; give it another `seed`";
                    return Err(self.error("transfer.source", message));
                }
                self.check_has_best("transfer.source.checkpoint", from.checkpoint)?;
                let source = named(plan, training, from.checkpoint);
                Ok(checkpoints.iter().map(|&it| (it, source.clone())).collect())
            }
            (None, Some(Sources::Defenses)) => {
                let seed = plan.trainings[target].seed;
                let same_seed = targets.iter().filter(|&&it| plan.trainings[it].seed == seed);
                let pairs = same_seed.flat_map(|&source| checkpoints.iter().map(move |&it| (it, source)));
                Ok(pairs.map(|(it, source)| (it, named(plan, source, it))).collect())
            }
            (Some(_), Some(_)) => Err(self.error("transfer", "write `source` or `sources`, not both")),
            (None, None) => {
                let message =
                    "missing field `source`, one network, or `sources: defenses`, every defense of the matrix";
                Err(self.error("transfer", message))
            }
        }
    }

    fn error(&self, field: &str, message: impl Into<String>) -> MatrixError {
        self.matrix.error(self.index, field, message)
    }

    fn check_lists(&self) -> Result<(), MatrixError> {
        let block = self.block;
        let lists = [
            ("networks", block.networks.is_empty()),
            ("seeds", self.seeds.is_empty()),
            ("defenses", block.defenses.is_empty()),
            ("checkpoints", block.checkpoints.is_empty()),
            (
                "transfer.attacks",
                block.transfer.as_ref().is_some_and(|it| it.attacks.is_empty()),
            ),
        ];
        if let Some((field, _)) = lists.into_iter().find(|(_, empty)| *empty) {
            return Err(self.error(field, "an empty list: nothing would run"));
        }
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        if let Some(twice) = seeds.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.error(
                "seeds",
                format!("seed {} is there twice; it would count as two runs", twice[0]),
            ));
        }
        // A file of some kilobytes can name more cells than memory holds.
        let transferred = block.transfer.as_ref().map_or(0, |it| it.attacks.len());
        let attacks = 1 + block.attacks.len() + transferred;
        let values = |entry: &Map<String, Value>| entry.values().filter_map(numbers).map(Vec::len).max();
        let defenses = block.defenses.iter().map(|entry| values(entry).unwrap_or(1));
        let lists = [
            block.networks.len(),
            self.seeds.len(),
            defenses.sum(),
            block.checkpoints.len(),
            attacks,
        ];
        let cells = lists.into_iter().fold(1, usize::saturating_mul);
        if cells > MOST_CELLS {
            return Err(self.error(
                "defenses",
                format!("{cells} evaluations in one comparison; more than {MOST_CELLS} need several matrices"),
            ));
        }
        for &checkpoint in &block.checkpoints {
            self.check_has_best("checkpoints", checkpoint)?;
        }
        if block.selection.every == 0 {
            return Err(self.error("selection.every", "must be at least 1 epoch"));
        }
        block
            .threat
            .check()
            .map_err(|invalid| self.error(&format!("threat.{}", invalid.field), invalid.message))
    }

    fn check_has_best(&self, field: &str, checkpoint: Checkpoint) -> Result<(), MatrixError> {
        let nothing = self.block.dataset.validation == 0 && self.block.selection.split == SelectionSplit::Validation;
        match checkpoint == Checkpoint::Best && nothing {
            false => Ok(()),
            true => Err(self.error(
                field,
                "choosing the best checkpoint takes held-out examples; set `validation: 1000` or so in `dataset`, \
                 or evaluate `checkpoints: [last]`",
            )),
        }
    }

    fn dataset_entry(&self) -> Result<&'static datasets::Entry, MatrixError> {
        let name = &self.block.dataset.name;
        datasets::entry(name).map_err(|error| self.error("dataset.name", error.to_string()))
    }

    fn setting(&self, entry: &datasets::Entry, network: &str, field: &str) -> Result<Setting, MatrixError> {
        let found = self
            .methods
            .networks
            .find_for(network, entry.image, entry.classes.len());
        found.map_err(|error| self.error(field, error.to_string()))?;
        Ok(Setting {
            family: match entry.family {
                datasets::Family::Mnist => Family::Mnist,
                datasets::Family::Cifar => Family::Cifar,
            },
            threat: self.block.threat,
            network: network.to_string(),
            image: entry.image,
            classes: entry.classes.len(),
        })
    }

    /// The white-box attacks, clean images first, and the transferred ones.
    fn judges(&self, setting: &Setting) -> Result<(Vec<Judge>, Vec<Judge>), MatrixError> {
        let natural = self
            .methods
            .attacks
            .parse("natural", json!({}), setting)
            .expect("a built-in attack");
        let mut white_box = vec![Judge {
            attack: natural,
            label: "Natural".into(),
            threat: setting.threat,
            dataset: self.block.dataset.clone(),
        }];
        for (i, entry) in self.block.attacks.iter().enumerate() {
            white_box.extend(self.judge(&format!("attacks[{i}]"), entry, setting)?);
        }
        let mut transferred = Vec::new();
        for (i, entry) in self.block.transfer.iter().flat_map(|it| &it.attacks).enumerate() {
            transferred.extend(self.judge(&format!("transfer.attacks[{i}]"), entry, setting)?);
        }
        for (list, judges) in [("attacks", &white_box), ("transfer.attacks", &transferred)] {
            for (i, judge) in judges.iter().enumerate() {
                if judges[..i].iter().any(|other| other.label == judge.label) {
                    let message = format!("two attacks are called `{}`; give one another `label`", judge.label);
                    return Err(self.error(list, message));
                }
            }
        }
        Ok((white_box, transferred))
    }

    /// An attack, at each of its radii.
    fn judge(&self, field: &str, entry: &Map<String, Value>, setting: &Setting) -> Result<Vec<Judge>, MatrixError> {
        let mut entry = entry.clone();
        let many = entry.get("epsilon").is_some_and(Value::is_array);
        let radii = match many {
            true => self.take::<Vec<Pixels>>(field, &mut entry, "epsilon")?,
            false => self.take(field, &mut entry, "epsilon")?.map(|radius| vec![radius]),
        };
        let radii = radii.unwrap_or_else(|| vec![setting.threat.epsilon]);
        if radii.is_empty() {
            return Err(self.error(&format!("{field}.epsilon"), "an empty list: nothing would run"));
        }
        let label = self.take::<String>(field, &mut entry, "label")?;
        let dataset = self.cut(field, &mut entry)?;
        let mut judges = Vec::new();
        for epsilon in radii {
            let threat = Threat {
                epsilon,
                ..setting.threat
            };
            threat
                .check()
                .map_err(|invalid| self.error(&format!("{field}.epsilon"), invalid.message))?;
            let setting = Setting {
                threat,
                ..setting.clone()
            };
            let attack = self.method(field, entry.clone(), &self.methods.attacks, &setting, ATTACK_KEYS)?;
            let mut label = label.clone().unwrap_or_else(|| attack_label(&attack));
            if many {
                label += &format!(" @ {epsilon}");
            }
            judges.push(Judge {
                attack,
                label,
                threat,
                dataset: dataset.clone(),
            });
        }
        Ok(judges)
    }

    /// The block's cut of its data set, with an attack's own `limit`.
    fn cut(&self, field: &str, entry: &mut Map<String, Value>) -> Result<DatasetEntry, MatrixError> {
        let mut dataset = self.block.dataset.clone();
        match self.take::<usize>(field, entry, "limit")? {
            Some(0) => return Err(self.error(&format!("{field}.limit"), "0 images: nothing would run")),
            Some(limit) => dataset.limit.test = Some(dataset.limit.test.map_or(limit, |most| most.min(limit))),
            None => {}
        }
        Ok(dataset)
    }

    fn training(
        &self,
        field: &str,
        (entry, value): (&Map<String, Value>, &str),
        setting: &Setting,
        seed: u64,
        digest: &str,
        schooling: &Schooling,
    ) -> Result<Training, MatrixError> {
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
        .map_err(|problem| match problem.in_own {
            true => self.error(&format!("{field}.recipe.{}", problem.field), problem.message),
            false => self.error(&format!("recipe.{}", problem.field), problem.message),
        })?;
        // As the field writes it: TRADES-AWP.
        let usual = || {
            let name = defense_label(defense.name);
            let name = [&[name.as_str()], &marks(&recipe)[..]].concat();
            let more = match schooling.unlabeled {
                Some(_) => " + unlabeled",
                None => "",
            };
            name.join("-") + more
        };
        let label = label.unwrap_or_else(usual) + value;
        self.check_share(&entry, field, schooling, recipe.batch)?;
        let selection = self.selection(setting)?;
        let networks = &self.methods.networks;
        let architecture = networks.find_for(&setting.network, setting.image, setting.classes);
        let architecture = architecture.expect("a checked network");
        let dataset = self.block.dataset.clone();
        let slug = format!("{}-{}-{}-s{seed}", dataset.name, setting.network, slug(&label));
        let mut config = json!({
            "cell": "training",
            "code": TRAINING_VERSION,
            "dataset": { "digest": digest, "limit": dataset.limit.train, "validation": dataset.validation },
            "threat": setting.threat,
            "network": { "name": setting.network, "version": architecture.version() },
            "defense": { "name": defense.name, "version": defense.version, "config": defense.config },
            "recipe": recipe,
            "selection": {
                "split": selection.split,
                "attack": { "name": selection.attack.name, "version": selection.attack.version,
                            "config": selection.attack.config },
                "every": selection.every,
                "test": selection.split.filter(|it| *it == SelectionSplit::Test).and(dataset.limit.test),
            },
            "seed": seed,
        });
        schooling.add_to_key(&dataset, &mut config);
        let key = key_of(&config);
        let network = setting.network.clone();
        let setting = setting.clone();
        Ok(Training {
            key,
            slug,
            dataset,
            setting,
            network,
            architecture,
            defense,
            label,
            recipe,
            recipe_label,
            selection,
            seed,
            schooling: schooling.clone(),
        })
    }

    /// The defense of an entry, whatever the harness itself reads there.
    fn defense(
        &self,
        field: &str,
        entry: &Map<String, Value>,
        setting: &Setting,
    ) -> Result<Configured<dyn Defense>, MatrixError> {
        let mut entry = entry.clone();
        for key in DEFENSE_KEYS.iter().filter(|key| **key != "name") {
            entry.remove(*key);
        }
        self.method(field, entry, &self.methods.defenses, setting, DEFENSE_KEYS)
    }

    fn selection(&self, setting: &Setting) -> Result<Select, MatrixError> {
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
        Ok(Select {
            split,
            attack,
            every: selection.every,
        })
    }

    fn evaluation(
        &self,
        plan: &Plan,
        target: usize,
        checkpoint: Checkpoint,
        judge: &Judge,
        source: Option<Source>,
    ) -> Evaluation {
        let training = &plan.trainings[target];
        let through = source
            .as_ref()
            .map_or_else(String::new, |it| format!("-via-{}", slug(&it.label)));
        let slug = format!("{}-{checkpoint}-{}{through}", training.slug, slug(&judge.label));
        let key = key_of(&json!({
            "cell": "evaluation",
            "code": EVALUATION_VERSION,
            "target": { "training": training.key, "checkpoint": checkpoint },
            "source": source.as_ref().map(|it| json!({
                "training": plan.trainings[it.training].key, "checkpoint": it.checkpoint,
            })),
            "attack": { "name": judge.attack.name, "version": judge.attack.version, "config": judge.attack.config },
            "threat": judge.threat,
            "test": judge.dataset.limit.test,
        }));
        let Judge {
            attack,
            label,
            threat,
            dataset,
        } = judge.clone();
        Evaluation {
            key,
            slug,
            target,
            dataset,
            checkpoint,
            attack,
            label,
            threat,
            source,
        }
    }

    fn add(&self, plan: &mut Plan, evaluation: Evaluation) -> Result<(), MatrixError> {
        let (label, slug) = (evaluation.label.clone(), plan.target(&evaluation).slug.clone());
        match plan.add_evaluation(evaluation) {
            true => Ok(()),
            false => {
                let message = format!(
                    "another comparison judges the same training ({slug}) by a `{label}` of its own, on other images or \
                     with other fields; give the attack another `label`, or cut its images by its own `limit`"
                );
                Err(self.error("attacks", message))
            }
        }
    }

    /// Removes a key that the harness reads from a method's entry.
    fn take<T: serde::de::DeserializeOwned>(
        &self,
        field: &str,
        entry: &mut Map<String, Value>,
        key: &str,
    ) -> Result<Option<T>, MatrixError> {
        let parse = |value| from_value(value).map_err(|(_, message)| self.error(&format!("{field}.{key}"), message));
        entry.remove(key).map(parse).transpose()
    }

    fn method<T: ?Sized + 'static>(
        &self,
        field: &str,
        mut entry: Map<String, Value>,
        registry: &Registry<T>,
        setting: &Setting,
        harness_keys: &[&str],
    ) -> Result<Configured<T>, MatrixError> {
        let name: Option<String> = self.take(field, &mut entry, "name")?;
        let name = name.ok_or_else(|| self.error(field, "missing field `name`"))?;
        registry
            .parse(&name, Value::Object(entry), setting)
            .map_err(|error| match error {
                ParseError::UnknownName { .. } => {
                    let place = format!("{field}.name");
                    self.error(&place, error.to_string())
                }
                ParseError::Field { field: inner, message } => {
                    let place = if inner.is_empty() {
                        field.to_string()
                    } else {
                        format!("{field}.{inner}")
                    };
                    self.error(&place, hint_harness_key(message, harness_keys))
                }
            })
    }

    fn check_labels(&self, plan: &Plan, targets: &[usize]) -> Result<(), MatrixError> {
        let mut seen = BTreeMap::new();
        for &target in targets {
            let Training { label, seed, key, .. } = &plan.trainings[target];
            if seen.insert((label, seed), key).is_some_and(|other| other != key) {
                let message = format!("two defenses are called `{label}`; give one another `label`");
                return Err(self.error("defenses", message));
            }
        }
        Ok(())
    }
}

/// Keys of an entry that the harness itself reads.
const METHOD_KEYS: &[&str] = &["name"];
const ATTACK_KEYS: &[&str] = &["name", "label", "epsilon", "limit"];
const DEFENSE_KEYS: &[&str] = &["name", "label", "recipe", TEACHER, UNLABELED];
const TEACHER: &str = "teacher";
const UNLABELED: &str = "unlabeled";

/// Suggests a misspelt harness key where the method knows no such field.
fn hint_harness_key(message: String, keys: &[&str]) -> String {
    let unknown = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split('`').next());
    match unknown.and_then(|word| nearest(word, keys.iter().copied())) {
        Some(key) => format!("{message}; did you mean `{key}`?"),
        None => message,
    }
}
