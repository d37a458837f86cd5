//! Tests of PGD.

use super::*;
use crate::Norm;
use crate::fixtures::{setting, waves};
use crate::losses::prediction;
use reference::doubles;
use testing::{Linear, Wave, assert_near, tensor};

const SHAPE: [usize; 3] = [1, 2, 3];

fn threat(norm: Norm, epsilon: &str) -> Threat {
    Threat {
        norm,
        epsilon: epsilon.parse().unwrap(),
    }
}

fn pgd(steps: u64, step_size: &str) -> Pgd {
    Pgd {
        steps: Some(steps),
        step_size: Some(step_size.parse().unwrap()),
        ..Pgd::default()
    }
}

/// A classifier that takes all steps itself, as a frozen network on a GPU does.
struct InOneGo {
    wave: Wave,
    asked: std::sync::atomic::AtomicU64,
}

impl Classifier for InOneGo {
    fn logits(&self, images: &Tensor, mode: models::Mode<'_>) -> Result<Tensor> {
        self.wave.logits(images, mode)
    }

    fn classes(&self) -> usize {
        self.wave.classes()
    }

    fn ascend(&self, ascent: &kernels::ascent::Ascent<'_>) -> Result<Option<kernels::ascent::Ascended>> {
        use kernels::ascent::Loss as Fused;
        self.asked.fetch_add(ascent.steps, std::sync::atomic::Ordering::Relaxed);
        let loss = match ascent.loss {
            Fused::CrossEntropy => Loss::CrossEntropy,
            Fused::Kl => Loss::Kl,
            Fused::Margin => Loss::Margin,
            Fused::Cw(kappa) => Loss::Cw { kappa: kappa.into() },
            Fused::SoftMargin => Loss::SoftMargin,
            Fused::Hinge(kappa) => Loss::CwAdvertorch { kappa: kappa.into() },
        };
        let mut images = ascent.start.clone();
        for _ in 0..ascent.steps {
            let x = candle_core::Var::from_tensor(&images)?;
            let losses = loss.per_example(
                &self.logits(&x, models::Mode::Eval)?,
                ascent.labels,
                ascent.clean_logits,
            )?;
            let gradient = losses.sum_all()?.backward()?.remove(&x).unwrap();
            images = crate::ball::sign_step(&images, &gradient, ascent.step, ascent.lower, ascent.upper)?;
        }
        // Reports that the second image did not move in one step.
        let stalled = Tensor::new(&[0f32, 1.0, 0.0, 0.0], images.device())?;
        Ok(Some(kernels::ascent::Ascended { images, stalled }))
    }
}

#[test]
fn a_classifier_that_can_takes_all_steps_in_one_go() {
    let batch = waves(4, SHAPE, 3);
    let cases = [
        (Loss::CrossEntropy, 3),
        (Loss::Kl, 3),
        (Loss::Margin, 3),
        (Loss::SoftMargin, 3),
        (Loss::Cw { kappa: 5.0 }, 3),
        (Loss::CwAdvertorch { kappa: 5.0 }, 3),
        // These go step by step.
        (Loss::Dlr, 0),
        (Loss::CwZeroMask { kappa: 5.0 }, 0),
    ];
    for (loss, expected) in cases {
        let attack = Pgd { loss, ..pgd(3, "0.02") };
        let classifier = InOneGo {
            wave: Wave::new(3, 6, 4.0),
            asked: Default::default(),
        };
        let asked = || classifier.asked.load(std::sync::atomic::Ordering::Relaxed);
        let random = Stream::new(6);
        let ball = threat(Norm::Linf, "0.05");
        let mut ends = Vec::new();
        let watched = attack.trace(&classifier, &batch, &ball, &random, &mut |iterate| {
            ends.push(iterate.images.clone());
            Ok(())
        });
        let watched = watched.unwrap();
        assert_eq!((asked(), ends.len()), (0, 4), "{loss}: traced");
        let found = attack.perturb(&classifier, &batch, &ball, &random).unwrap();
        assert_eq!(asked(), expected, "{loss}");
        assert_eq!(doubles(&found.images), doubles(&watched.images), "{loss}");
        assert_eq!(found.cost, watched.cost, "{loss}");
        if expected > 0 {
            assert_eq!(found.zero_gradients, 1, "{loss}");
        }
        // Neither under L2 nor with the batch's statistics.
        let l2 = threat(Norm::L2, "0.05");
        attack.perturb(&classifier, &batch, &l2, &random).unwrap();
        let moving = Pgd {
            batch_norm: BatchNorm::BatchStatistics,
            ..attack
        };
        moving.perturb(&classifier, &batch, &ball, &random).unwrap();
        assert_eq!(asked(), expected, "{loss}");
    }
}

#[test]
fn restarts_keep_the_worst_image_of_each_example() {
    let (batch, wave, threat) = (waves(12, SHAPE, 3), Wave::new(3, 6, 9.0), threat(Norm::Linf, "0.03"));
    // In this mode every restart attacks all examples.
    let attack = Pgd {
        restarts: 4,
        batch_norm: BatchNorm::BatchStatistics,
        ..pgd(2, "0.005")
    };
    let mut ends = Vec::new();
    let found = attack
        .trace(&wave, &batch, &threat, &Stream::new(2), &mut |iterate| {
            if iterate.step == 2 {
                ends.push(iterate.images.clone());
            }
            Ok(())
        })
        .unwrap();
    let outcome = |images: &Tensor| {
        let logits = wave.logits(images, models::Mode::Eval).unwrap();
        let broken = prediction(&logits)
            .unwrap()
            .ne(&batch.labels)
            .unwrap()
            .to_vec1::<u8>()
            .unwrap();
        (
            broken,
            doubles(&crate::losses::cross_entropy(&logits, &batch.labels).unwrap()),
        )
    };
    let outcomes: Vec<_> = ends.iter().map(outcome).collect();
    let mut chosen = Vec::new();
    for row in 0..12 {
        let first = outcomes.iter().position(|(broken, _)| broken[row] == 1);
        let best = (0..4)
            .max_by(|&a, &b| outcomes[a].1[row].total_cmp(&outcomes[b].1[row]))
            .unwrap();
        let restart = first.unwrap_or(best);
        assert_eq!(
            doubles(&found.images.get(row).unwrap()),
            doubles(&ends[restart].get(row).unwrap()),
            "example {row}"
        );
        chosen.push((first, restart));
    }
    // The case tests what it claims to: some break late, some never, and not always in the last restart.
    assert!(chosen.iter().any(|(first, restart)| first.is_some() && *restart > 0));
    assert!(chosen.iter().any(|(first, restart)| first.is_none() && *restart != 3));

    // Leaving early changes nothing but the cost.
    let lean = Pgd {
        batch_norm: BatchNorm::Eval,
        ..attack
    };
    let lean = lean.perturb(&wave, &batch, &threat, &Stream::new(2)).unwrap();
    assert_near("leaner", &lean.images, &found.images, 1e-12);
    assert!(lean.cost.backwards < found.cost.backwards);
    assert_eq!(
        found.cost,
        crate::Cost {
            forwards: 4 * 3 * 12,
            backwards: 4 * 2 * 12
        }
    );
}

#[test]
fn examples_without_gradient_are_counted() {
    let linear = Linear {
        weight: tensor(&[1.0, 0.0, -1.0, 0.0], &[2, 2]),
        bias: tensor(&[0.0, 0.0], &[2]),
    };
    let images = tensor(&[0.8, 0.5, 0.7, 0.5, 0.9, 0.5], &[3, 1, 1, 2]);
    // The margin of the first pixel predicts class 0: the second and third example are already misclassified.
    let labels = Tensor::new(&[0u32, 1, 1], images.device()).unwrap();
    let batch = Batch {
        images,
        labels,
        ids: vec![0, 1, 2],
    };
    let attack = Pgd {
        loss: Loss::Cw { kappa: 0.0 },
        start: Start::None,
        ..pgd(1, "0.01")
    };
    let found = attack
        .perturb(&linear, &batch, &threat(Norm::Linf, "0.1"), &Stream::new(0))
        .unwrap();
    assert_eq!(found.zero_gradients, 2);
    let moved = doubles(&(found.images - &batch.images).unwrap());
    assert!(
        (moved[0] + 0.01).abs() < 1e-12 && moved[2..].iter().all(|&change| change == 0.0),
        "{moved:?}"
    );
    assert_eq!(
        found.cost,
        crate::Cost {
            forwards: 3,
            backwards: 3
        }
    );
}

#[test]
fn values_that_cannot_be_are_refused() {
    let setting = setting(crate::Family::Cifar, Norm::Linf);
    let check = |attack: Pgd, setting: &Setting, field: &str| {
        let invalid = attack.clone().resolve(setting).unwrap_err();
        assert_eq!(invalid.field, field, "{attack:?}: {invalid}");
    };
    check(pgd(0, "0.1"), &setting, "steps");
    check(pgd(1, "0"), &setting, "step_size");
    check(
        Pgd {
            restarts: 0,
            ..Pgd::default()
        },
        &setting,
        "restarts",
    );
    check(
        Pgd {
            loss: Loss::Kl,
            start: Start::None,
            ..Pgd::default()
        },
        &setting,
        "start",
    );
    check(
        Pgd {
            loss: Loss::Cw { kappa: -1.0 },
            ..Pgd::default()
        },
        &setting,
        "loss.cw.kappa",
    );
    check(
        Pgd {
            loss: Loss::DlrTargeted { rank: 10 },
            ..Pgd::default()
        },
        &setting,
        "loss.dlr-targeted.rank",
    );
    let few = Setting {
        classes: 2,
        ..setting.clone()
    };
    check(
        Pgd {
            loss: Loss::Dlr,
            ..Pgd::default()
        },
        &few,
        "loss",
    );
    let fine = Setting {
        threat: threat(Norm::Linf, "0.0312345678901234567"),
        ..setting
    };
    check(Pgd::default(), &fine, "step_size");
}
