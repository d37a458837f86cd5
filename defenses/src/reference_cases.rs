//! Every training loss, and three training steps of every defense, against the authors' code, in both
//! precisions.

use std::sync::Mutex;

use attacks::losses::{cross_entropy, kl, prediction, soft_margin};
use attacks::{BatchNorm, Loss, Norm, Pixels, Start};
use candle_core::{DType, Tensor, Var};
use models::{Parameter, Role};
use reference::{Case, doubles};

use crate::testing::{BOTH, Net, assert_near, assert_near_where, tolerance};
use crate::*;

#[test]
fn reference_training_losses() {
    reference::run("losses", &["losses_fosc"], |case| {
        for dtype in BOTH {
            match case.kind() {
                "losses_pair" => check_pair(case, dtype),
                "losses_mma" => check_mma(case, dtype),
                _ => return false,
            }
        }
        true
    });
}

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

/// What a training loss is a function of.
struct Pair {
    clean: Var,
    robust: Var,
    labels: Tensor,
    subset: Tensor,
}

/// A loss by its name in the reference vectors: one value per example, or a scalar.
fn training_loss(case: &Case, name: &str, pair: &Pair) -> Result<Tensor> {
    let Pair {
        clean,
        robust,
        labels,
        subset,
    } = pair;
    let everyone = subset.ones_like()?;
    let mart = Mart {
        lambda: Some(case.hyper("mart_beta")),
        ..Mart::default()
    };
    let alp = |form, lambda: &str| Alp {
        form,
        lambda: Some(case.hyper(lambda)),
        ..Alp::default()
    };
    let clp = |form, lambda: &str| Clp {
        form,
        lambda: Some(case.hyper(lambda)),
        ..Clp::default()
    };
    match name {
        "at" => cross_entropy(robust, labels),
        "alp_prob" => alp(AlpForm::Probabilities, "alp_prob_lambda").loss(clean, robust, labels),
        "alp_logit" => alp(AlpForm::Logits, "alp_logit_weight").loss(clean, robust, labels),
        "clp_prob" => clp(ClpForm::Probabilities, "clp_prob_lambda").loss(clean, robust, labels),
        "clp_logit" => clp(ClpForm::Logits, "clp_logit_weight").loss(clean, robust, labels),
        "clp_pair" => clp(ClpForm::Pair, "clp_pair_weight").pair_loss(clean, labels),
        "trades" | "trades_author" => {
            let trades = Trades {
                beta: Some(case.hyper("trades_beta")),
                ..Trades::default()
            };
            trades.loss(clean, robust, clean, labels)
        }
        "mart" | "mart_author" => mart.loss(clean, robust, labels, &everyone),
        "mart_no_weight" => Mart {
            weighted: false,
            ..mart
        }
        .loss(clean, robust, labels, &everyone),
        "mart_bce_only" => Mart {
            lambda: Some(0.0),
            ..mart
        }
        .loss(clean, robust, labels, &everyone),
        "mart_ce" => Mart {
            boost: Boost::None,
            ..mart
        }
        .loss(clean, robust, labels, &everyone),
        "mart_bce_nat" => Mart {
            boost: Boost::Natural,
            ..mart
        }
        .loss(clean, robust, labels, &everyone),
        "mart_subset" => mart.loss(clean, robust, labels, subset),
        // Two losses of the MART paper that no defense here trains with, out of the same parts.
        "ce_kl_subset" => {
            let divergence = (kl(clean, robust)? * subset)?;
            cross_entropy(robust, labels)? + (divergence * case.hyper("ce_kl_lambda"))?
        }
        "mma_table1" => {
            let correct = prediction(clean)?.eq(labels)?;
            correct.where_cond(&cross_entropy(robust, labels)?, &cross_entropy(clean, labels)?)
        }
        _ => panic!("{}: unknown loss {name}", case.path.display()),
    }
}

fn check_pair(case: &Case, dtype: DType) {
    let variable = |name: &str| Var::from_tensor(&case.input(name, dtype)).unwrap();
    let pair = Pair {
        clean: variable("nat_logits"),
        robust: variable("adv_logits"),
        labels: case.indices("labels"),
        subset: case.input("subset_mask", dtype),
    };
    let (examples, classes) = pair.clean.dims2().unwrap();
    let extreme = !case.meta["note"].as_str().unwrap_or("").is_empty();
    let value_tolerance = tolerance(dtype, if extreme { 1e-3 } else { 2e-5 }, 1e-9);
    let gradient_tolerance = tolerance(dtype, if extreme { 1e-4 } else { 2e-5 }, 1e-9);
    let tied = case
        .has("tie_rows")
        .then(|| case.indices("tie_rows").to_vec1::<u32>().unwrap());
    let mut seen = 0;
    for name in case.tensors().keys() {
        let Some(name) = name.strip_suffix(".total.f32").filter(|name| !name.starts_with("atk_")) else {
            continue;
        };
        let what = format!("{} {name} {dtype:?}", case.path.display());
        let values = training_loss(case, name, &pair).unwrap();
        let total = values.mean_all().unwrap();
        if name.ends_with("_author") {
            let tolerance = if extreme { 1e-3 } else { 2e-5 };
            assert_near(&what, &total, &case.result(&format!("{name}.total")), tolerance);
            continue;
        }
        seen += 1;
        assert_near(&what, &total, &case.result(&format!("{name}.total")), value_tolerance);
        if case.has(&format!("{name}.per_example.f64")) {
            assert_near(
                &what,
                &values,
                &case.result(&format!("{name}.per_example")),
                value_tolerance,
            );
        }
        let gradients = total.backward().unwrap();
        let boosted = name.starts_with("mart") && name != "mart_ce";
        for (side, variable) in [("grad_nat", &pair.clean), ("grad_adv", &pair.robust)] {
            if !case.has(&format!("{name}.{side}.f64")) {
                continue;
            }
            let gradient = gradients
                .get(variable)
                .cloned()
                .unwrap_or(variable.zeros_like().unwrap());
            // Where classes tie for the best wrong one, only the choice among them is open.
            assert_near_where(
                &format!("{what} {side}"),
                &gradient,
                &case.result(&format!("{name}.{side}")),
                gradient_tolerance,
                |i| boosted && tied.as_ref().is_some_and(|tied| tied[i / classes] == 1),
            );
        }
    }
    assert_eq!(seen, if examples % 2 == 0 { 15 } else { 14 }, "{}", case.path.display());
}

fn check_mma(case: &Case, dtype: DType) {
    let variable = |name: &str| Var::from_tensor(&case.input(name, dtype)).unwrap();
    let (clean, second) = (variable("nat_logits"), variable("second_logits"));
    let labels = case.indices("labels");
    let margins = soft_margin(&clean, &labels).unwrap();
    let correct = mma::is_correct(&clean, &labels).unwrap();
    let flags = |name: &str| {
        doubles(case.raw(name))
            .into_iter()
            .map(|flag| flag == 1.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(correct, flags("correct_mask"));
    let mma = Mma {
        d_max: Some(pixels(case.hyper("hinge_maxeps"))),
        clean_weight: case.hyper("clean_loss_coeff"),
        ..Mma::default()
    };
    let radii = doubles(case.raw("eps"));
    let loss = mma.loss(&clean, &second, &labels, &correct, &radii).unwrap();
    let allowed = tolerance(dtype, 2e-5, 1e-9);
    let check = |name: &str, actual: &Tensor| {
        assert_near(
            &format!("{} {name} {dtype:?}", case.path.display()),
            actual,
            &case.result(name),
            allowed,
        );
    };
    check("slm_nat", &margins);
    check("mma.total", &loss.total);
    check("mma.mma_part", &loss.margin);
    check("mma.clean_part", &loss.clean);
    let gradients = loss.total.backward().unwrap();
    let gradient = |variable: &Var| {
        gradients
            .get(variable)
            .cloned()
            .unwrap_or(variable.zeros_like().unwrap())
    };
    check("mma.grad_nat", &gradient(&clean));
    check("mma.grad_second", &gradient(&second));
    // Of one example alone the loss is that example's share. The record notes the hinge of correct ones
    // only: the wrong ones are always kept.
    let kept = flags("kept_mask");
    for row in 0..correct.len() {
        let row_of = |tensor: &Tensor| tensor.narrow(0, row, 1).unwrap();
        let (clean, second, labels) = (row_of(&clean), row_of(&second), row_of(&labels));
        let alone = mma
            .loss(&clean, &second, &labels, &correct[row..=row], &radii[row..=row])
            .unwrap();
        let what = format!("{} row {row}", case.path.display());
        let expected = case.result("mma.per_example").get(row).unwrap();
        assert_near(&what, &alone.total, &expected, allowed);
        assert_eq!(doubles(&alone.margin)[0] > 0.0, kept[row] || !correct[row], "{what}");
    }
}

/// The decimal that was recorded, exactly.
fn pixels(value: f64) -> Pixels {
    value.to_string().parse().unwrap()
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
                .loss(clean, second, &batch.labels, &correct, &radii)
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
