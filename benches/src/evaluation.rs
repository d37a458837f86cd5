//! Attacks on a network from a file, as an evaluation runs them: AutoAttack `standard`, PGD and CW.
//!
//! The images come from a file of `rampart attack --save-examples` (its entries `clean`, `labels`, `ids`), so that
//! another program can use the same ones. Every example's random draws follow its id and the seed as they do
//! in the harness, so the outcomes are those that the harness reports.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use attacks::{
    Attack, AutoAttack, Batch, BatchNorm, Cw, Family, Method, Norm, Pgd, Probe, Progress, Sequence, Setting, Threat,
    Version,
};
use candle_core::{D, DType, Device, Tensor};
use models::{Checkpoint, Classifier, Mode, Network};
use random::{Purpose, Stream};
use serde::Serialize;

/// Examples attacked together, as in the harness. Outcomes do not depend on it.
const BATCH: usize = 100;
/// Steps of PGD and CW.
const STEPS: u64 = 20;

/// How much of AutoAttack is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// The version `standard`.
    Standard,
    /// Its attacks with a tenth of their steps and queries, to time large networks.
    Tenth,
}

/// A network and the examples it is attacked on.
pub struct Evaluation {
    network: Network,
    examples: Batch,
    setting: Setting,
}

/// The outcomes of some examples.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The ids of those that the network gets wrong without an attack.
    pub wrong: Vec<u64>,
    /// The attacks in their order, each on the survivors of the ones before; of AutoAttack, then, `outside` them: what
    /// else was asked of the network.
    pub stages: Vec<Stage>,
    /// Wall-clock time of everything.
    pub seconds: f64,
}

/// The outcome of one attack.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stage {
    /// Its name.
    pub attack: String,
    /// The ids of those it broke.
    pub broken: Vec<u64>,
    /// Passes through the network, summed over the examples.
    pub forwards: u64,
    /// Backward passes, likewise.
    pub backwards: u64,
    /// Wall-clock time.
    pub seconds: f64,
}

impl Evaluation {
    /// Reads network and examples. `threat` is written as in `linf:8/255`.
    ///
    /// # Errors
    /// A file that cannot be read or does not fit, or an invalid threat model.
    pub fn open(checkpoint: &Path, model: &str, images: &Path, threat: &str) -> Result<Self> {
        let examples = read_examples(images).with_context(|| format!("examples `{}`", images.display()))?;
        let (_, channels, height, width) = examples.images.dims4()?;
        let threat = parse_threat(threat)?;
        let setting = Setting {
            family: if channels == 1 { Family::Mnist } else { Family::Cifar },
            threat,
            network: model.to_string(),
            image: [channels, height, width],
            classes: 10,
        };
        let network = models::build(model, setting.image, setting.classes, &Stream::new(0))?;
        Checkpoint::read(checkpoint)?
            .load_into(&network, &[])
            .with_context(|| format!("checkpoint `{}`", checkpoint.display()))?;
        Ok(Self {
            network,
            examples,
            setting,
        })
    }

    /// The ids of the examples, in their order.
    pub fn ids(&self) -> &[u64] {
        &self.examples.ids
    }

    /// How many numbers the network trains.
    pub fn parameters(&self) -> usize {
        self.network.parameter_count()
    }

    /// Logits of some of the clean images, `[B, K]`.
    pub fn logits(&self, rows: Range<usize>) -> Result<Tensor> {
        let batch = self.part(rows)?;
        Ok(self.network.logits(&batch.images, Mode::Eval)?.detach())
    }

    /// AutoAttack, attack after attack.
    pub fn auto_attack(&self, rows: Range<usize>, seed: u64, length: Length) -> Result<Outcome> {
        let attack = self.configured(length)?;
        let names: Vec<String> = attack.attacks.iter().flatten().map(ToString::to_string).collect();
        let random = Stream::new(seed).of(Purpose::Evaluation);
        let clock = Instant::now();
        let mut outcome = Outcome {
            stages: names.into_iter().map(Stage::of).collect(),
            ..Outcome::default()
        };
        let mut outside = Stage::of("outside".to_string());
        for batch in self.batches(rows)? {
            let mut probe = Probe::new(&self.network, BatchNorm::Eval)?;
            let mut progress = Progress::begin(&mut probe, &batch)?;
            outside.forwards += probe.cost().forwards;
            let rows = batch.ids.iter().zip(&progress.survivors.broken);
            outcome
                .wrong
                .extend(rows.filter(|(_, broken)| **broken).map(|(id, _)| *id));
            loop {
                let (number, before, start) = (progress.done, probe.cost(), Instant::now());
                if !attack.advance(&mut probe, &batch, &self.setting.threat, &random, &mut progress)? {
                    break;
                }
                let stage = &mut outcome.stages[number];
                stage.seconds += start.elapsed().as_secs_f64();
                stage.forwards += probe.cost().forwards - before.forwards;
                stage.backwards += probe.cost().backwards - before.backwards;
            }
            for (row, by) in progress.broken_by.iter().enumerate() {
                if let Some(stage) = by {
                    outcome.stages[*stage].broken.push(batch.ids[row]);
                }
            }
        }
        outcome.seconds = clock.elapsed().as_secs_f64();
        outside.seconds = outcome.seconds - outcome.stages.iter().map(|stage| stage.seconds).sum::<f64>();
        outcome.stages.push(outside);
        Ok(outcome)
    }

    fn configured(&self, length: Length) -> Result<AutoAttack> {
        let mut attack = AutoAttack::default();
        if length == Length::Tenth {
            let mut standard = attack.clone();
            standard.resolve(&self.setting)?;
            attack = AutoAttack {
                version: Version::Custom,
                attacks: standard.attacks,
                steps: attack.steps / 10,
                queries: attack.queries / 10,
                ..attack
            };
        }
        attack.resolve(&self.setting)?;
        Ok(attack)
    }

    /// 20 steps of PGD on cross entropy, or on the margin loss of CW, from a random start.
    pub fn ascent(&self, name: &str, rows: Range<usize>, seed: u64) -> Result<Outcome> {
        let attack: Box<dyn Attack> = match name {
            "pgd" => {
                let mut pgd = Pgd {
                    steps: Some(STEPS),
                    step_size: Some(self.step_size()),
                    ..Pgd::default()
                };
                pgd.resolve(&self.setting)?;
                Box::new(pgd)
            }
            "cw" => {
                let mut cw: Cw = serde_json::from_value(serde_json::json!({"steps": STEPS}))?;
                cw.step_size = Some(self.step_size());
                cw.resolve(&self.setting)?;
                Box::new(cw)
            }
            _ => bail!("no attack is called `{name}`; known: pgd, cw, auto-attack"),
        };
        let random = Stream::new(seed).of(Purpose::Evaluation);
        let clock = Instant::now();
        let mut outcome = Outcome::default();
        let mut stage = Stage::of(name.to_string());
        for batch in self.batches(rows)? {
            let found = attack.perturb(&self.network, &batch, &self.setting.threat, &random)?;
            let attacked = self.wrong(&found.images, &batch)?;
            stage.forwards += found.cost.forwards + batch.ids.len() as u64;
            stage.backwards += found.cost.backwards;
            stage.broken.extend(attacked);
        }
        stage.seconds = clock.elapsed().as_secs_f64();
        outcome.seconds = stage.seconds;
        outcome.stages.push(stage);
        Ok(outcome)
    }

    /// The step of both: ε/10, under L2 ε/8.
    fn step_size(&self) -> attacks::Pixels {
        let Threat { norm, epsilon } = self.setting.threat;
        match norm {
            Norm::Linf => epsilon.times(1, 10),
            Norm::L2 => epsilon.times(1, 8),
        }
    }

    fn part(&self, rows: Range<usize>) -> Result<Batch> {
        let examples = self.ids().len();
        ensure!(
            rows.start < rows.end && rows.end <= examples,
            "there are examples 0 to {examples}, not {} to {}",
            rows.start,
            rows.end
        );
        Ok(self.examples.select(&rows.collect::<Vec<_>>())?)
    }

    fn batches(&self, rows: Range<usize>) -> Result<Vec<Batch>> {
        let part = rows.clone().step_by(BATCH);
        part.map(|start| self.part(start..rows.end.min(start + BATCH)))
            .collect()
    }

    /// The ids of the images that the network gets wrong.
    fn wrong(&self, images: &Tensor, batch: &Batch) -> Result<Vec<u64>> {
        let classes: Vec<u32> = self.network.logits(images, Mode::Eval)?.argmax(D::Minus1)?.to_vec1()?;
        let labels: Vec<u32> = batch.labels.to_vec1()?;
        let rows = classes.iter().zip(&labels).zip(&batch.ids);
        Ok(rows
            .filter(|((class, label), _)| class != label)
            .map(|(_, id)| *id)
            .collect())
    }
}

impl Stage {
    fn of(attack: String) -> Self {
        Self {
            attack,
            ..Self::default()
        }
    }
}

fn parse_threat(text: &str) -> Result<Threat> {
    let form = || format!("a threat model is written as `linf:8/255` or `l2:0.5`, not `{text}`");
    let (norm, epsilon) = text.split_once(':').with_context(form)?;
    let norm = match norm {
        "linf" => Norm::Linf,
        "l2" => Norm::L2,
        _ => bail!(form()),
    };
    let threat = Threat {
        norm,
        epsilon: epsilon.parse().with_context(form)?,
    };
    threat.check()?;
    Ok(threat)
}

fn read_examples(file: &Path) -> Result<Batch> {
    let found = Checkpoint::read(file)?.tensors;
    let entry = |name: &str| {
        let missing = || format!("there is no entry `{name}`; `rampart attack --save-examples` writes such a file");
        found.get(name).with_context(missing)
    };
    let integers = |name: &str| -> Result<Vec<i64>> { Ok(entry(name)?.to_dtype(DType::I64)?.to_vec1()?) };
    let images = entry("clean")?.to_dtype(DType::F32)?;
    let labels: Vec<u32> = integers("labels")?
        .into_iter()
        .map(u32::try_from)
        .collect::<Result<_, _>>()?;
    let ids: Vec<u64> = integers("ids")?
        .into_iter()
        .map(u64::try_from)
        .collect::<Result<_, _>>()?;
    let examples = images.dims4()?.0;
    ensure!(
        labels.len() == examples && ids.len() == examples,
        "{examples} images have {} labels and {} ids",
        labels.len(),
        ids.len()
    );
    Ok(Batch {
        labels: Tensor::new(labels, &Device::Cpu)?,
        images,
        ids,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A network and six images in files: the network is right about the first four.
    fn saved(folder: &Path) -> Evaluation {
        let network = models::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(3)).unwrap();
        let checkpoint = folder.join("network.safetensors");
        let state: HashMap<String, Tensor> = network.state().unwrap().into_iter().collect();
        candle_core::safetensors::save(&state, &checkpoint).unwrap();

        let images = Stream::new(5).uniform(&[0, 1, 2, 3, 4, 5], 64);
        let images = Tensor::from_vec(images, (6, 1, 8, 8), &Device::Cpu).unwrap();
        let classes: Vec<u32> = network
            .logits(&images, Mode::Eval)
            .unwrap()
            .argmax(1)
            .unwrap()
            .to_vec1()
            .unwrap();
        let labels = classes.iter().enumerate().map(|(row, class)| match row {
            0..4 => i64::from(*class),
            _ => i64::from((class + 1) % 10),
        });
        let labels = Tensor::from_iter(labels, &Device::Cpu).unwrap();
        let ids = Tensor::new(&[7i64, 3, 9, 2, 8, 1], &Device::Cpu).unwrap();
        let entries = HashMap::from([("clean", images), ("labels", labels), ("ids", ids)]);
        let examples = folder.join("examples.safetensors");
        candle_core::safetensors::save(&entries, &examples).unwrap();
        Evaluation::open(&checkpoint, "tiny-cnn", &examples, "linf:0.9").unwrap()
    }

    #[test]
    fn outcomes_match_the_attack_with_one_per_example() {
        let folder = tempfile::tempdir().unwrap();
        let evaluation = saved(folder.path());
        let outcome = evaluation.auto_attack(0..6, 0, Length::Standard).unwrap();
        assert_eq!(outcome.wrong, [8, 1]);
        let names: Vec<&str> = outcome.stages.iter().map(|stage| stage.attack.as_str()).collect();
        assert_eq!(names, ["apgd-ce", "apgd-t", "fab-t", "square", "outside"]);

        let attack = evaluation.configured(Length::Standard).unwrap();
        let random = Stream::new(0).of(Purpose::Evaluation);
        let (network, batch) = (&evaluation.network, &evaluation.examples);
        let found = attack
            .perturb(network, batch, &evaluation.setting.threat, &random)
            .unwrap();
        let mut broken: Vec<u64> = outcome.stages.iter().flat_map(|stage| stage.broken.clone()).collect();
        broken.extend(&outcome.wrong);
        broken.sort_unstable();
        let mut expected = evaluation.wrong(&found.images, batch).unwrap();
        expected.sort_unstable();
        assert_eq!(broken, expected);
        assert!(broken.len() > 2, "a radius of 0.9 breaks examples");
        let passes = |count: fn(&Stage) -> u64| outcome.stages.iter().map(count).sum::<u64>();
        assert_eq!(passes(|stage| stage.forwards), found.cost.forwards);
        assert_eq!(passes(|stage| stage.backwards), found.cost.backwards);

        let pgd = evaluation.ascent("pgd", 0..6, 0).unwrap();
        assert_eq!((pgd.stages[0].forwards, pgd.stages[0].backwards), (6 * 21, 6 * 20));
    }

    #[test]
    fn mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let evaluation = saved(folder.path());
        let check = |result: Result<()>, part: &str| {
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(part), "{error}");
        };
        check(evaluation.auto_attack(3..7, 0, Length::Tenth).map(drop), "not 3 to 7");
        check(evaluation.ascent("fab", 0..1, 0).map(drop), "`fab`; known: pgd");
        let open = |checkpoint: &str, examples: &str, threat: &str| {
            let [checkpoint, examples] = [checkpoint, examples].map(|name| folder.path().join(name));
            Evaluation::open(&checkpoint, "tiny-cnn", &examples, threat).map(drop)
        };
        let (network, examples) = ("network.safetensors", "examples.safetensors");
        check(open(network, examples, "8/255"), "not `8/255`");
        check(open(network, examples, "linf:8"), "epsilon is 8");
        check(open(network, network, "linf:0.1"), "there is no entry `clean`");
        check(open(examples, examples, "linf:0.1"), "checkpoint `");
    }
}
