//! Tests of AutoAttack.

use super::*;
use crate::fixtures::{setting, waves};
use crate::{Family, Norm, Survivors};
use candle_core::Tensor;
use reference::doubles;
use testing::Wave;

fn resolved(attack: AutoAttack, classes: usize) -> std::result::Result<AutoAttack, Invalid> {
    let setting = Setting {
        classes,
        ..setting(Family::Cifar, Norm::Linf)
    };
    let mut attack = attack;
    attack.resolve(&setting)?;
    Ok(attack)
}

fn custom(attacks: &[Member]) -> AutoAttack {
    AutoAttack {
        version: Version::Custom,
        attacks: Some(attacks.to_vec()),
        ..AutoAttack::default()
    }
}

#[test]
fn standard_costs_what_its_header_says() {
    let standard = resolved(AutoAttack::default(), 10).unwrap();
    let expected = Cost {
        forwards: 7812,
        backwards: 1910,
    };
    assert_eq!(standard.ceiling(10), Some(expected));
    // The authors' code: clean; APGD-CE; APGD-T; FAB-T; Square; each with its own look at the clean images and one
    // more at what it found.
    let theirs = 1 + (1 + 101 + 1) + (1 + 9 * (1 + 101) + 1) + (1 + 9 * (2 + 200 + 1) + 1) + (1 + 5001 + 1 + 1);
    assert_eq!(theirs, 7857);
    assert_eq!(9 * 100 + 101 + 9 * 101, 1910);
}

#[test]
fn published_versions_keep_to_what_was_published() {
    let standard = resolved(AutoAttack::default(), 10).unwrap();
    assert_eq!(
        listed(standard.attacks.as_ref().unwrap()),
        "apgd-ce, apgd-t, fab-t, square"
    );
    assert_eq!((standard.restarts, standard.targets), (Some(1), Some(9)));
    let plus = AutoAttack {
        version: Version::Plus,
        ..AutoAttack::default()
    };
    let plus = resolved(plus, 100).unwrap();
    assert_eq!(
        listed(plus.attacks.as_ref().unwrap()),
        "apgd-ce, apgd-dlr, fab, square, apgd-t, fab-t"
    );
    assert_eq!((plus.restarts, plus.targets), (Some(5), Some(9)));
    assert_eq!(resolved(AutoAttack::default(), 5).unwrap().targets, Some(4));

    let refuse = |attack: AutoAttack, classes, field: &str| {
        let invalid = resolved(attack.clone(), classes).unwrap_err();
        assert_eq!(invalid.field, field, "{attack:?}: {invalid}");
    };
    refuse(
        AutoAttack {
            steps: 50,
            ..AutoAttack::default()
        },
        10,
        "steps",
    );
    refuse(
        AutoAttack {
            queries: 100,
            ..AutoAttack::default()
        },
        10,
        "queries",
    );
    refuse(
        AutoAttack {
            restarts: Some(5),
            ..AutoAttack::default()
        },
        10,
        "restarts",
    );
    refuse(
        AutoAttack {
            targets: Some(3),
            ..AutoAttack::default()
        },
        10,
        "targets",
    );
    refuse(
        AutoAttack {
            attacks: Some(vec![Member::Square]),
            ..AutoAttack::default()
        },
        10,
        "attacks",
    );
    refuse(
        AutoAttack {
            version: Version::Custom,
            ..AutoAttack::default()
        },
        10,
        "attacks",
    );
    refuse(custom(&[]), 10, "attacks");
    refuse(custom(&[Member::Square, Member::Square]), 10, "attacks");
    refuse(AutoAttack::default(), 3, "attacks");
    refuse(custom(&[Member::ApgdDlr]), 2, "attacks");
    assert!(resolved(custom(&[Member::ApgdCe, Member::Fab, Member::Square]), 2).is_ok());
}

/// A network, images that it classifies correctly, and a threat that some of them withstand.
fn right() -> (Wave, Batch, Threat) {
    let (wave, mut batch) = (Wave::new(10, 12, 1.2), waves(40, [1, 3, 4], 10));
    let threat = Threat {
        norm: Norm::Linf,
        epsilon: "0.04".parse().unwrap(),
    };
    let logits = wave.logits(&batch.images, models::Mode::Eval).unwrap();
    batch.labels = crate::losses::prediction(&logits).unwrap();
    (wave, batch, threat)
}

#[test]
fn it_goes_on_from_any_point_between_two_attacks() {
    let attack = AutoAttack {
        steps: 4,
        queries: 10,
        ..custom(&[Member::ApgdCe, Member::ApgdT, Member::FabT, Member::Square])
    };
    let attack = resolved(attack, 10).unwrap();
    let (wave, batch, threat) = right();
    let random = Stream::new(6);
    let whole = attack.perturb(&wave, &batch, &threat, &random).unwrap();

    let mut probe = Probe::new(&wave, BatchNorm::Eval).unwrap();
    let mut progress = Progress::begin(&mut probe, &batch).unwrap();
    let mut cost = probe.cost();
    let mut unbroken = vec![progress.survivors.rows().len()];
    loop {
        // Nothing but the progress is carried over.
        let mut probe = Probe::new(&wave, BatchNorm::Eval).unwrap();
        let carried = Progress {
            survivors: Survivors {
                images: Tensor::from_vec(
                    doubles(&progress.survivors.images),
                    batch.images.shape(),
                    batch.images.device(),
                )
                .unwrap(),
                ..progress.survivors.clone()
            },
            ..progress.clone()
        };
        progress = carried;
        if !attack
            .advance(&mut probe, &batch, &threat, &random, &mut progress)
            .unwrap()
        {
            break;
        }
        cost += probe.cost();
        unbroken.push(progress.survivors.rows().len());
    }
    assert_eq!(progress.done, 4);
    assert_eq!(doubles(&progress.survivors.images), doubles(&whole.images));
    assert_eq!(cost, whole.cost);
    // Otherwise the test is vacuous: more than one attack must break examples, and some must be robust.
    let breakers: std::collections::BTreeSet<_> = progress.broken_by.iter().flatten().collect();
    assert!(breakers.len() >= 2 && unbroken[4] > 0, "{unbroken:?}");
    for (row, by) in progress.broken_by.iter().enumerate() {
        assert_eq!(by.is_some(), progress.survivors.broken[row]);
    }
}

#[test]
fn each_attack_sees_only_the_survivors() {
    let (wave, batch, threat) = right();
    let attack = AutoAttack {
        steps: 4,
        queries: 10,
        ..custom(&[Member::ApgdCe, Member::Square])
    };
    let attack = resolved(attack, 10).unwrap();
    let mut probe = Probe::new(&wave, BatchNorm::Eval).unwrap();
    let mut progress = Progress::begin(&mut probe, &batch).unwrap();
    let random = Stream::new(6);
    attack
        .advance(&mut probe, &batch, &threat, &random, &mut progress)
        .unwrap();
    assert_eq!(
        probe.cost(),
        Cost {
            forwards: 40 + 40 * 5,
            backwards: 40 * 5
        }
    );
    let (before, left) = (probe.cost().forwards, progress.survivors.rows().len() as u64);
    assert!(left > 0 && left < 40, "{left}");
    attack
        .advance(&mut probe, &batch, &threat, &random, &mut progress)
        .unwrap();
    let asked = probe.cost().forwards - before;
    assert!(asked <= 11 * left && asked > left, "{asked} queries on {left}");
    // Which attacks come before changes who is attacked, not how.
    let alone = AutoAttack {
        attacks: Some(vec![Member::Square]),
        ..attack.clone()
    };
    let alone = alone.perturb(&wave, &batch, &threat, &random).unwrap();
    for (row, by) in progress.broken_by.iter().enumerate() {
        if *by == Some(1) {
            assert_eq!(
                doubles(&alone.images.get(row).unwrap()),
                doubles(&progress.survivors.images.get(row).unwrap())
            );
        }
    }
}
