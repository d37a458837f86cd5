//! Every network against what the authors' code computed: logits, gradients, running statistics and
//! the names of the state dictionary.

use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use random::Stream;
use reference::{Case, assert_close, assert_close_to_largest, doubles};
use serde_json::Value;

use super::described;
use crate::{Classifier, Mode, Network, Parameter};

/// Larger networks run in single precision only, which keeps the test under a minute.
const LARGEST_IN_DOUBLE: usize = 20_000_000;

#[test]
fn reference_networks() {
    reference::run("networks", &[], |case| {
        if case.kind() != "network" {
            return Err(case.unknown_kind());
        }
        let start = Instant::now();
        let network = described::network(case, DType::F32)?;
        check_names(case, &network);
        check(case, &network);
        if network.parameter_count() <= LARGEST_IN_DOUBLE {
            check(case, &described::network(case, DType::F64)?);
        }
        eprintln!("{}: {:.1} s", case.path.display(), start.elapsed().as_secs_f64());
        Ok(())
    });
}

/// The name that a matrix gives to a network builds the same state dictionary.
#[test]
fn reference_networks_have_names() {
    let named = |name: &str| format!("networks/{name}_hash.safetensors");
    for (file, name) in [
        ("smallcnn", "small-cnn"),
        ("lenet5madry", "lenet5"),
        ("resnet18", "resnet18"),
        ("wrn_10_2", "wrn-10-2"),
        ("mma_wrn_10_2", "mma-wrn-10-2"),
    ] {
        let case = Case::read(&reference::vectors().join(named(file)));
        let network = crate::build(name, reference::networks::image(&case), 10, &Stream::new(0)).unwrap();
        check_names(&case, &network);
    }
}

fn check_names(case: &Case, network: &Network) {
    let theirs = reference::networks::entries(case).into_iter();
    let theirs: Vec<_> = theirs.map(|(name, shape, _)| (name, shape)).collect();
    assert_eq!(
        described::state_shapes(network),
        theirs,
        "{}: state dictionary",
        case.path.display()
    );
    let ours: Vec<_> = network.parameters().iter().map(|parameter| &parameter.name).collect();
    let theirs = case.meta["param_names"].as_array().unwrap();
    let theirs: Vec<_> = theirs.iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(ours, theirs, "{}: parameters", case.path.display());
}

/// Tolerances of the reference's README for one precision.
struct Tolerance {
    case: Value,
    double: bool,
    /// Whether the case is one of this repository's vectors.
    ours: bool,
}

impl Tolerance {
    /// Logits: of the largest value in the tensor. Elsewhere than in this repository's vectors, where less is enough,
    /// five times what PyTorch's own single precision deviates.
    fn values(&self, deviation: &str) -> f64 {
        let theirs = self.case["float32_deviation"][deviation].as_f64().unwrap_or(0.0);
        match (self.double, self.ours) {
            (true, _) => 1e-9,
            (false, true) => 5e-6,
            (false, false) => (5.0 * theirs).max(5e-6),
        }
    }

    /// Losses: times max(1, |value|).
    fn loss(&self) -> f64 {
        if self.double { 1e-9 } else { 2e-5 }
    }

    /// Gradients: what PyTorch's own single precision deviates, times five, at least 1e-5.
    fn gradient(&self, deviation: &str) -> f64 {
        let theirs = self.case["float32_deviation"][deviation].as_f64().unwrap();
        if self.double { 1e-7 } else { (5.0 * theirs).max(1e-5) }
    }
}

/// Logits and labels to the scalar that a recorded gradient is of.
type Loss = fn(&Tensor, &Tensor) -> Tensor;

/// The recorded gradients: name, its single-precision deviation, and what it is the gradient of.
const INPUT_GRADIENTS: [(&str, &str, Loss); 2] = [
    (
        "input_grad_ce_sum_eval",
        "input_grad_ce_rel_to_max",
        |logits, labels| kernels::cross_entropy(logits, labels).unwrap().sum_all().unwrap(),
    ),
    ("input_grad_lin_eval", "input_grad_lin_rel_to_max", |logits, _| {
        let classes = logits.dims()[1] as u32;
        let cosines: Vec<f64> = (0..classes).map(|k| f64::from(k).cos()).collect();
        let cosines = Tensor::new(cosines, &Device::Cpu).unwrap();
        let cosines = cosines.to_dtype(logits.dtype()).unwrap();
        logits.broadcast_mul(&cosines).unwrap().sum_all().unwrap()
    }),
];

fn input_gradient(network: &dyn Classifier, x: &Var, labels: &Tensor, loss: Loss) -> Tensor {
    let logits = network.logits(x, Mode::Eval).unwrap();
    loss(&logits, labels).backward().unwrap().remove(x).unwrap()
}

/// The largest difference, over the largest |value| expected.
fn difference(actual: &Tensor, expected: &Tensor) -> f64 {
    let (actual, expected) = (doubles(actual), doubles(expected));
    let largest = expected.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
    let differences = actual.iter().zip(&expected).map(|(a, e)| (a - e).abs());
    differences.fold(0.0, f64::max) / largest
}

/// How far a result moves when the parameters move by about what single precision rounds away: the
/// largest of some measure over four such moves. A ReLU whose input is that close to zero is on in one
/// rounding and off in the next, and gradients jump: on some files PyTorch's own convolution
/// algorithms disagree for that reason.
fn sensitivity(network: &Network, measure: impl Fn() -> f64) -> f64 {
    let parameters = network.parameters();
    let kept: Vec<Tensor> = parameters
        .iter()
        .map(|parameter| parameter.var.as_tensor().copy().unwrap())
        .collect();
    // A sum of some hundred products carries an error of a few roundings, 2^-24 each.
    let rounding = 2.0f64.powi(-21);
    let moved = (0..4).map(|seed| {
        for (index, (parameter, values)) in parameters.iter().zip(&kept).enumerate() {
            let draws = Stream::new(seed).uniform(&[index as u64], values.elem_count());
            let draws = Tensor::from_vec(draws, values.shape(), &Device::Cpu).unwrap();
            let factors = draws.affine(2.0 * rounding, 1.0 - rounding).unwrap();
            let factors = factors.to_dtype(values.dtype()).unwrap();
            parameter.var.set(&(values * factors).unwrap()).unwrap();
        }
        measure()
    });
    let largest = moved.fold(0.0, f64::max);
    for (parameter, values) in parameters.iter().zip(&kept) {
        parameter.var.set(values).unwrap();
    }
    largest
}

/// The larger tolerance; prints that the strict one was exceeded.
fn loosened(what: &str, strict: f64, measured: f64) -> f64 {
    eprintln!("{what}: ReLUs at zero; {measured:.1e} of the largest allowed instead of {strict:.1e}");
    strict.max(measured)
}

/// Gradients of the mean cross entropy with respect to all parameters, after one training pass.
fn parameter_gradients(network: &Network, train: Train, x: &Tensor, labels: &Tensor) -> Vec<Vec<f64>> {
    let logits = train(network, x);
    let ce = kernels::cross_entropy(&logits, labels).unwrap().mean_all().unwrap();
    let gradients = ce.backward().unwrap();
    let of = |parameter: &Parameter| match gradients.get(&parameter.var) {
        Some(gradient) => doubles(gradient),
        None => vec![0.0; parameter.var.elem_count()],
    };
    network.parameters().iter().map(of).collect()
}

/// Norm and first sixteen values (zeros where there are fewer) of every gradient.
fn digest(gradients: &[Vec<f64>]) -> Vec<(f64, Vec<f64>)> {
    let digest = |gradient: &Vec<f64>| {
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let firsts = (0..16).map(|i| gradient.get(i).copied().unwrap_or(0.0));
        (norm, firsts.collect())
    };
    gradients.iter().map(digest).collect()
}

/// The largest difference in one entry of a digest, over the norm expected.
fn digest_difference(actual: &(f64, Vec<f64>), expected: &(f64, Vec<f64>)) -> f64 {
    let firsts = actual.1.iter().zip(&expected.1).map(|(a, e)| (a - e).abs());
    let largest = firsts.fold((actual.0 - expected.0).abs(), f64::max);
    if largest == 0.0 { 0.0 } else { largest / expected.0 }
}

fn check(case: &Case, network: &Network) {
    let dtype = network.dtype();
    let what = |name: &str| format!("{} {dtype:?} {name}", case.path.display());
    let tolerance = Tolerance {
        case: case.meta.clone(),
        double: dtype == DType::F64,
        ours: case.path.starts_with(reference::vectors()),
    };
    let labels = case.indices("labels");
    let x = Var::from_tensor(&reference::networks::images(case, dtype)).unwrap();

    let check_eval = |how: &str, classifier: &dyn Classifier| {
        let what = |name: &str| what(&format!("{name} {how}"));
        let logits = classifier.logits(&x, Mode::Eval).unwrap();
        assert_close_to_largest(
            &what("logits_eval"),
            &logits,
            &case.result("logits_eval"),
            tolerance.values("logits_eval_rel_to_max"),
        );

        let ce = kernels::cross_entropy(&logits, &labels).unwrap().sum_all().unwrap();
        // A sum of losses as large as the logits: what their tolerance allows, once per example.
        let largest = doubles(&logits).into_iter().fold(1.0, |m: f64, z| m.max(z.abs()));
        let allowed =
            tolerance.loss() + 2.0 * tolerance.values("logits_eval_rel_to_max") * largest * labels.elem_count() as f64;
        assert_close(
            &what("ce_eval_sum"),
            &ce,
            &case.result("ce_eval_sum"),
            allowed,
            tolerance.loss(),
        );
        for (name, deviation, loss) in INPUT_GRADIENTS {
            let gradient = input_gradient(classifier, &x, &labels, loss);
            let expected = case.result(name);
            let mut allowed = tolerance.gradient(deviation);
            if dtype == DType::F32 && difference(&gradient, &expected) > allowed {
                let moves = || difference(&input_gradient(network, &x, &labels, loss), &gradient);
                allowed = loosened(&what(name), allowed, 3.0 * sensitivity(network, moves));
            }
            assert_close_to_largest(&what(name), &gradient, &expected, allowed);
        }
    };
    check_eval("", network);
    if let Some(frozen) = network.freeze().unwrap() {
        check_eval("frozen", frozen.as_ref());
    }

    let state = network.state().unwrap();
    let ways: [(&str, Train); 2] = [
        ("as one operation", |network, x| {
            network.logits(x, Mode::Train(None)).unwrap()
        }),
        ("by layers", |network, x| {
            network.logits_by_layers(x, Mode::Train(None)).unwrap()
        }),
    ];
    for (how, train) in ways {
        network.load_state(&state).unwrap();
        check_train(case, network, how, train, &x.as_tensor().detach(), &labels, &tolerance);
    }
}

/// One forward pass in training mode.
type Train = fn(&Network, &Tensor) -> Tensor;

fn check_train(
    case: &Case,
    network: &Network,
    how: &str,
    train: Train,
    x: &Tensor,
    labels: &Tensor,
    tolerance: &Tolerance,
) {
    let dtype = network.dtype();
    let what = |name: &str| format!("{} {dtype:?} {how} {name}", case.path.display());
    let logits = train(network, x);
    assert_close_to_largest(
        &what("logits_train"),
        &logits,
        &case.result("logits_train"),
        tolerance.values("logits_train_rel_to_max"),
    );
    let ce = kernels::cross_entropy(&logits, labels).unwrap().mean_all().unwrap();
    assert_close(
        &what("ce_train_mean"),
        &ce,
        &case.result("ce_train_mean"),
        tolerance.loss(),
        tolerance.loss(),
    );
    let buffers = network.buffers();
    let recorded = case.tensors().keys().filter(|name| name.starts_with("running_after"));
    assert_eq!(recorded.count(), buffers.len(), "{}", what("running statistics"));
    for buffer in buffers {
        // Recorded in float32 only, so this precision is all there is to compare with.
        let name = format!("running_after_one_train_forward/{}", buffer.name);
        let recorded = case.raw(&name).to_dtype(DType::F64).unwrap();
        assert_close_to_largest(&what(&name), buffer.var.as_tensor(), &recorded, running_tolerance(case));
    }

    let ours = digest(&parameter_gradients(network, train, x, labels));
    let (norms, firsts) = (
        doubles(&case.result("param_grad_norm")),
        doubles(&case.result("param_grad_first16")),
    );
    let theirs: Vec<_> = norms
        .into_iter()
        .zip(firsts.chunks(16))
        .map(|(norm, firsts)| (norm, firsts.to_vec()))
        .collect();
    let worst = |a: &[(f64, Vec<f64>)], b: &[(f64, Vec<f64>)]| {
        a.iter()
            .zip(b)
            .map(|(a, b)| digest_difference(a, b))
            .fold(0.0, f64::max)
    };
    let mut allowed = tolerance.gradient("param_grad_rel_l2_worst");
    if dtype == DType::F32 && worst(&ours, &theirs) > allowed {
        let moves = || worst(&digest(&parameter_gradients(network, train, x, labels)), &ours);
        allowed = loosened(&what("parameter gradients"), allowed, 3.0 * sensitivity(network, moves));
    }
    for (parameter, (ours, theirs)) in network.parameters().iter().zip(ours.iter().zip(&theirs)) {
        let difference = digest_difference(ours, theirs);
        let what = what(&format!("gradient of {}", parameter.name));
        assert!(
            difference <= allowed,
            "{what}: off by {difference:e} of its norm, allowed {allowed:e}; {ours:?} instead of {theirs:?}"
        );
    }
}

/// 5e-6 of the largest, or five times what the authors' own single precision deviates.
fn running_tolerance(case: &Case) -> f64 {
    let theirs = case.meta["float32_deviation"]["running_rel"].as_f64().unwrap();
    (5.0 * theirs).max(5e-6)
}
