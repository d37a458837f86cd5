//! What a matrix comes to: training cells and evaluation cells, every default filled, each with its
//! key. Training and evaluation accept nothing else.

mod block;

use std::collections::HashMap;

use attacks::{Attack, Configured, Registry, Setting, Threat};
use defenses::{Defense, Recipe};
use models::{Architecture, Networks};

use self::block::BlockResolver;
use crate::matrix::{Checkpoint, DatasetEntry, Matrix, MatrixError, SelectionSplit, TableEntry, Unlabeled};

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

/// All cells of a matrix. Evaluations refer to trainings by index, trainings to earlier ones.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) trainings: Vec<Training>,
    pub(crate) evaluations: Vec<Evaluation>,
    pub(crate) tables: Vec<TableEntry>,
    /// Index of every training and evaluation by its key.
    known: HashMap<String, usize>,
    /// Key of the evaluation that stands in each place of the tables.
    shown: HashMap<Place, String>,
}

/// What tables tell evaluations apart by: target, checkpoint, label, and source with its checkpoint.
type Place = (usize, Checkpoint, String, Option<(usize, Checkpoint)>);

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
    pub(crate) schooling: Schooling,
}

/// What a training learns from another network. Empty for most.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schooling {
    pub(crate) teacher: Option<Teacher>,
    /// What the examples without labels count. `None`: they take no part.
    pub(crate) unlabeled: Option<Unlabeled>,
}

/// A trained network that is asked about the training examples.
#[derive(Debug, Clone)]
pub(crate) struct Teacher {
    /// Index of its training.
    pub(crate) training: usize,
    /// The key of that.
    pub(crate) key: String,
    pub(crate) checkpoint: Checkpoint,
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
    /// The cut of the data set whose test images it is judged on. Trainings do not depend on that part of a cut, so
    /// the target's own may be another.
    pub(crate) dataset: DatasetEntry,
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
            known: HashMap::new(),
            shown: HashMap::new(),
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
        plan.check_worst(matrix)?;
        crate::look::check(&plan, matrix)?;
        Ok(plan)
    }

    /// Fails where a table wants the worst case over an attack that the matrix does not have.
    fn check_worst(&self, matrix: &Matrix) -> Result<(), MatrixError> {
        for (i, table) in matrix.tables.iter().enumerate() {
            let path = crate::yaml::Path::default().key("tables").index(i).key("worst_of");
            for names in &table.worst_of {
                let known = |name: &str| {
                    let mut evaluations = self.evaluations.iter();
                    evaluations.any(|it| results::is_called(crate::tables::kind(it), &it.label, name))
                };
                if names.is_empty() {
                    return Err(matrix
                        .source
                        .error(&path, "an empty list: there is no worst case of nothing"));
                }
                if let Some(unknown) = names.iter().find(|name| !known(name)) {
                    let message = format!(
                        "no attack of this matrix is called `{unknown}`; write a label as tables show it, such as `PGD-20`, \
                         or `transfer/PGD-20`"
                    );
                    return Err(matrix.source.error(&path, message));
                }
            }
        }
        Ok(())
    }

    /// The training whose network an evaluation judges.
    pub(crate) fn target(&self, evaluation: &Evaluation) -> &Training {
        &self.trainings[evaluation.target]
    }

    fn add_training(&mut self, training: Training) -> usize {
        if let Some(known) = self.known.get(&training.key) {
            return *known;
        }
        self.known.insert(training.key.clone(), self.trainings.len());
        self.trainings.push(training);
        self.trainings.len() - 1
    }

    /// `false`: another evaluation has its place in the tables.
    fn add_evaluation(&mut self, evaluation: Evaluation) -> bool {
        let source = evaluation.source.as_ref().map(|it| (it.training, it.checkpoint));
        let place = (
            evaluation.target,
            evaluation.checkpoint,
            evaluation.label.clone(),
            source,
        );
        let key = self.shown.entry(place).or_insert_with(|| evaluation.key.clone());
        let alone = *key == evaluation.key;
        if alone && !self.known.contains_key(&evaluation.key) {
            self.known.insert(evaluation.key.clone(), self.evaluations.len());
            self.evaluations.push(evaluation);
        }
        alone
    }
}

/// How tables name an attack: `FGSM`, `PGD-20`.
pub(crate) fn attack_label(attack: &Configured<dyn Attack>) -> String {
    let upper = attack.name.to_uppercase();
    match (attack.name, attack.method.describe().steps) {
        ("pgd", Some(steps)) => format!("{upper}-{steps}"),
        ("auto-attack", _) => "AutoAttack".into(),
        ("square", _) => "Square".into(),
        _ => upper,
    }
}

/// How tables name a defense: `TRADES`, `Standard`.
pub(crate) fn defense_label(name: &str) -> String {
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
