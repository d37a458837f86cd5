//! Tests of the optimizers.

use super::*;
use crate::clip_gradients;
use candle_core::Var;
use candle_core::backprop::GradStore;
use models::Role;
use testing::{assert_near, tensor};

fn parameter(name: &str, values: &[f64], role: Role) -> Parameter {
    let var = Var::from_tensor(&tensor(values, &[values.len()])).unwrap();
    Parameter {
        name: name.to_string(),
        var,
        role,
    }
}

/// Gradients θ² of every parameter: those of Σ θ³/3.
fn gradients(parameters: &[Parameter]) -> GradStore {
    let cubes = parameters
        .iter()
        .map(|parameter| parameter.var.powf(3.0).unwrap().sum_all().unwrap());
    let total = cubes.reduce(|a, b| (a + b).unwrap()).unwrap();
    (total / 3.0).unwrap().backward().unwrap()
}

fn sgd(momentum: f64, nesterov: bool, weight_decay: f64, decay: Decay) -> Optimizer {
    Optimizer::Sgd {
        rate: 0.1,
        momentum,
        nesterov,
        weight_decay,
        decay,
    }
}

/// Three steps from θ = 0.8 against the textbook loop over one number.
#[track_caller]
fn check(optimizer: &Optimizer, mut textbook: impl FnMut(f64, f64) -> f64) {
    let parameters = [parameter("w", &[0.8], Role::Weight)];
    let mut descent = optimizer.over(&parameters);
    let mut theta: f64 = 0.8;
    for rate in [0.1, 0.1, 0.05] {
        descent.step(&gradients(&parameters), rate).unwrap();
        theta -= rate * textbook(theta * theta, theta);
    }
    assert_near("theta", &parameters[0].var, &tensor(&[theta], &[1]), 1e-12);
}

#[test]
fn sgd_is_that_of_torch() {
    check(&sgd(0.0, false, 0.0, Decay::All), |g, _| g);
    check(&sgd(0.0, false, 0.3, Decay::All), |g, theta| g + 0.3 * theta);
    let mut buffer = None;
    check(&sgd(0.9, false, 0.3, Decay::All), |g, theta| {
        let g = g + 0.3 * theta;
        *buffer.insert(buffer.map_or(g, |buffer: f64| 0.9 * buffer + g))
    });
    let mut buffer = None;
    check(&sgd(0.9, true, 0.0, Decay::All), |g, _| {
        g + 0.9 * *buffer.insert(buffer.map_or(g, |buffer: f64| 0.9 * buffer + g))
    });
}

#[test]
fn adam_is_that_of_torch() {
    let optimizer = Optimizer::Adam {
        rate: 0.1,
        betas: [0.9, 0.99],
        epsilon: 1e-3,
        weight_decay: 0.2,
    };
    let (mut m, mut v, mut t) = (0.0, 0.0, 0);
    check(&optimizer, |g, theta| {
        let g = g + 0.2 * theta;
        t += 1;
        m = 0.9 * m + 0.1 * g;
        v = 0.99 * v + 0.01 * g * g;
        let (m, v) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.99f64.powi(t)));
        m / (v.sqrt() + 1e-3)
    });
}

#[test]
fn decay_may_spare_biases_and_batch_norm() {
    let roles = [("w", Role::Weight), ("b", Role::Bias), ("n", Role::BatchNorm)];
    let after = |decay| {
        let parameters = roles.map(|(name, role)| parameter(name, &[2.0], role));
        sgd(0.0, false, 0.5, decay)
            .over(&parameters)
            .step(&gradients(&parameters), 0.1)
            .unwrap();
        parameters.map(|parameter| parameter.var.to_vec1::<f64>().unwrap()[0])
    };
    assert_eq!(after(Decay::All), [1.5, 1.5, 1.5]);
    assert_eq!(after(Decay::Weights), [1.5, 1.6, 1.6]);
}

#[test]
fn parameters_without_gradient_are_left_alone() {
    let used = [parameter("used", &[1.0], Role::Weight)];
    let all = [used[0].clone(), parameter("unused", &[1.0], Role::Weight)];
    for optimizer in [sgd(0.9, false, 0.1, Decay::All), Optimizer::adam(0.1)] {
        let mut descent = optimizer.over(&all);
        descent.step(&gradients(&used), 0.1).unwrap();
        assert_eq!(all[1].var.to_vec1::<f64>().unwrap(), [1.0]);
        assert!(descent.state().keys().all(|key| !key.ends_with("unused")));
    }
}

#[test]
fn a_restored_optimizer_goes_on_as_if_nothing_had_happened() {
    for optimizer in [sgd(0.9, true, 0.1, Decay::All), Optimizer::adam(0.1)] {
        let parameters = [
            parameter("a", &[0.8, -0.3], Role::Weight),
            parameter("b", &[0.5], Role::Bias),
        ];
        let mut descent = optimizer.over(&parameters);
        descent.step(&gradients(&parameters), 0.1).unwrap();
        let copies = parameters
            .clone()
            .map(|one| parameter(&one.name, &reference::doubles(&one.var), one.role));
        let mut restored = optimizer.over(&copies);
        restored.restore(&descent.state()).unwrap();
        for _ in 0..2 {
            descent.step(&gradients(&parameters), 0.1).unwrap();
            restored.step(&gradients(&copies), 0.1).unwrap();
        }
        for (one, other) in parameters.iter().zip(&copies) {
            assert_eq!(reference::doubles(&one.var), reference::doubles(&other.var));
        }
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_name() {
    let parameters = [parameter("a", &[0.8, -0.3], Role::Weight)];
    let check = |optimizer: &Optimizer, key: &str, length: usize, expected: &str| {
        let state = [(key.to_string(), tensor(&vec![0.0; length], &[length]))].into();
        let error = optimizer.over(&parameters).restore(&state).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let (sgd, adam) = (sgd(0.9, false, 0.0, Decay::All), Optimizer::adam(0.1));
    check(&sgd, "momentum/b", 2, "momentum/b");
    check(&sgd, "momentum/a", 3, "shape");
    check(&sgd, "first/a", 2, "first/a");
    check(&adam, "first/a", 2, "second/a");
    check(&adam, "second/a", 2, "first/a");
}

#[test]
fn long_gradients_are_shortened_together() {
    let parameters = [
        parameter("a", &[3f64.sqrt()], Role::Weight),
        parameter("b", &[2.0], Role::Bias),
    ];
    let mut store = gradients(&parameters); // 3 and 4
    assert!((clip_gradients(&parameters, &mut store, 10.0).unwrap() - 5.0).abs() < 1e-12);
    assert_near(
        "short",
        store.get(&parameters[1].var).unwrap(),
        &tensor(&[4.0], &[1]),
        1e-12,
    );
    clip_gradients(&parameters, &mut store, 1.0).unwrap();
    assert_near(
        "long",
        store.get(&parameters[1].var).unwrap(),
        &tensor(&[0.8], &[1]),
        1e-6,
    );
    assert_near(
        "long",
        store.get(&parameters[0].var).unwrap(),
        &tensor(&[0.6], &[1]),
        1e-6,
    );
}
