//! What one step of each workload does.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use attacks::ball::{Ball, Length};
use attacks::{Batch, BatchNorm, Loss, Probe, Threat};
use candle_core::{DType, Device, Tensor};
use defenses::{Decay, Defense, Descent, Memory, Optimizer, Step};
use models::{Classifier, Mode, Network};
use random::{Purpose, Stream};
use serde_json::json;

use crate::{Subject, formula};

/// Steps of the attack inside a whole training step.
const ATTACK_STEPS: u64 = 10;
/// Small, so that training on one batch over and over does not diverge.
const RATE: f64 = 0.001;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Logits of the frozen network.
    Forward,
    /// One step of PGD on the frozen network.
    AttackStep,
    /// One step of training without an attack.
    TrainStep,
    /// One step of standard adversarial training.
    AtStep,
    /// One step of TRADES.
    TradesStep,
    /// One step of MART.
    MartStep,
}

/// All workloads, the cheapest first.
pub const WORKLOADS: [Workload; 6] = [
    Workload::Forward,
    Workload::AttackStep,
    Workload::TrainStep,
    Workload::AtStep,
    Workload::TradesStep,
    Workload::MartStep,
];

impl Workload {
    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::AttackStep => "attack-step",
            Self::TrainStep => "train-step",
            Self::AtStep => "at-step",
            Self::TradesStep => "trades-step",
            Self::MartStep => "mart-step",
        }
    }

    /// The defense whose training step it is.
    fn defense(self) -> Option<&'static str> {
        match self {
            Self::Forward | Self::AttackStep => None,
            Self::TrainStep => Some("natural"),
            Self::AtStep => Some("standard"),
            Self::TradesStep => Some("trades"),
            Self::MartStep => Some("mart"),
        }
    }
}

impl FromStr for Workload {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match WORKLOADS.iter().find(|workload| workload.name() == name) {
            Some(workload) => Ok(*workload),
            None => {
                let known = WORKLOADS.map(Workload::name).join(", ");
                bail!("no workload is called `{name}`; known: {known}")
            }
        }
    }
}

/// A workload on one network and one batch, ready to run.
pub struct Bench {
    network: Network,
    batch: Batch,
    work: Work,
}

enum Work {
    Forward {
        frozen: Box<dyn Classifier>,
    },
    Attack {
        frozen: Box<dyn Classifier>,
        ball: Ball,
        step_size: f64,
        /// The state of the attack.
        images: Tensor,
    },
    Train(Box<Training>),
}

/// What a training keeps from step to step.
struct Training {
    defense: Arc<dyn Defense>,
    threat: Threat,
    memory: Memory,
    optimizer: Box<dyn Descent>,
    /// Steps made.
    step: u64,
    /// The last objective.
    loss: f32,
}

/// Some steps and how long they took.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Burst {
    /// Images of all steps.
    pub images: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// A number that shows whether another program did the same: see [`Bench::value`].
    pub value: f64,
}

impl Bench {
    /// A network with the formula's parameters and a batch of the formula's images.
    pub fn new(workload: Workload, subject: &Subject, examples: usize, device: &Device) -> Result<Self> {
        if examples == 0 {
            bail!("a batch of 0 images cannot be timed; give 1 or more");
        }
        let setting = subject.setting();
        let network = models::build_on(device, subject.network, setting.image, setting.classes, &Stream::new(0))?;
        formula::fill(&network)?;
        let batch = formula::batch(&network, examples, device)?;
        let frozen = || network.freeze()?.context("the network has no frozen form");
        let threat = subject.threat();
        let work = match workload.defense() {
            None if workload == Workload::Forward => Work::Forward { frozen: frozen()? },
            None => Work::Attack {
                frozen: frozen()?,
                ball: Ball::new(&threat, &batch.images)?,
                step_size: subject.step_size().value(),
                images: batch.images.clone(),
            },
            Some(name) => {
                let options = match name {
                    "natural" => json!({}),
                    _ => json!({"attack": {"steps": ATTACK_STEPS, "step_size": subject.step_size()}}),
                };
                let defense = defenses::builtin().parse(name, options, &setting)?.method;
                let optimizer = Optimizer::Sgd {
                    rate: RATE,
                    momentum: 0.9,
                    nesterov: false,
                    weight_decay: 3.5e-3,
                    decay: Decay::All,
                };
                Work::Train(Box::new(Training {
                    memory: defense.memory(examples),
                    defense,
                    threat,
                    optimizer: optimizer.over(network.parameters()),
                    step: 0,
                    loss: 0.0,
                }))
            }
        };
        Ok(Self { network, batch, work })
    }

    /// How many numbers the network trains.
    pub fn parameters(&self) -> usize {
        self.network.parameter_count()
    }

    /// Logits of the batch with the current parameters, `[B, K]`.
    pub fn logits(&self) -> Result<Tensor> {
        let classifier: &dyn Classifier = match &self.work {
            Work::Forward { frozen } | Work::Attack { frozen, .. } => frozen.as_ref(),
            Work::Train(_) => &self.network,
        };
        Ok(classifier.logits(&self.batch.images, Mode::Eval)?.detach())
    }

    /// One step.
    pub fn step(&mut self) -> Result<()> {
        let Self { network, batch, work } = self;
        match work {
            Work::Forward { frozen } => {
                frozen.logits(&batch.images, Mode::Eval)?;
            }
            Work::Attack {
                frozen,
                ball,
                step_size,
                images,
            } => {
                // A probe of what is frozen already takes it as it is.
                let mut probe = Probe::new(frozen.as_ref(), BatchNorm::Eval)?;
                let loss = (&Loss::CrossEntropy, None);
                // As an attack takes its steps: all at once if the network can.
                *images = match probe.ascend(ball, images, &batch.labels, loss, (*step_size, 1))? {
                    Some(images) => images,
                    None => {
                        let slope = probe.slope(images, |logits| {
                            Loss::CrossEntropy.per_example(logits, &batch.labels, None)
                        })?;
                        ball.ascend(images, &slope.gradient, &Length::Same(*step_size))?
                    }
                };
            }
            Work::Train(training) => training.step(network, batch)?,
        }
        Ok(())
    }

    /// A number that another program must reach as well after the same steps: the mean cross entropy of the
    /// batch, of the attack's images if there is an attack; of a training the last objective.
    pub fn value(&self) -> Result<f64> {
        let (classifier, images) = match &self.work {
            Work::Forward { frozen } => (frozen, &self.batch.images),
            Work::Attack { frozen, images, .. } => (frozen, images),
            Work::Train(training) => return Ok(f64::from(training.loss)),
        };
        let logits = classifier.logits(images, Mode::Eval)?;
        let losses = Loss::CrossEntropy.per_example(&logits, &self.batch.labels, None)?;
        Ok(f64::from(losses.mean_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?))
    }

    /// Whole steps for at least `seconds`, and one at least.
    pub fn run(&mut self, seconds: f64) -> Result<Burst> {
        let start = Instant::now();
        let mut images = 0;
        let seconds = loop {
            self.step()?;
            // A GPU runs asynchronously: wait until it has finished the step.
            self.network.device().synchronize()?;
            images += self.batch.ids.len() as u64;
            let passed = start.elapsed().as_secs_f64();
            if passed >= seconds {
                break passed;
            }
        };
        let value = self.value()?;
        if !value.is_finite() {
            bail!("the loss is {value}; what was timed is not training");
        }
        Ok(Burst { images, seconds, value })
    }
}

impl Training {
    /// As the harness makes one.
    fn step(&mut self, network: &Network, batch: &Batch) -> Result<()> {
        let random = Stream::new(0).of(Purpose::Training).at(self.step);
        let mut step = Step::new(network, batch, &self.threat, random, 0, &mut self.memory);
        let objective = self.defense.objective(&mut step)?;
        self.loss = objective.to_dtype(DType::F32)?.to_scalar()?;
        let gradients = objective.backward()?;
        self.optimizer.step(&gradients, RATE)?;
        self.step += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(workload: Workload) -> Bench {
        let subject = Subject::named("small-cnn").unwrap();
        Bench::new(workload, &subject, 3, &Device::Cpu).unwrap()
    }

    #[test]
    fn every_workload_runs_whole_steps() {
        for workload in WORKLOADS {
            let mut bench = bench(workload);
            assert_eq!(bench.logits().unwrap().dims(), [3, 10]);
            let burst = bench.run(0.0).unwrap();
            assert_eq!(burst.images, 3, "{workload:?}");
            assert!(burst.seconds > 0.0 && burst.value > 0.0, "{workload:?}: {burst:?}");
        }
    }

    #[test]
    fn attacks_raise_the_loss_and_training_lowers_it() {
        let natural = bench(Workload::Forward).run(0.0).unwrap().value;
        let mut attack = bench(Workload::AttackStep);
        assert!(attack.run(0.0).unwrap().value > natural);
        let moved = match &attack.work {
            Work::Attack { images, .. } => (images - &attack.batch.images).unwrap().abs().unwrap(),
            _ => unreachable!("an attack"),
        };
        let farthest: f32 = moved.max_all().unwrap().to_scalar().unwrap();
        assert!((farthest - 0.075).abs() < 1e-6, "{farthest}");

        let mut training = bench(Workload::TrainStep);
        let before = training.logits().unwrap();
        for _ in 0..30 {
            training.step().unwrap();
        }
        let loss = |logits: &Tensor| -> f32 {
            let losses = Loss::CrossEntropy.per_example(logits, &training.batch.labels, None);
            losses.unwrap().mean_all().unwrap().to_scalar().unwrap()
        };
        let (before, after) = (loss(&before), loss(&training.logits().unwrap()));
        assert!(after < before, "{before} before, {after} after");
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        let error = "attack".parse::<Workload>().unwrap_err().to_string();
        assert!(error.contains("`attack`") && error.contains("attack-step"), "{error}");
        let error = Subject::named("resnet").unwrap_err().to_string();
        assert!(error.contains("`resnet`") && error.contains("resnet18"), "{error}");
    }
}
