//! Checks that results repeat bit by bit, and that memory does not grow.

use anyhow::Result;
use candle_core::{Device, Tensor};
use defenses::{Decay, Descent, Memory, Optimizer, Step};
use kernels::device::{self, Precision, Settings};
use models::Network;
use random::{Purpose, Stream};

use crate::context::Context;
use crate::networks::{batch, image, network};
use crate::report::{Found, Report, differing};

/// A training that can be stepped.
pub(crate) struct Training {
    pub(crate) network: Network,
    batch: attacks::Batch,
    defense: std::sync::Arc<dyn defenses::Defense>,
    setting: attacks::Setting,
    memory: Memory,
    descent: Box<dyn Descent>,
    step: u64,
}

impl Training {
    pub(crate) fn new(name: &str, defense: &str, steps: u64, examples: usize, device: &Device) -> Result<Self> {
        let setting = attacks::Setting {
            family: attacks::Family::Cifar,
            threat: attacks::Threat {
                norm: attacks::Norm::Linf,
                epsilon: attacks::Pixels::new(8, 255),
            },
            network: name.to_string(),
            image: image(name),
            classes: 10,
        };
        let options = match defense {
            "natural" => serde_json::json!({}),
            _ => serde_json::json!({"attack": {"steps": steps}}),
        };
        let defense = defenses::builtin().parse(defense, options, &setting)?.method;
        let network = network(name, device)?;
        let sgd = Optimizer::Sgd {
            rate: 0.01,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 3.5e-3,
            decay: Decay::All,
        };
        Ok(Self {
            batch: batch(name, examples, device)?,
            memory: defense.memory(examples),
            descent: sgd.over(network.parameters()),
            network,
            defense,
            setting,
            step: 0,
        })
    }

    pub(crate) fn step(&mut self) -> Result<()> {
        let random = Stream::new(1).of(Purpose::Training).at(self.step);
        self.step += 1;
        let threat = &self.setting.threat;
        let mut step = Step::new(&self.network, &self.batch, threat, random, 0, &mut self.memory);
        let objective = self.defense.objective(&mut step)?;
        self.descent.step(&objective.backward()?, 0.01)?;
        Ok(())
    }
}

pub(crate) fn check(context: &Context, report: &mut Report) {
    let name = if context.quick { "tiny-cnn" } else { "resnet18" };
    for &(precision, shown) in context.precisions() {
        report.add(
            "repeatable",
            format!("three MART steps of {name} {shown}, twice, bit by bit"),
            || {
                device::configure(Settings {
                    precision,
                    deterministic: true,
                    ..Settings::default()
                });
                let once = || -> Result<Tensor> {
                    let mut training = Training::new(name, "mart", 3, 16, &context.device)?;
                    for _ in 0..3 {
                        training.step()?;
                    }
                    let flat = training.network.state()?.into_values().map(|tensor| {
                        tensor
                            .to_device(&Device::Cpu)?
                            .to_dtype(candle_core::DType::F32)?
                            .flatten_all()
                    });
                    Ok(Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
                };
                Ok(Found::Deviation {
                    is: differing(&once()?, &once()?)?,
                    allowed: 0.0,
                })
            },
        );
    }
    report.add(
        "memory",
        "growth over 1,000 steps of training with an attack, MiB",
        || {
            let Some(_) = device::gpu(&context.device)? else {
                return Ok(Found::Nothing("memory of a GPU alone is watched".into()));
            };
            device::configure(Settings {
                precision: Precision::Tf32,
                ..Settings::default()
            });
            let mut training = Training::new("small-cnn", "mart", 2, 64, &context.device)?;
            let free = |context: &Context| -> Result<f64> {
                context.device.synchronize()?;
                Ok(device::gpu(&context.device)?.map_or(0.0, |gpu| gpu.memory.0 as f64))
            };
            for _ in 0..50 {
                training.step()?;
            }
            let before = free(context)?;
            for _ in 0..1000 {
                training.step()?;
            }
            Ok(Found::Deviation {
                is: (before - free(context)?) / f64::from(1 << 20),
                allowed: 32.0,
            })
        },
    );
}
