use super::*;
use crate::fixtures::row;
use crate::{Checkpoint, Kind, Row};

/// An attack that leaves this many of 1000 images.
fn attack(name: &str, kind: Kind, steps: u64, correct: u64) -> Row {
    let loss = match name {
        "cw" => "cw(kappa=50)",
        "square" => "margin",
        "auto-attack" => "standard(apgd-ce, apgd-t, fab-t, square)",
        _ => "cross-entropy",
    };
    Row {
        attack: name.to_uppercase(),
        attack_name: name.to_string(),
        kind,
        steps: Some(steps),
        loss: Some(loss.to_string()),
        ..row(&format!("{name}-{steps}"))
    }
    .with_count(1000, correct)
}

fn at_epsilon(row: Row, epsilon: &str) -> Row {
    let (n, correct) = (row.n.unwrap(), row.n_correct.unwrap());
    Row {
        cell: format!("{}@{epsilon}", row.cell),
        epsilon: Some(epsilon.to_string()),
        epsilon_value: Some(epsilon.parse().unwrap()),
        ..row
    }
    .with_count(n, correct)
}

#[track_caller]
fn check(rows: &[Row], expected: &[(&str, Flag)]) {
    let found: Vec<(String, Flag)> = flags(rows)
        .into_iter()
        .map(|raised| (raised.cell, raised.flag))
        .collect();
    let expected: Vec<(String, Flag)> = expected.iter().map(|(cell, flag)| (cell.to_string(), *flag)).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_honest_network_has_no_flag() {
    let rows = [
        attack("fgsm", Kind::WhiteBox, 1, 600),
        attack("pgd", Kind::WhiteBox, 20, 512),
        attack("pgd", Kind::WhiteBox, 100, 508),
        attack("cw", Kind::WhiteBox, 30, 490),
        attack("auto-attack", Kind::WhiteBox, 100, 475),
        attack("square", Kind::Query, 5000, 560),
        attack("mi-fgsm", Kind::Transfer, 10, 800),
        at_epsilon(attack("pgd", Kind::WhiteBox, 20, 800), "0.01"),
        at_epsilon(attack("pgd", Kind::WhiteBox, 20, 3), "1"),
    ];
    check(&rows, &[]);
}

#[test]
fn one_row_alone() {
    let natural = |change: fn(Row) -> Row| {
        let row = Row {
            kind: Kind::Natural,
            norm: None,
            epsilon: None,
            epsilon_value: None,
            loss: None,
            steps: None,
            random_outputs: Some(0),
            softmax_outputs: Some(0),
            vanishing_gradients: Some(0),
            ..row("it")
        };
        change(row).with_count(1000, 900)
    };
    check(&[natural(|row| row)], &[]);
    check(
        &[natural(|row| Row {
            zero_gradients: Some(11),
            ..row
        })],
        &[("it", Flag::ZeroGradients)],
    );
    check(
        &[natural(|row| Row {
            zero_gradients: Some(10),
            ..row
        })],
        &[],
    );
    check(
        &[natural(|row| Row {
            vanishing_gradients: Some(51),
            ..row
        })],
        &[("it", Flag::VanishingGradients)],
    );
    check(
        &[natural(|row| Row {
            random_outputs: Some(1),
            ..row
        })],
        &[("it", Flag::RandomOutput)],
    );
    check(
        &[natural(|row| Row {
            softmax_outputs: Some(1000),
            ..row
        })],
        &[("it", Flag::SoftmaxOutput)],
    );
    check(
        &[natural(|row| Row {
            softmax_outputs: Some(999),
            ..row
        })],
        &[],
    );
    let both = natural(|row| Row {
        zero_gradients: Some(11),
        random_outputs: Some(2),
        ..row
    });
    assert_eq!(both.flags.as_deref(), Some("zero-gradients,random-output"));
    // A margin attack stalls once it has succeeded: 500 images no longer move, 500 met zero gradients.
    let won = Row {
        zero_gradients: Some(500),
        ..attack("cw", Kind::WhiteBox, 30, 500)
    }
    .with_count(1000, 500);
    check(&[won], &[]);
    let stuck = Row {
        zero_gradients: Some(511),
        ..attack("cw", Kind::WhiteBox, 30, 500)
    }
    .with_count(1000, 500);
    check(&[stuck], &[("cw-30", Flag::ZeroGradients)]);
    check(
        &[at_epsilon(attack("pgd", Kind::WhiteBox, 20, 11), "1")],
        &[("pgd-20@1", Flag::SurvivesUnbounded)],
    );
    let failed = natural(|row| Row {
        zero_gradients: Some(1000),
        ..row
    })
    .with_failure("full disk");
    check(&[failed], &[]);
}

#[test]
fn several_rows_of_one_checkpoint() {
    let pgd = |correct| attack("pgd", Kind::WhiteBox, 20, correct);
    let apgd = |correct| attack("apgd", Kind::WhiteBox, 100, correct);
    check(&[pgd(500), apgd(511)], &[("apgd-100", Flag::PgdBelowApgd)]);
    check(&[pgd(500), apgd(510)], &[]);
    // A shorter APGD may well be weaker.
    check(&[pgd(500), attack("apgd", Kind::WhiteBox, 5, 600)], &[]);
    // Nor are two checkpoints compared.
    check(&[pgd(500), Row { seed: 1, ..apgd(600) }], &[]);

    let square = |correct| attack("square", Kind::Query, 5000, correct);
    let masked = [("pgd-20", Flag::BlackBoxBelowWhiteBox)];
    check(&[pgd(500), square(480)], &masked);
    check(&[pgd(500), square(495)], &[]);
    check(&[attack("fgsm", Kind::WhiteBox, 1, 500), square(400)], &[]);
    let transfer = Row {
        source: Some("Natural / small-cnn".into()),
        source_seed: Some(1000),
        ..attack("mi-fgsm", Kind::Transfer, 10, 400)
    };
    check(&[pgd(500), transfer.clone()], &masked);
    // Made on the network itself, it is no black-box attack.
    let own = Row {
        source: Some("TRADES / small-cnn".into()),
        source_seed: Some(0),
        source_checkpoint: Some(Checkpoint::Best),
        ..transfer
    };
    check(&[pgd(500), own], &[]);

    let radius = |correct, epsilon| at_epsilon(pgd(correct), epsilon);
    let rises = [("pgd-20@0.2", Flag::NotFallingWithEpsilon)];
    check(&[radius(500, "0.1"), radius(520, "0.2")], &rises);
    check(&[radius(500, "0.1"), radius(500, "0.2")], &[]);
    check(
        &[radius(500, "0.1"), radius(500, "0.4")],
        &[("pgd-20@0.4", Flag::NotFallingWithEpsilon)],
    );
    check(&[radius(0, "0.1"), radius(0, "0.4")], &[]);

    let steps = |steps, correct| attack("pgd", Kind::WhiteBox, steps, correct);
    check(
        &[steps(20, 500), steps(100, 520)],
        &[("pgd-100", Flag::NotFallingWithSteps)],
    );
    check(&[steps(20, 500), steps(100, 505)], &[]);

    let cw = |correct| attack("cw", Kind::WhiteBox, 30, correct);
    check(&[pgd(546), cw(500)], &[("pgd-20", Flag::CrossEntropyGap)]);
    // Of a hundred images, 45 are no fewer than chance may leave of 54.6 %; 40 are.
    check(&[pgd(546), cw(500).with_count(100, 45)], &[]);
    check(
        &[pgd(546), cw(500).with_count(100, 40)],
        &[("pgd-20", Flag::CrossEntropyGap)],
    );
    check(&[pgd(546).with_count(100, 55), cw(500)], &[]);
    check(&[pgd(545), cw(500)], &[]);
    check(
        &[pgd(650), attack("auto-attack", Kind::WhiteBox, 100, 563)],
        &[("pgd-20", Flag::CrossEntropyGap)],
    );
}

#[test]
fn every_flag_is_explained() {
    for flag in Flag::ALL {
        assert!(flag.explanation().len() > 20, "{flag}");
        assert!(!flag.explanation().ends_with('.'), "{flag}");
    }
}
