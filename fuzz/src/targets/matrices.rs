//! Matrices, as text and as values.

use std::path::Component;

use harness::fuzzing::{self, Methods};
use serde_json::{Value, json};

use crate::damage;
use crate::target::{Demand, Input, Target, Verdict};

pub(super) fn targets() -> Vec<Target> {
    vec![matrix_text(), matrix_tree()]
}

const MATRICES: [&str; 3] = [
    include_str!("../../../matrix.yaml"),
    include_str!("../../../matrices/mnist-small.yaml"),
    include_str!("../../../matrices/table-3.yaml"),
];

const WORDS: &[&[u8]] = &[
    b": ",
    b"- ",
    b"\n",
    b"  ",
    b"\t",
    b"{",
    b"}",
    b"[",
    b"]",
    b", ",
    b"&a ",
    b"*a",
    b"*inner",
    b"<<: *inner",
    b"<<: [*a, *a]",
    b"!!binary ",
    b"!x ",
    b"? ",
    b"|\n",
    b">-\n",
    b"---\n",
    b"...\n",
    b"%YAML 1.2\n",
    b"~",
    b".nan",
    b".inf",
    b"-1",
    b"0x7fffffffffffffff",
    b"1e400",
    b"\"",
    b"'",
    b"\"\\u0000\"",
    b"#",
    b"\xef\xbb\xbf",
    b"defenses:",
    b"attacks:",
    b"blocks:",
    b"name: ../../x",
    b"0/0",
    b"8/255",
    b"wrn-1000000-1000000",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// A matrix that uses most of the available keys.
pub(super) fn tree() -> Value {
    json!({
        "name": "it",
        "dataset": { "name": "digits", "validation": 100, "limit": { "train": 500, "test": 50 }, "verify": true },
        "threat": { "norm": "linf", "epsilon": "8/255" },
        "networks": ["tiny-cnn", "wrn-10-1"],
        "seeds": [0, 1],
        "recipe": {
            "epochs": 3, "batch": 32, "augment": [],
            "optimizer": { "name": "sgd", "rate": 0.05, "momentum": 0.9, "weight_decay": 0.0005 },
            "schedule": { "name": "steps", "at": [2], "factor": 0.1 },
        },
        "defenses": [
            "natural",
            { "name": "standard", "attack": { "steps": 5, "step_size": 0.05 } },
            { "name": "alp", "lambda": 1 }, { "name": "clp", "lambda": 1 }, { "name": "trades", "beta": 6 }, { "name": "mma", "steps": 3 },
            "dynamic", { "name": "mart", "lambda": 5, "label": "MART" },
        ],
        "attacks": [
            { "name": "fgsm", "start": "uniform" }, { "name": "pgd", "steps": 20, "step_size": "2/255", "restarts": 2 },
            { "name": "cw", "steps": 3 }, { "name": "apgd" }, { "name": "apgd-t" }, { "name": "fab" }, { "name": "square" }, { "name": "spsa" },
            { "name": "auto-attack", "version": "standard" }, { "name": "mi-fgsm" }, { "name": "di-fgsm" }, { "name": "ti-fgsm" },
        ],
        "transfer": { "source": { "defense": "natural", "seed": 1000, "checkpoint": "last" }, "attacks": ["fgsm"] },
        "checkpoints": ["best", "last"],
        "selection": { "split": "validation", "attack": { "name": "pgd", "steps": 2 }, "every": 1 },
        "tables": ["white-box", { "name": "black-box", "networks": ["tiny-cnn"] }],
    })
}

fn check_matrix(input: &Input, methods: &Methods) -> Verdict {
    let text = String::from_utf8_lossy(&input.bytes);
    let folders = match fuzzing::matrix(&text, methods) {
        Err(_) => return Verdict::Refused,
        Ok(folders) => folders,
    };
    if input.demand == Demand::Refuse {
        return Verdict::Wrong("an unknown key was accepted".into());
    }
    for (i, folder) in folders.iter().enumerate() {
        // `runs/NAME`, and in it `cells/CELL`.
        let plain = folder.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || folder.components().count() != if i == 0 { 2 } else { 4 } || !folder.starts_with(&folders[0]) {
            return Verdict::Wrong(format!("it would write to {}", folder.display()));
        }
    }
    Verdict::Accepted
}

/// Matrices with damaged text.
fn matrix_text() -> Target {
    let methods = Methods::builtin();
    Target {
        name: "yaml",
        seeds: MATRICES.iter().map(|text| text.as_bytes().to_vec()).collect(),
        per_byte: 4000,
        constant: 1 << 22,
        damage: Box::new(|rng, seeds| {
            let mut bytes = seeds[rng.below(seeds.len())].clone();
            let other = &seeds[rng.below(seeds.len())];
            damage::bytes(rng, &mut bytes, other, WORDS);
            Input {
                bytes,
                demand: Demand::None,
            }
        }),
        check: Box::new(move |input, _| check_matrix(input, &methods)),
    }
}

/// Well-formed matrices that mean something else.
fn matrix_tree() -> Target {
    let methods = Methods::builtin();
    Target {
        name: "matrix",
        seeds: vec![tree().to_string().into_bytes()],
        per_byte: 4000,
        constant: 1 << 22,
        damage: Box::new(|rng, _| {
            let mut tree = tree();
            // Only a few methods at a time, or most of the time would go into planning thousands of cells.
            for list in ["defenses", "attacks"] {
                if let Some(items) = tree[list].as_array_mut() {
                    let keep = [rng.below(items.len()), rng.below(items.len())];
                    let mut at = 0;
                    items.retain(|_| {
                        at += 1;
                        keep.contains(&(at - 1))
                    });
                }
            }
            let demand = if rng.one_in(8) {
                damage::foreign_key(rng, &mut tree, "surely_unknown");
                Demand::Refuse
            } else {
                damage::value(rng, &mut tree);
                Demand::None
            };
            Input {
                bytes: tree.to_string().into_bytes(),
                demand,
            }
        }),
        check: Box::new(move |input, _| check_matrix(input, &methods)),
    }
}
