//! Attacks a network from a file, and builds rows and examples as a run does.

use anyhow::Result;
use attacks::Setting;
use candle_core::{Device, Tensor};
use models::Classifier;
use plan::Methods;
use plan::{canonical_text, key_of_text};
use random::{Purpose, Stream};
use results::{Kind, Row, Timing, TimingKind};
use serde_json::json;
use storage::examples::{About, Examples};

use super::entry::{NamedAttack, named_attack};
use super::network::External;
use crate::compute::data::{Data, plain_batch};
use crate::compute::evaluation::{Evaluated, Scrutiny, Task, evaluate, query_budget, untouched};
use crate::compute::row::{RowAttack, RowTarget, row};
use crate::compute::stopwatch::Stopwatch;
use crate::exit::Stop;
use crate::failure::Failure;
use crate::progress::Progress;

/// Raised whenever the same command starts to give other numbers.
const VERSION: u32 = 2;

/// What to attack, and where.
pub(crate) struct AttackRequest<'a> {
    pub(crate) network: &'a External,
    /// The network on which images are made, if not the same.
    pub(crate) source: Option<&'a External>,
    /// The name of the data set.
    pub(crate) dataset: &'a str,
    pub(crate) data: &'a Data,
    /// Test images to attack, at most.
    pub(crate) limit: Option<usize>,
    /// Seed of the attacks' random starts.
    pub(crate) seed: u64,
    pub(crate) device: &'a Device,
    pub(crate) device_name: &'a str,
}

/// An attack and its outcomes.
pub(crate) struct Done {
    pub(crate) attack: NamedAttack,
    pub(crate) evaluated: Evaluated,
    pub(crate) adversarial: Tensor,
    pub(crate) timing: Timing,
    pub(crate) key: String,
    /// Everything that affects a number, as JSON.
    config: String,
}

/// Clean images, then the attacks that were asked for; FGSM and PGD if none was.
pub(crate) fn named_attacks(asked: &[String], methods: &Methods, setting: &Setting) -> Result<Vec<NamedAttack>> {
    let default = ["fgsm", "pgd"].map(String::from);
    let asked = if asked.is_empty() { &default[..] } else { asked };
    let mut attacks = vec![named_attack("natural", &methods.attacks, setting)?];
    attacks[0].label = "Natural".into();
    for text in asked {
        let attack = named_attack(text, &methods.attacks, setting)?;
        if attacks.iter().any(|other| other.label == attack.label) {
            let label = attack.label;
            return Err(Stop::usage(format!(
                "two attacks are called `{label}`; give one another `label`, as in `{{ name: pgd, label: mine }}`"
            )));
        }
        attacks.push(attack);
    }
    Ok(attacks)
}

/// Runs one attack after another.
pub(crate) fn attack_all(
    request: &AttackRequest<'_>,
    attacks: Vec<NamedAttack>,
    progress: &Progress,
) -> Result<Vec<Done>, Failure> {
    let mut done = Vec::new();
    for attack in attacks {
        done.push(request.attack(attack, progress)?);
        progress.ended();
    }
    Ok(done)
}

impl AttackRequest<'_> {
    fn attack(&self, attack: NamedAttack, progress: &Progress) -> Result<Done, Failure> {
        let stopwatch = Stopwatch::start();
        let source = self.source_of(&attack);
        let config = self.config(&attack);
        let key = key_of_text(&config);
        let bar = progress.cell("attack", &attack.label);
        bar.start(self.data.test.len() as u64, 0, 1);
        // As in a run, so that a network from a run gives the same numbers here.
        let random = Stream::new(self.seed).of(Purpose::Evaluation);
        let task = Task {
            source: source.map(|source| source as &dyn Classifier),
            target: self.network,
            attack: attack.attack.method.as_ref(),
            threat: &attack.threat,
            split: &self.data.dataset.test,
            indices: &self.data.test,
            random: &random,
            device: self.device,
            bar: &bar,
            scrutiny: match attack.attack.name {
                "natural" => Scrutiny::Network,
                _ => Scrutiny::Again,
            },
            saves: None,
            keep_images: usize::MAX,
        };
        let networks: Vec<_> = [self.network]
            .into_iter()
            .chain(source)
            .map(|external| &external.network)
            .collect();
        let evaluated = untouched(&networks, || evaluate(&task))?;
        let images = evaluated.outcomes.len() as u64;
        Ok(Done {
            adversarial: Tensor::cat(&evaluated.images, 0)?,
            timing: stopwatch.timing(&key, TimingKind::Evaluate, self.device_name, images),
            attack,
            evaluated,
            key,
            config,
        })
    }

    /// Clean images are not transferred.
    fn source_of(&self, attack: &NamedAttack) -> Option<&External> {
        self.source.filter(|_| attack.attack.name != "natural")
    }

    /// Everything that affects a number, as JSON.
    fn config(&self, attack: &NamedAttack) -> String {
        let network = self.network;
        let source = self.source_of(attack);
        let mut config = json!({
            "cell": "attack",
            "code": VERSION,
            "checkpoint": network.digest,
            "network": { "name": network.file.model, "version": network.network.version() },
            "source": source.map(|source| json!([source.digest, source.network.name(), source.network.version()])),
            "ignored": network.file.ignore,
            "normalisation": network.normalisation(),
            "dataset": self.data.dataset.digest,
            "test": self.limit,
            "attack": { "name": attack.attack.name, "version": attack.attack.version, "config": attack.attack.config },
            "threat": attack.threat,
            "seed": self.seed,
        });
        // Absent unless given, so that the keys of files with one copy of the network are what they always were.
        let entries = [Some(network), source].map(|of| of.and_then(|of| of.file.entry.clone()));
        if entries.iter().any(Option::is_some) {
            config["entries"] = json!(entries);
        }
        canonical_text(&config)
    }

    /// The row of an attack.
    pub(crate) fn row(&self, done: &Done) -> Row {
        let attack = &done.attack.attack;
        let source = self.source_of(&done.attack);
        let kind = match &source {
            _ if attack.name == "natural" => Kind::Natural,
            Some(_) => Kind::Transfer,
            None if attack.method.by_queries() => Kind::Query,
            None => Kind::WhiteBox,
        };
        let target = RowTarget {
            run: "attack",
            dataset: self.dataset,
            dataset_digest: &self.data.dataset.digest,
            verified: self.data.dataset.verified,
            network: &self.network.file.model,
            defense: &self.network.file.name(),
            defense_name: &format!("checkpoint {}", self.network.digest),
            defense_version: 0,
            recipe: "unknown",
            seed: self.seed,
            checkpoint: results::Checkpoint::Last,
            selection: results::Selection::None,
        };
        let row = row(
            &done.key,
            target,
            RowAttack {
                attack,
                label: &done.attack.label,
                threat: &done.attack.threat,
                kind,
            },
        );
        let row = Row {
            evaluation_config: Some(done.config.clone()),
            source: source.map(|source| source.file.name()),
            ..row
        };
        let budget = query_budget(attack.method.as_ref(), self.network.network.classes());
        done.evaluated.complete(row, budget)
    }

    /// The images of an attack, before and after, as `rampart verify-examples` reads them.
    pub(crate) fn examples(&self, done: &Done) -> Result<Examples> {
        let batch = plain_batch(&self.data.dataset.test, &self.data.test, self.device)?;
        Ok(Examples {
            adversarial: done.adversarial.clone(),
            clean: Some(batch.images),
            labels: batch.labels.to_vec1()?,
            ids: Some(batch.ids),
            about: Some(About {
                dataset: self.dataset.to_string(),
                dataset_digest: self.data.dataset.digest.clone(),
                model: self.network.file.model.clone(),
                checkpoint: self.network.digest.clone(),
                threat: done.attack.threat,
                attack: done.attack.attack.name.to_string(),
                config: done.attack.attack.config.clone(),
                seed: self.seed,
                correct: done.evaluated.correct(),
            }),
        })
    }
}
