//! What a matrix comes to: training cells and evaluation cells, every default filled, each with its
//! key. Training and evaluation accept nothing else.

use std::collections::BTreeMap;

use attacks::{Attack, Configured, Family, ParseError, Pixels, Registry, Setting, Threat};
use defenses::{Defense, Recipe};
use models::{Architecture, Networks};
use serde_json::{Map, Value, json};

use crate::key::key_of;
use crate::matrix::{Block, Checkpoint, DatasetEntry, Matrix, MatrixError, SelectionSplit, TableEntry, from_value};
use crate::recipe::resolve_recipe;
use crate::suggest::nearest;

/// Raised whenever the training loop starts to give other numbers for the same configuration.
const TRAINING_VERSION: u32 = 1;
/// Raised whenever an evaluation starts to give other numbers for the same configuration.
const EVALUATION_VERSION: u32 = 1;

/// The methods a matrix can name.
#[derive(Debug)]
pub(crate) struct Methods {
    /// Attacks by name.
    pub(crate) attacks: Registry<dyn Attack>,
    /// Defenses by name.
    pub(crate) defenses: Registry<dyn Defense>,
    /// Networks by name.
    pub(crate) networks: Networks,
}

impl Methods {
    /// The methods that come with the program.
    pub(crate) fn builtin() -> Self {
        Self {
            attacks: attacks::builtin(),
            defenses: defenses::builtin(),
            networks: Networks::builtin(),
        }
    }
}

/// All cells of a matrix. Evaluations refer to trainings by index.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) trainings: Vec<Training>,
    pub(crate) evaluations: Vec<Evaluation>,
    pub(crate) tables: Vec<TableEntry>,
}

/// One network to train.
#[derive(Debug, Clone)]
pub(crate) struct Training {
    /// Hash of everything below that decides a number.
    pub(crate) key: String,
    /// Readable name, part of the folder's.
    pub(crate) slug: String,
    pub(crate) dataset: DatasetEntry,
    pub(crate) setting: Setting,
    pub(crate) network: String,
    /// The same, to be built.
    pub(crate) architecture: Architecture,
    pub(crate) defense: Configured<dyn Defense>,
    /// How tables name the defense.
    pub(crate) label: String,
    pub(crate) recipe: Recipe,
    pub(crate) recipe_label: String,
    pub(crate) selection: Select,
    pub(crate) seed: u64,
}

/// How the best checkpoint is chosen.
#[derive(Debug, Clone)]
pub(crate) struct Select {
    /// `None`: there is nothing to choose on, so there is no best checkpoint.
    pub(crate) split: Option<SelectionSplit>,
    pub(crate) attack: Configured<dyn Attack>,
    pub(crate) every: u64,
}

/// One checkpoint under one attack.
#[derive(Debug, Clone)]
pub(crate) struct Evaluation {
    /// Hash of everything below that decides a number, and of the training.
    pub(crate) key: String,
    /// Readable name, part of the folder's.
    pub(crate) slug: String,
    /// Index of the training whose network is judged.
    pub(crate) target: usize,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) attack: Configured<dyn Attack>,
    /// How tables name the attack.
    pub(crate) label: String,
    pub(crate) threat: Threat,
    /// The training and checkpoint on which the images are made, if not the target's own.
    pub(crate) source: Option<Source>,
}

/// Where transferred images are made.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Index of the training.
    pub(crate) training: usize,
    pub(crate) checkpoint: Checkpoint,
    /// How tables name it, such as `Natural / resnet18`.
    pub(crate) label: String,
}

/// The key of a data set's content; reading it may take a moment.
pub(crate) type Digests<'a> = dyn FnMut(&DatasetEntry) -> anyhow::Result<String> + 'a;

impl Plan {
    /// Resolves a matrix. `seed` stands for the seeds of every block, if given.
    pub(crate) fn resolve(
        matrix: &Matrix,
        methods: &Methods,
        seed: Option<u64>,
        digests: &mut Digests<'_>,
    ) -> anyhow::Result<Self> {
        let mut plan = Self {
            name: matrix.name.clone(),
            trainings: Vec::new(),
            evaluations: Vec::new(),
            tables: matrix.tables.clone(),
        };
        for (index, block) in matrix.blocks.iter().enumerate() {
            let seeds = seed.map_or_else(|| block.seeds.clone(), |seed| vec![seed]);
            BlockResolver {
                matrix,
                methods,
                index,
                block,
                seeds,
            }
            .add_to(&mut plan, digests)?;
        }
        for (i, table) in matrix.tables.iter().enumerate() {
            let chosen = |names: &Option<Vec<String>>, name: &String| names.as_ref().is_none_or(|it| it.contains(name));
            let covers = |training: &Training| {
                chosen(&table.networks, &training.network) && chosen(&table.datasets, &training.dataset.name)
            };
            if !plan.trainings.iter().any(covers) {
                let path = crate::yaml::Path::default().key("tables").index(i);
                let message = "no network of this matrix belongs to this table; look at its `networks` and `datasets`";
                return Err(matrix.source.error(&path, message).into());
            }
        }
        Ok(plan)
    }

    /// The training whose network an evaluation judges.
    pub(crate) fn target(&self, evaluation: &Evaluation) -> &Training {
        &self.trainings[evaluation.target]
    }

    fn add_training(&mut self, training: Training) -> usize {
        match self.trainings.iter().position(|it| it.key == training.key) {
            Some(known) => known,
            None => {
                self.trainings.push(training);
                self.trainings.len() - 1
            }
        }
    }

    fn add_evaluation(&mut self, evaluation: Evaluation) {
        if !self.evaluations.iter().any(|it| it.key == evaluation.key) {
            self.evaluations.push(evaluation);
        }
    }
}

struct BlockResolver<'a> {
    matrix: &'a Matrix,
    methods: &'a Methods,
    index: usize,
    block: &'a Block,
    seeds: Vec<u64>,
}

/// A white-box or transferred attack with what the matrix says around it.
#[derive(Clone)]
struct Judge {
    attack: Configured<dyn Attack>,
    label: String,
    threat: Threat,
}

impl BlockResolver<'_> {
    fn add_to(&self, plan: &mut Plan, digests: &mut Digests<'_>) -> anyhow::Result<()> {
        self.check_lists()?;
        let entry = self.dataset_entry()?;
        let digest = digests(&self.block.dataset)?;
        for network in &self.block.networks {
            let setting = self.setting(entry, network)?;
            let (attacks, transferred) = self.judges(&setting)?;
            let source_network = self.block.transfer.as_ref().and_then(|it| it.source.network.as_ref());
            let source_setting = match source_network {
                Some(network) => self.setting(entry, network)?,
                None => setting.clone(),
            };
            let mut targets = Vec::new();
            for (i, defense) in self.block.defenses.iter().enumerate() {
                for &seed in &self.seeds {
                    let training = self.training(&format!("defenses[{i}]"), defense, &setting, seed, &digest)?;
                    targets.push(plan.add_training(training));
                }
            }
            self.check_labels(plan, &targets)?;
            for &target in &targets {
                for &checkpoint in &self.block.checkpoints {
                    for judge in &attacks {
                        plan.add_evaluation(self.evaluation(plan, target, checkpoint, judge, None));
                    }
                }
            }
            let Some(transfer) = &self.block.transfer else { continue };
            let field = "transfer.source.defense";
            let training = self.training(
                field,
                &transfer.source.defense,
                &source_setting,
                transfer.source.seed,
                &digest,
            )?;
            let source = Source {
                checkpoint: transfer.source.checkpoint,
                label: format!("{} / {}", training.label, training.network),
                training: plan.add_training(training),
            };
            if targets.contains(&source.training) {
                let message = "the source is one of the targets itself; give it another `seed`";
                return Err(self.error("transfer.source", message).into());
            }
            self.check_has_best("transfer.source.checkpoint", source.checkpoint)?;
            for &target in &targets {
                for &checkpoint in &self.block.checkpoints {
                    for judge in &transferred {
                        plan.add_evaluation(self.evaluation(plan, target, checkpoint, judge, Some(source.clone())));
                    }
                }
            }
        }
        Ok(())
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

    fn setting(&self, entry: &datasets::Entry, network: &str) -> Result<Setting, MatrixError> {
        let field = || {
            let place = self.block.networks.iter().position(|it| it == network);
            place.map_or_else(|| "transfer.source.network".to_string(), |i| format!("networks[{i}]"))
        };
        let found = self
            .methods
            .networks
            .find_for(network, entry.image, entry.classes.len());
        found.map_err(|error| self.error(&field(), error.to_string()))?;
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
        }];
        for (i, entry) in self.block.attacks.iter().enumerate() {
            white_box.push(self.judge(&format!("attacks[{i}]"), entry, setting)?);
        }
        let mut transferred = Vec::new();
        for (i, entry) in self.block.transfer.iter().flat_map(|it| &it.attacks).enumerate() {
            transferred.push(self.judge(&format!("transfer.attacks[{i}]"), entry, setting)?);
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

    fn judge(&self, field: &str, entry: &Map<String, Value>, setting: &Setting) -> Result<Judge, MatrixError> {
        let mut entry = entry.clone();
        let mut threat = setting.threat;
        if let Some(epsilon) = self.take::<Pixels>(field, &mut entry, "epsilon")? {
            threat.epsilon = epsilon;
            threat
                .check()
                .map_err(|invalid| self.error(&format!("{field}.epsilon"), invalid.message))?;
        }
        let label = self.take::<String>(field, &mut entry, "label")?;
        let setting = Setting {
            threat,
            ..setting.clone()
        };
        let attack = self.method(field, entry, &self.methods.attacks, &setting, ATTACK_KEYS)?;
        let label = label.unwrap_or_else(|| attack_label(&attack));
        Ok(Judge { attack, label, threat })
    }

    fn training(
        &self,
        field: &str,
        entry: &Map<String, Value>,
        setting: &Setting,
        seed: u64,
        digest: &str,
    ) -> Result<Training, MatrixError> {
        let mut entry = entry.clone();
        let label = self.take::<String>(field, &mut entry, "label")?;
        let own_recipe = entry.remove("recipe");
        let defense = self.method(field, entry, &self.methods.defenses, setting, DEFENSE_KEYS)?;
        let label = label.unwrap_or_else(|| defense_label(defense.name));
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
        let selection = self.selection(setting)?;
        let networks = &self.methods.networks;
        let architecture = networks.find_for(&setting.network, setting.image, setting.classes);
        let architecture = architecture.expect("a checked network");
        let dataset = self.block.dataset.clone();
        let slug = format!("{}-{}-{}-s{seed}", dataset.name, setting.network, slug(&label));
        let key = key_of(&json!({
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
        }));
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
        })
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
            "test": training.dataset.limit.test,
        }));
        let Judge { attack, label, threat } = judge.clone();
        Evaluation {
            key,
            slug,
            target,
            checkpoint,
            attack,
            label,
            threat,
            source,
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
const ATTACK_KEYS: &[&str] = &["name", "label", "epsilon"];
const DEFENSE_KEYS: &[&str] = &["name", "label", "recipe"];

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

/// How tables name an attack: `FGSM`, `PGD-20`.
pub(crate) fn attack_label(attack: &Configured<dyn Attack>) -> String {
    let name = attack.name.to_uppercase();
    match attack.method.describe().steps {
        Some(steps) if attack.name == "pgd" => format!("{name}-{steps}"),
        _ => name,
    }
}

/// How tables name a defense: `TRADES`, `Standard`.
fn defense_label(name: &str) -> String {
    const ACRONYMS: &[&str] = &["alp", "clp", "trades", "mma", "mart"];
    match name.split_at_checked(1) {
        _ if ACRONYMS.contains(&name) => name.to_uppercase(),
        Some((first, rest)) => first.to_uppercase() + rest,
        None => String::new(),
    }
}

/// Lower-case letters, digits and single dashes: safe in any file system.
pub(crate) fn slug(label: &str) -> String {
    let lower = label.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_fields_own() {
        assert_eq!(defense_label("mart"), "MART");
        assert_eq!(defense_label("standard"), "Standard");
        assert_eq!(slug("CW∞ (κ = 50)"), "cw-50");
    }
}
