//! Attacks and training steps on the GPU against the authors' numbers and the CPU's.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use attacks::{Attack, Batch, BatchNorm, Loss, Norm, Pgd, Pixels, Start, Threat};
use candle_core::{DType, Device, Tensor, Var};
use defenses::{Decay, Defense, InnerAttack, Mart, Optimizer, Standard, Step, Trades};
use kernels::device::Precision;
use kernels::{Activation, Statistics};
use models::{Classifier, Mode, Parameter, Role};
use random::Stream;
use reference::Case;

use crate::context::{Context, precise};
use crate::networks::{batch, network};
use crate::report::{Found, Report, deviation, distance, doubles};

/// The convolutional network of the vectors, built from the operations of `kernels`.
struct Net {
    tensors: BTreeMap<String, Var>,
}

impl Net {
    fn read(case: &Case, prefix: &str, device: &Device) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for name in case.tensors().keys() {
            if let Some(short) = name.strip_prefix(prefix) {
                let tensor = case.input(name, DType::F32).to_device(device)?;
                tensors.insert(short.to_string(), Var::from_tensor(&tensor.copy()?)?);
            }
        }
        Ok(Self { tensors })
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors[name].as_tensor()
    }

    fn norm(&self, name: &str, x: &Tensor, mode: Mode<'_>) -> candle_core::Result<Tensor> {
        let norm = kernels::BatchNorm {
            weight: self.get(&format!("{name}.weight")).clone(),
            bias: self.get(&format!("{name}.bias")).clone(),
            running_mean: self.tensors[&format!("{name}.running_mean")].clone(),
            running_var: self.tensors[&format!("{name}.running_var")].clone(),
            epsilon: 1e-5,
            momentum: 0.1,
            updates: Default::default(),
        };
        let statistics = match mode {
            Mode::Eval => Statistics::Running,
            Mode::BatchStatistics => Statistics::Batch,
            Mode::Train(_) => Statistics::BatchAndUpdate,
        };
        kernels::batch_norm(x, &norm, statistics, Activation::Relu)
    }
}

impl Classifier for Net {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> candle_core::Result<Tensor> {
        let first = kernels::conv2d(images, self.get("conv1.weight"), 1, 1)?;
        let first = self.norm("bn1", &first, mode)?;
        let second = kernels::conv2d(&first, self.get("conv2.weight"), 2, 1)?;
        let second = self.norm("bn2", &second, mode)?;
        kernels::linear(
            &second.flatten_from(1)?,
            self.get("fc.weight"),
            Some(self.get("fc.bias")),
        )
    }

    fn classes(&self) -> usize {
        self.get("fc.bias").elem_count()
    }
}

/// A length in pixel units, exact enough for f32.
fn pixels(value: f64) -> Pixels {
    Pixels::new((value * 1e9).round() as u64, 1_000_000_000)
}

pub(crate) fn check(context: &Context, report: &mut Report) {
    for name in [
        "fgsm",
        "pgd_ce",
        "pgd_ce_clipstart",
        "pgd_cw50",
        "trades_inner",
        "mart_inner",
    ] {
        report.add("methods", format!("authors' {name} f32: pixels apart"), || {
            let file = context.reference.join(format!("attacks/{name}_net_conv.safetensors"));
            if !file.exists() {
                return Ok(Found::Nothing(format!("{} is not there", file.display())));
            }
            attack_vector(context, &Case::read(&file))
        });
    }
    for name in ["at", "trades", "mart"] {
        report.add(
            "methods",
            format!("authors' {name} f32: parameters after three steps"),
            || {
                let file = context.reference.join(format!("training/{name}.safetensors"));
                if !file.exists() {
                    return Ok(Found::Nothing(format!("{} is not there", file.display())));
                }
                training_vector(context, &Case::read(&file))
            },
        );
    }
    defenses(context, report);
}

fn attack_vector(context: &Context, case: &Case) -> Result<Found> {
    precise(Precision::F32);
    let device = &context.device;
    let net = Net::read(&case.network(), "", device)?;
    let images = case.input("x", DType::F32).to_device(device)?;
    let batch = Batch {
        ids: (0..images.dim(0)? as u64).collect(),
        labels: case.indices("labels").to_device(device)?,
        images,
    };
    let hyper = &case.meta["hyper"];
    let epsilon = case.hyper("epsilon");
    let start_text = hyper["start"].as_str().unwrap_or("x");
    let noise = if case.has("start_noise") {
        doubles(case.raw("start_noise"))?
    } else {
        Vec::new()
    };
    let (start, draws) = match start_text {
        "x" => (Start::None, noise),
        text if text.contains("0.001*start_noise") => (
            Start::Gaussian {
                sigma: Pixels::new(1, 1000),
            },
            noise,
        ),
        _ => {
            let draws = noise.iter().map(|noise| (noise / epsilon + 1.0) / 2.0).collect();
            (Start::Uniform, draws)
        }
    };
    let loss = match (hyper.get("kappa"), hyper["loss"].as_str()) {
        (Some(_), _) => Loss::Cw {
            kappa: case.hyper("kappa"),
        },
        (None, Some(loss)) if loss.starts_with("KL") => Loss::Kl,
        _ => Loss::CrossEntropy,
    };
    let steps = hyper["steps"].as_u64().unwrap_or(1);
    let attack = Pgd {
        steps: Some(steps),
        step_size: Some(pixels(hyper["step_size"].as_f64().unwrap_or(epsilon))),
        start,
        clip_start: start_text.contains("clip("),
        loss,
        ..Pgd::default()
    };
    let threat = Threat {
        norm: Norm::Linf,
        epsilon: pixels(epsilon),
    };
    let random = Stream::replay(draws.into_iter().map(|draw| draw as f32).collect());
    let found = doubles(&attack.perturb(&net, &batch, &threat, &random)?.images)?;
    let expected = doubles(&case.raw("x_adv.f32").to_dtype(DType::F64)?).or_else(|_| doubles(&case.result("x_adv")))?;
    let apart = found
        .iter()
        .zip(&expected)
        .filter(|(a, b)| (*a - *b).abs() > 1e-5)
        .count();
    // Pixels whose gradient is next to zero may go either way in another order of sums.
    Ok(Found::Deviation {
        is: apart as f64 / found.len() as f64,
        allowed: 2e-3,
    })
}

fn training_vector(context: &Context, case: &Case) -> Result<Found> {
    precise(Precision::F32);
    let device = &context.device;
    let net = Net::read(case, "init/", device)?;
    let parameters: Vec<Parameter> = net
        .tensors
        .iter()
        .filter(|(name, _)| !name.contains("running_"))
        .map(|(name, var)| Parameter {
            name: name.clone(),
            var: var.clone(),
            role: Role::Weight,
        })
        .collect();
    let sgd = |name: &str| case.meta["sgd"][name].as_f64().context("sgd");
    let optimizer = Optimizer::Sgd {
        rate: sgd("lr")?,
        momentum: sgd("momentum")?,
        nesterov: false,
        weight_decay: sgd("weight_decay")?,
        decay: Decay::All,
    };
    let step_size = pixels(case.hyper("step_size"));
    let attack = |sigma, loss| InnerAttack {
        epsilon: Some(pixels(case.hyper("epsilon"))),
        steps: case.meta["hyper"]["perturb_steps"].as_u64(),
        step_size: Some(step_size),
        start: Some(Start::Gaussian { sigma }),
        clip_start: Some(false),
        loss: Some(loss),
        batch_norm: Some(BatchNorm::Eval),
    };
    let small = Pixels::new(1, 1000);
    let defense: Box<dyn Defense> = match case.meta["method"].as_str() {
        Some("trades") => Box::new(Trades {
            beta: Some(case.hyper("trades_beta")),
            attack: attack(small, Loss::Kl),
        }),
        Some("mart") => Box::new(Mart {
            lambda: Some(case.hyper("mart_beta")),
            attack: attack(small, Loss::CrossEntropy),
            ..Mart::default()
        }),
        _ => Box::new(Standard {
            attack: attack(step_size, Loss::CrossEntropy),
            treat: None,
        }),
    };
    let threat = Threat {
        norm: Norm::Linf,
        epsilon: pixels(case.hyper("epsilon")),
    };
    let size = case.raw("batch0.labels").elem_count() as u64;
    let mut memory = defense.memory(2 * size as usize);
    let mut descent = optimizer.over(&parameters);
    let order = case.meta["batch_order"].as_array().context("batch_order")?.clone();
    for (index, number) in order.iter().enumerate() {
        let number = number.as_u64().context("batch_order")?;
        let batch = Batch {
            images: case.input(&format!("batch{number}.x"), DType::F32).to_device(device)?,
            labels: case.indices(&format!("batch{number}.labels")).to_device(device)?,
            ids: (number * size..(number + 1) * size).collect(),
        };
        let noise: Vec<f32> = case.raw(&format!("noise{index}")).flatten_all()?.to_vec1()?;
        let mut step = Step::new(&net, &batch, &threat, Stream::replay(noise), 0, &mut memory);
        let loss = defense.objective(&mut step)?;
        descent.step(&loss.backward()?, optimizer.rate())?;
    }
    let mut worst = 0f64;
    for (name, var) in &net.tensors {
        let is = deviation(var, &case.result(&format!("final/{name}")))?;
        worst = if is <= worst { worst } else { is };
    }
    // The vectors' tolerance is 2e-5 where no sign flips; a flipped one moves parameters in the fifth digit.
    Ok(Found::Deviation {
        is: worst,
        allowed: 2e-3,
    })
}

/// One step of every defense, beside the CPU's: the objective and the parameters' gradients.
fn defenses(context: &Context, report: &mut Report) {
    let name = if context.quick { "tiny-cnn" } else { "resnet18" };
    let registry = defenses::builtin();
    for entry in registry.entries() {
        report.add(
            "methods",
            format!("{} on {name} f32: objective and gradients", entry.name),
            || {
                precise(Precision::F32);
                let setting = attacks::Setting {
                    family: attacks::Family::Cifar,
                    threat: Threat {
                        norm: Norm::Linf,
                        epsilon: Pixels::new(8, 255),
                    },
                    network: name.to_string(),
                    image: crate::networks::image(name),
                    classes: 10,
                };
                let options = match entry.name {
                    "natural" => serde_json::json!({}),
                    "mma" => serde_json::json!({"steps": 2, "search_steps": 2}),
                    _ => serde_json::json!({"attack": {"steps": 2}}),
                };
                let defense = registry.parse(entry.name, options, &setting)?.method;
                let on = |device: &Device| -> Result<(f64, Vec<Tensor>)> {
                    let (network, batch) = (network(name, device)?, batch(name, 8, device)?);
                    let mut memory = defense.memory(8);
                    let mut step = Step::new(&network, &batch, &setting.threat, Stream::new(1), 0, &mut memory);
                    let objective = defense.objective(&mut step)?;
                    let gradients = objective.backward()?;
                    let gradients = network
                        .parameters()
                        .iter()
                        .filter_map(|parameter| gradients.get(&parameter.var).cloned());
                    Ok((doubles(&objective)?[0], gradients.collect()))
                };
                let (ours, theirs) = (on(&context.device)?, on(&Device::Cpu)?);
                let mut worst = (ours.0 - theirs.0).abs() / theirs.0.abs().max(1.0) / 1e-2;
                anyhow::ensure!(ours.1.len() == theirs.1.len(), "not the same parameters have gradients");
                let flat = |gradients: &[Tensor]| -> Result<Tensor> {
                    let flat = gradients
                        .iter()
                        .map(|gradient| gradient.to_device(&Device::Cpu)?.flatten_all());
                    Ok(Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
                };
                let gradients = distance(&flat(&ours.1)?, &flat(&theirs.1)?)? / 0.2;
                worst = if gradients <= worst { worst } else { gradients };
                // In shares of a hundredth for the objective and a fifth for the gradients: attacked images differ in
                // pixels whose gradient changed its sign by rounding.
                Ok(Found::Deviation {
                    is: worst,
                    allowed: 1.0,
                })
            },
        );
    }
}
