//! Three training steps of every defense against the authors' code, in both precisions.

use std::sync::Mutex;

use attacks::{BatchNorm, Loss, Norm, Pixels, Start};
use candle_core::{DType, Tensor};
use models::{Parameter, Role};
use reference::{Case, doubles};

use crate::testing::{BOTH, Net, assert_near, pixels, tolerance};
use crate::*;

#[test]
fn reference_training() {
    reference::run("training", &[], |case| {
        for dtype in BOTH {
            match case.kind() {
                "training" => check_training(case, dtype),
                _ => return false,
            }
        }
        true
    });
}

/// A network that notes the order and the logits of its passes.
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
fn trained_by(case: &Case) -> Box<dyn Defense> {
    let method = case.meta["method"].as_str().unwrap();
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
    let cross_entropy = attack(small, Loss::CrossEntropy);
    let weight = |name: &str| Some(case.hyper(name));
    match method {
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
        "mma" | "omma" => Box::new(mma_of(case)),
        _ => panic!("{}: unknown method {method}", case.path.display()),
    }
}

fn is_mma(case: &Case) -> bool {
    case.has("eps_per_step.f64")
}

fn mma_of(case: &Case) -> Mma {
    let whole = |name: &str| case.meta["hyper"][name].as_u64().unwrap();
    Mma {
        d_max: Some(pixels(case.hyper("hinge"))),
        min_radius: Some(pixels(case.hyper("mineps"))),
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

fn check_training(case: &Case, dtype: DType) {
    let model = Recorder {
        net: Net::read(case, "init/", dtype),
        passes: Mutex::default(),
        training_logits: Mutex::default(),
    };
    let parameters: Vec<Parameter> = model
        .net
        .parameters()
        .map(|(name, var)| Parameter {
            name: name.to_string(),
            var: var.clone(),
            role: Role::Weight,
        })
        .collect();
    let sgd = |name: &str| case.meta["sgd"][name].as_f64().unwrap();
    let optimizer = Optimizer::Sgd {
        rate: sgd("lr"),
        momentum: sgd("momentum"),
        nesterov: false,
        weight_decay: sgd("weight_decay"),
        decay: Decay::All,
    };
    let mut descent = optimizer.over(&parameters);
    let defense = trained_by(case);
    let order: Vec<u64> = case.meta["batch_order"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap())
        .collect();
    let size = case.raw("batch0.labels").elem_count() as u64;
    let mut memory = defense.memory(2 * size as usize);
    let what = |step: usize, name: &str| format!("{} step {step} {name} {dtype:?}", case.path.display());
    let row = |name: &str, step: usize| case.result(name).get(step).unwrap();
    let (loss_tolerance, image_tolerance) = if is_mma(case) {
        (tolerance(dtype, 2e-5, 1e-7), tolerance(dtype, 1e-5, 1e-6))
    } else {
        (tolerance(dtype, 2e-5, 1e-7), tolerance(dtype, 1e-6, 1e-7))
    };

    for (index, &number) in order.iter().enumerate() {
        let batch = Batch {
            images: case.input(&format!("batch{number}.x"), dtype),
            labels: case.indices(&format!("batch{number}.labels")),
            ids: (number * size..(number + 1) * size).collect(),
        };
        let noise = case.raw(&format!("noise{index}"));
        let draws: Vec<f32> = if is_mma(case) {
            // Draws in (−1, 1), of the rows that are attacked.
            let correct = case
                .raw("correct_per_step")
                .get(index)
                .unwrap()
                .to_vec1::<i64>()
                .unwrap();
            let rows: Vec<usize> = (0..correct.len()).filter(|&row| correct[row] == 1).collect();
            let noise = attacks::select_rows(noise, &rows).unwrap();
            doubles(&noise)
                .into_iter()
                .map(|draw| ((draw + 1.0) / 2.0) as f32)
                .collect()
        } else {
            noise.flatten_all().unwrap().to_vec1().unwrap()
        };
        let threat = Threat {
            norm: Norm::Linf,
            epsilon: pixels(case.hyper("epsilon")),
        };
        model.passes.lock().unwrap().clear();
        model.training_logits.lock().unwrap().clear();
        let mut step = Step::new(&model, &batch, &threat, Stream::replay(draws), 0, &mut memory);
        let loss = defense.objective(&mut step).unwrap();
        let perturbed = step.perturbed.take().unwrap();
        assert_near(
            &what(index, "loss"),
            &loss,
            &row("loss_per_step", index),
            loss_tolerance,
        );
        assert_near(
            &what(index, "x_adv"),
            &perturbed,
            &row("x_adv_per_step", index),
            image_tolerance,
        );
        let recorded = case.meta["forward_sequence_per_step"][index].as_str().unwrap();
        assert_eq!(
            passes(&model.passes.lock().unwrap(), recorded),
            passes(recorded, recorded),
            "{}",
            what(index, "passes")
        );
        if is_mma(case) {
            let correct: Vec<bool> = doubles(&case.raw("correct_per_step").get(index).unwrap())
                .iter()
                .map(|&flag| flag == 1.0)
                .collect();
            let radii: Vec<f64> = batch
                .ids
                .iter()
                .map(|&id| f64::from(memory.columns["radius"][id as usize]))
                .collect();
            let size = radii.len();
            let stored = Tensor::new(radii.clone(), &candle_core::Device::Cpu)
                .unwrap()
                .reshape(size)
                .unwrap();
            assert_near(
                &what(index, "eps"),
                &stored,
                &row("eps_per_step", index),
                tolerance(dtype, 1e-6, 1e-7),
            );
            let logits = model.training_logits.lock().unwrap();
            let (clean, second) = (&logits[0], &logits[logits.len() - 1]);
            assert_eq!(
                mma::is_correct(clean, &batch.labels).unwrap(),
                correct,
                "{}",
                what(index, "correct")
            );
            let parts = mma_of(case)
                .loss(clean, second, &batch.labels, &correct, &radii, Tensor::mean_all)
                .unwrap();
            assert_near(
                &what(index, "margin"),
                &parts.margin,
                &row("mma_part_per_step", index),
                loss_tolerance,
            );
            assert_near(
                &what(index, "clean"),
                &parts.clean,
                &row("clean_part_per_step", index),
                loss_tolerance,
            );
        }
        let gradients = loss.backward().unwrap();
        let rate = optimizer.rate();
        descent.step(&gradients, rate).unwrap();
    }

    let last = order.len();
    let allowed = tolerance(dtype, 2e-5, 1e-7);
    for (name, tensor) in &model.net.tensors {
        assert_near(
            &what(last, name),
            tensor,
            &case.result(&format!("final/{name}")),
            allowed,
        );
    }
    let state = descent.state();
    for parameter in &parameters {
        let name = format!("momentum/{}", parameter.name);
        assert_near(&what(last, &name), &state[&name], &case.result(&name), allowed);
    }
}

/// The order of passes in a comparable form: each run of evaluation passes as one, since the authors of
/// TRADES look at the clean images anew before every step; none if the record has none.
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
