//! Rows of logits.

use super::*;
use crate::ascent::Loss;

#[test]
fn logits() {
    let gpu = emulator!();
    for (batch, classes, scale) in [(1, 2, 1.0), (33, 10, 5.0), (4, 100, 60.0)] {
        let values: Vec<f32> = numbers(1, batch * classes).iter().map(|z| z * scale).collect();
        let labels: Vec<u32> = (0..batch).map(|b| (b * 3 % classes) as u32).collect();
        let weights = numbers(2, batch * classes);
        let shape = [batch as u32, classes as u32];
        let (z, g, y) = (gpu.floats(&values), gpu.floats(&weights), gpu.words(&labels));
        let (out, to) = (gpu.room(batch * classes), gpu.room(batch * classes));

        let on_cpu = tensor(&values, &[batch, classes]);
        let (logs, gradients) = with_gradients(std::slice::from_ref(&on_cpu), &weights, |t| {
            crate::log_softmax(&t[0]).unwrap()
        });
        machine::log_softmax(&gpu, out, z, shape).unwrap();
        assert_near("log softmax", &gpu.get(out, batch * classes), &flat(&logs), 1e-6);
        machine::log_softmax_gradient(&gpu, to, out, g, shape).unwrap();
        assert_near(
            "its gradient",
            &gpu.get(to, batch * classes),
            &flat(&gradients[0]),
            1e-6,
        );

        let on_cpu_labels = Tensor::new(labels.clone(), &Device::Cpu).unwrap();
        let (losses, gradients) = with_gradients(&[on_cpu], &weights[..batch], |t| {
            crate::cross_entropy(&t[0], &on_cpu_labels).unwrap()
        });
        machine::cross_entropy(&gpu, out, z, y, shape).unwrap();
        assert_near("cross entropy", &gpu.get(out, batch), &flat(&losses), 1e-6);
        machine::cross_entropy_gradient(&gpu, to, [z, y, g], shape).unwrap();
        assert_near(
            "its gradient",
            &gpu.get(to, batch * classes),
            &flat(&gradients[0]),
            1e-6,
        );
    }
}

#[test]
fn a_label_that_is_no_class_makes_a_nan() {
    let gpu = emulator!();
    let (z, y, out) = (gpu.floats(&[1.0, 2.0]), gpu.words(&[2]), gpu.room(1));
    machine::cross_entropy(&gpu, out, z, y, [1, 2]).unwrap();
    assert!(gpu.get(out, 1)[0].is_nan());
}

/// What each loss is, in double precision.
fn loss(loss: Loss, z: &[f64], label: usize, clean: &[f64]) -> f64 {
    let log_sum = |z: &[f64]| z.iter().map(|z| z.exp()).sum::<f64>().ln();
    let wrong = || z.iter().enumerate().filter(move |(k, _)| *k != label).map(|(_, z)| *z);
    let margin = wrong().fold(f64::NEG_INFINITY, f64::max) - z[label];
    match loss {
        Loss::CrossEntropy => log_sum(z) - z[label],
        Loss::Kl => {
            let (a, b) = (log_sum(clean), log_sum(z));
            clean
                .iter()
                .zip(z)
                .map(|(c, z)| (c - a).exp() * ((c - a) - (z - b)))
                .sum()
        }
        Loss::Margin => margin,
        Loss::Cw(kappa) => -(f64::from(kappa) - margin).max(0.0),
        Loss::SoftMargin => wrong().map(f64::exp).sum::<f64>().ln() - z[label],
        Loss::Hinge(kappa) => (margin + f64::from(kappa)).max(0.0),
    }
}

#[test]
fn gradients_of_attack_losses() {
    let gpu = emulator!();
    let (batch, classes) = (17usize, 5usize);
    let z: Vec<f32> = numbers(3, batch * classes).iter().map(|z| 3.0 * z).collect();
    let clean = numbers(4, batch * classes);
    let labels: Vec<u32> = (0..batch).map(|b| (b % classes) as u32).collect();
    let at = [gpu.floats(&z), gpu.words(&labels), gpu.floats(&clean)];
    let out = gpu.room(z.len());
    for which in [
        Loss::CrossEntropy,
        Loss::Kl,
        Loss::Margin,
        Loss::Cw(0.0),
        Loss::Cw(50.0),
        Loss::SoftMargin,
        Loss::Hinge(1.0),
    ] {
        machine::loss_gradient(&gpu, out, at, which, [batch as u32, classes as u32]).unwrap();
        let found = gpu.get(out, z.len());
        for b in 0..batch {
            let row = |values: &[f32]| -> Vec<f64> {
                values[b * classes..][..classes].iter().map(|&v| f64::from(v)).collect()
            };
            let (z, clean) = (row(&z), row(&clean));
            for k in 0..classes {
                let moved = |by: f64| {
                    let mut z = z.clone();
                    z[k] += by;
                    loss(which, &z, labels[b] as usize, &clean)
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                let value = f64::from(found[b * classes + k]);
                assert!(
                    (value - slope).abs() < 1e-6,
                    "{which:?} {b} {k}: {value} instead of {slope}"
                );
            }
        }
    }
    // Two wrong classes as good as each other: the first.
    let tied = [gpu.floats(&[0.0, 2.0, 2.0]), gpu.words(&[0]), 0];
    machine::loss_gradient(&gpu, out, tied, Loss::Margin, [1, 3]).unwrap();
    assert_eq!(gpu.get(out, 3), [-1.0, 1.0, 0.0]);
}
