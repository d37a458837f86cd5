//! Training steps of every defense against the authors' code.

use std::sync::Mutex;

use attacks::{Batch, BatchNorm, Loss, Norm, Pixels, Start, Threat};
use candle_core::{DType, Device, Result, Tensor};
use models::{Classifier, Mode, Parameter, Role};
use random::Stream;
use reference::{Case, NotBuilt, doubles};
use testing::{Net, assert_near, decimal, tolerance};

use crate::*;

/// A network that records the order and the logits of its passes.
struct Recorder {
    net: Net,
    passes: Mutex<String>,
    training_logits: Mutex<Vec<Tensor>>,
}

impl Classifier for Recorder {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let logits = self.net.logits(images, mode)?;
        let training = matches!(mode, Mode::Train(_));
        self.passes.lock().unwrap().push(if training { 'T' } else { 'e' });
        if training {
            self.training_logits.lock().unwrap().push(logits.detach());
        }
        Ok(logits)
    }

    fn classes(&self) -> usize {
        self.net.classes()
    }
}

/// The defense of a training case.
fn trained_by(case: &Case) -> std::result::Result<Box<dyn Defense>, NotBuilt> {
    const METHODS: [&str; 8] = [
        "at",
        "trades",
        "mart",
        "alp_prob",
        "alp_logit",
        "clp_prob",
        "mma",
        "omma",
    ];
    let method = case.meta["method"].as_str().unwrap_or_default();
    if !METHODS.contains(&method) {
        return Err(NotBuilt(format!("the method `{method}`")));
    }
    let step_size: Pixels = decimal(case.hyper("step_size"));
    let attack = |sigma, loss| InnerAttack {
        epsilon: Some(decimal(case.hyper("epsilon"))),
        steps: case.meta["hyper"]["perturb_steps"].as_u64(),
        step_size: Some(step_size),
        start: Some(Start::Gaussian { sigma }),
        clip_start: Some(false),
        loss: Some(loss),
        batch_norm: Some(BatchNorm::Eval),
    };
    let small = Pixels::new(1, 1000);
    let cross_entropy = attack(small, Loss::CrossEntropy);
    let weight = |name: &str| Some(case.hyper(name));
    Ok(match method {
        "at" => Box::new(Standard {
            attack: attack(step_size, Loss::CrossEntropy),
            treat: None,
        }),
        "trades" => Box::new(Trades {
            beta: weight("trades_beta"),
            attack: attack(small, Loss::Kl),
        }),
        "mart" => Box::new(Mart {
            lambda: weight("mart_beta"),
            attack: cross_entropy,
            ..Mart::default()
        }),
        "alp_prob" => Box::new(Alp {
            lambda: weight("alp_prob_lambda"),
            form: AlpForm::Probabilities,
            attack: cross_entropy,
        }),
        "alp_logit" => Box::new(Alp {
            lambda: weight("alp_logit_weight"),
            form: AlpForm::Logits,
            attack: cross_entropy,
        }),
        "clp_prob" => Box::new(Clp {
            lambda: weight("clp_prob_lambda"),
            form: ClpForm::Probabilities,
            attack: cross_entropy,
        }),
        _ => Box::new(mma_of(case)),
    })
}

fn is_mma(case: &Case) -> bool {
    case.has("eps_per_step.f64")
}

fn mma_of(case: &Case) -> Mma {
    let whole = |name: &str| case.meta["hyper"][name].as_u64().unwrap();
    Mma {
        d_max: Some(decimal(case.hyper("hinge"))),
        min_radius: Some(decimal(case.hyper("mineps"))),
        steps: Some(whole("nb_iter")),
        reach: case.hyper("eps_iter_scale"),
        search_steps: whole("search_steps"),
        clean_weight: if case.meta["method"] == "omma" {
            0.0
        } else {
            case.hyper("clean_loss_coeff")
        },
        batch_norm: BatchNorm::Eval,
    }
}

pub(super) fn check(case: &Case, dtype: DType) -> std::result::Result<(), NotBuilt> {
    let defense = trained_by(case)?;
    let model = Recorder {
        net: Net::read(case, "init/", dtype)?,
        passes: Mutex::default(),
        training_logits: Mutex::default(),
    };
    let parameters: Vec<Parameter> = model.net.parameters().map(parameter).collect();
    let optimizer = optimizer_of(case);
    let mut descent = optimizer.over(&parameters);
    let order: Vec<u64> = serde_json::from_value(case.meta["batch_order"].clone()).unwrap();
    let batches = order.iter().max().map_or(0, |last| last + 1);
    let size = case.raw("batch0.labels").elem_count() as u64;
    let mut memory = defense.memory((batches * size) as usize);

    for (index, &number) in order.iter().enumerate() {
        let batch = Batch {
            images: case.input(&format!("batch{number}.x"), dtype),
            labels: case.indices(&format!("batch{number}.labels")),
            ids: (number * size..(number + 1) * size).collect(),
        };
        let threat = Threat {
            norm: Norm::Linf,
            epsilon: decimal(case.hyper("epsilon")),
        };
        model.passes.lock().unwrap().clear();
        model.training_logits.lock().unwrap().clear();
        let random = Stream::replay(draws(case, index));
        let mut step = Step::new(&model, &batch, &threat, random, 0, &mut memory);
        let loss = defense.objective(&mut step).unwrap();
        let perturbed = step.perturbed.take().unwrap();
        check_step(case, index, &model, &loss, &perturbed, dtype);
        if is_mma(case) {
            check_mma(case, index, &model, &batch, &memory, dtype);
        }
        descent.step(&loss.backward().unwrap(), optimizer.rate()).unwrap();
    }

    let what = |name: &str| format!("{} {name} {dtype:?}", case.path.display());
    let allowed = tolerance(dtype, 2e-5, 1e-7);
    for (name, tensor) in &model.net.tensors {
        let expected = case.result(&format!("final/{name}"));
        assert_near(&what(name), tensor, &expected, allowed);
    }
    let state = descent.state();
    for parameter in &parameters {
        let name = format!("momentum/{}", parameter.name);
        assert_near(&what(&name), &state[&name], &case.result(&name), allowed);
    }
    Ok(())
}

fn parameter((name, var): (&str, &candle_core::Var)) -> Parameter {
    Parameter {
        name: name.to_string(),
        var: var.clone(),
        role: Role::Weight,
    }
}

fn optimizer_of(case: &Case) -> Optimizer {
    let sgd = |name: &str| case.meta["sgd"][name].as_f64().unwrap();
    Optimizer::Sgd {
        rate: sgd("lr"),
        momentum: sgd("momentum"),
        nesterov: false,
        weight_decay: sgd("weight_decay"),
        decay: Decay::All,
    }
}

/// The recorded draws of a step.
fn draws(case: &Case, index: usize) -> Vec<f32> {
    let noise = case.raw(&format!("noise{index}"));
    if !is_mma(case) {
        return noise.flatten_all().unwrap().to_vec1().unwrap();
    }
    // Draws in (−1, 1), of the rows that are attacked.
    let correct = correct_in(case, index);
    let rows: Vec<usize> = (0..correct.len()).filter(|&row| correct[row]).collect();
    let noise = attacks::select_rows(noise, &rows).unwrap();
    let draws = doubles(&noise).into_iter().map(|draw| ((draw + 1.0) / 2.0) as f32);
    draws.collect()
}

/// Which images of a step were classified correctly.
fn correct_in(case: &Case, index: usize) -> Vec<bool> {
    let flags = doubles(&case.raw("correct_per_step").get(index).unwrap());
    flags.iter().map(|&flag| flag == 1.0).collect()
}

/// Loss, images and passes of one step.
fn check_step(case: &Case, index: usize, model: &Recorder, loss: &Tensor, perturbed: &Tensor, dtype: DType) {
    let what = |name: &str| format!("{} step {index} {name} {dtype:?}", case.path.display());
    let row = |name: &str| case.result(name).get(index).unwrap();
    let image_tolerance = if is_mma(case) {
        tolerance(dtype, 1e-5, 1e-6)
    } else {
        tolerance(dtype, 1e-6, 1e-7)
    };
    let loss_tolerance = tolerance(dtype, 2e-5, 1e-7);
    assert_near(&what("loss"), loss, &row("loss_per_step"), loss_tolerance);
    assert_near(&what("x_adv"), perturbed, &row("x_adv_per_step"), image_tolerance);
    let recorded = case.meta["forward_sequence_per_step"][index].as_str().unwrap();
    assert_eq!(
        passes(&model.passes.lock().unwrap(), recorded),
        passes(recorded, recorded),
        "{}",
        what("passes")
    );
}

/// Radii and both terms of the loss of one step of MMA.
fn check_mma(case: &Case, index: usize, model: &Recorder, batch: &Batch, memory: &Memory, dtype: DType) {
    let what = |name: &str| format!("{} step {index} {name} {dtype:?}", case.path.display());
    let row = |name: &str| case.result(name).get(index).unwrap();
    let correct = correct_in(case, index);
    let column = &memory.columns["radius"];
    let radii: Vec<f64> = batch.ids.iter().map(|&id| f64::from(column[id as usize])).collect();
    let stored = Tensor::new(radii.as_slice(), &Device::Cpu).unwrap();
    assert_near(
        &what("eps"),
        &stored,
        &row("eps_per_step"),
        tolerance(dtype, 1e-6, 1e-7),
    );
    let logits = model.training_logits.lock().unwrap();
    let (clean, second) = (&logits[0], &logits[logits.len() - 1]);
    assert_eq!(
        mma::is_correct(clean, &batch.labels).unwrap(),
        correct,
        "{}",
        what("correct")
    );
    let parts = mma_of(case)
        .loss(clean, second, &batch.labels, &correct, &radii, Tensor::mean_all)
        .unwrap();
    let allowed = tolerance(dtype, 2e-5, 1e-7);
    assert_near(&what("margin"), &parts.margin, &row("mma_part_per_step"), allowed);
    assert_near(&what("clean"), &parts.clean, &row("clean_part_per_step"), allowed);
}

/// The order of passes in a comparable form: consecutive evaluation passes count as one, since the authors of TRADES
/// evaluate the clean images before every step; none if the record has none.
fn passes(sequence: &str, recorded: &str) -> String {
    let mut kept = String::new();
    for pass in sequence.chars() {
        let repeated = pass == 'e' && kept.ends_with('e');
        if !repeated && (pass == 'T' || recorded.contains('e')) {
            kept.push(pass);
        }
    }
    kept
}
