//! Adversarial training: one file per defense, and what a recipe is made of.
//!
//! A defense turns a batch into the objective of one training step. It does no I/O and reads no
//! clock and no global random state.

mod fields;

mod length;
mod schedule;

mod descent;

mod adam;
mod clip;
mod sgd;

mod optimizer;

mod memory;
mod teacher;

mod step;

mod averaging;
mod awp;

mod recipe;

mod defense;

mod inner;

mod natural;
mod standard;

mod alp;
mod clp;
mod trades;

mod dynamic;
mod mart;
mod mma;

#[cfg(test)]
mod reference_tests;

use std::sync::Arc;

use attacks::Registry;

pub use adam::Adam;
pub use alp::{Alp, AlpForm};
pub use averaging::Averaging;
pub use awp::{Awp, Moved};
pub use clip::clip_gradients;
pub use clp::{Clp, ClpForm};
pub use defense::Defense;
pub use descent::Descent;
pub use dynamic::Dynamic;
pub use inner::InnerAttack;
pub use length::Length;
pub use mart::{Boost, Mart};
pub use memory::Memory;
pub use mma::{Mma, MmaLoss};
pub use natural::Natural;
pub use optimizer::Optimizer;
pub use recipe::{Augmentation, Recipe, shared_recipe};
pub use schedule::Schedule;
pub use sgd::{Decay, Sgd};
pub use standard::{Standard, Treat, Treatment};
pub use step::Step;
pub use teacher::{Group, TeacherPredictions};
pub use trades::Trades;

/// The defenses of this crate.
pub fn builtin() -> Registry<dyn Defense> {
    let mut registry: Registry<dyn Defense> = Registry::new("defense");
    registry.add::<Natural>(|defense| Arc::new(defense));
    registry.add::<Standard>(|defense| Arc::new(defense));
    registry.add::<Alp>(|defense| Arc::new(defense));
    registry.add::<Clp>(|defense| Arc::new(defense));
    registry.add::<Trades>(|defense| Arc::new(defense));
    registry.add::<Mma>(|defense| Arc::new(defense));
    registry.add::<Mart>(|defense| Arc::new(defense));
    registry.add::<Dynamic>(|defense| Arc::new(defense));
    registry
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use attacks::{Batch, Family, Norm, Setting};
    use random::Stream;
    use testing::{Net, check_entries, settings, waves};

    #[test]
    fn every_defense_can_be_configured() {
        check_entries(&builtin());
    }

    #[test]
    fn every_objective_is_finite_and_reaches_every_parameter() {
        let net = Net::small();
        let batch = Batch {
            ids: (0..6).collect(),
            ..waves(6, [3, 8, 8], 10)
        };
        for setting in settings() {
            for entry in builtin().entries() {
                let quick = match entry.name {
                    "natural" => serde_json::json!({}),
                    "mma" => serde_json::json!({"steps": 2, "search_steps": 2}),
                    _ => serde_json::json!({"attack": {"steps": 2}}),
                };
                let defense = builtin().parse(entry.name, quick, &setting).unwrap().method;
                let mut memory = defense.memory(6);
                for epoch in [0, 1] {
                    let what = format!("{} in {setting:?}", entry.name);
                    let stream = Stream::new(1).at(epoch);
                    let mut step = Step::new(&net, &batch, &setting.threat, stream, epoch, &mut memory);
                    let objective = defense.objective(&mut step).unwrap();
                    assert_eq!(objective.rank(), 0, "{what}");
                    assert!(reference::doubles(&objective)[0].is_finite(), "{what}");
                    assert!(step.cost.forwards >= 6, "{what}");
                    assert_eq!(step.perturbed.is_some(), entry.name != "natural", "{what}");
                    let gradients = objective.backward().unwrap();
                    for (name, parameter) in net.parameters() {
                        let gradient = gradients.get(parameter).unwrap_or_else(|| panic!("{what}: {name}"));
                        let gradient = reference::doubles(gradient);
                        assert!(gradient.iter().all(|value| value.is_finite()), "{what}: {name}");
                        assert!(gradient.iter().any(|&value| value != 0.0), "{what}: {name}");
                    }
                }
            }
        }
    }

    #[test]
    fn recipes_of_the_authors_can_be_followed() {
        let mut given = BTreeMap::new();
        for setting in settings() {
            for entry in builtin().entries() {
                let defense = builtin()
                    .parse(entry.name, serde_json::json!({}), &setting)
                    .unwrap()
                    .method;
                if let Some(recipe) = defense.authors_recipe(&setting) {
                    assert_eq!(recipe.check(), Ok(()), "{}", entry.name);
                    *given.entry(entry.name).or_insert(0) += 1;
                }
            }
        }
        let expected = [("dynamic", 1), ("mart", 1), ("mma", 2), ("standard", 2), ("trades", 2)];
        assert_eq!(given.into_iter().collect::<Vec<_>>(), expected);
        let wide = Setting {
            network: "wrn-34-10".into(),
            ..testing::setting(Family::Cifar, Norm::Linf)
        };
        let mart = builtin().parse("mart", serde_json::json!({}), &wide).unwrap();
        assert_eq!(mart.config["lambda"], 6.0);
        assert_eq!(mart.method.authors_recipe(&wide).unwrap().length, Length::Epochs(90));
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let setting = testing::setting(Family::Cifar, Norm::Linf);
        let check =
            |name: &str, config: serde_json::Value, expected: &str| match builtin().parse(name, config, &setting) {
                Err(attacks::ParseError::Field { field, message }) => assert_eq!(field, expected, "{message}"),
                other => panic!("{name}: {other:?}"),
            };
        check("trades", serde_json::json!({"beta": -1}), "beta");
        check("trades", serde_json::json!({"attack": {"steps": 0}}), "attack.steps");
        check(
            "trades",
            serde_json::json!({"attack": {"start": "none"}}),
            "attack.start",
        );
        check(
            "standard",
            serde_json::json!({"attack": {"epsilon": 8}}),
            "attack.epsilon",
        );
        check("standard", serde_json::json!({"attack": {"speed": 8}}), "attack.speed");
        check("mart", serde_json::json!({"share": 1.5}), "share");
        check("mma", serde_json::json!({"clean_weight": 2}), "clean_weight");
        check(
            "mma",
            serde_json::json!({"d_max": "1/255", "min_radius": "2/255"}),
            "min_radius",
        );
        check("dynamic", serde_json::json!({"attack": {"loss": "kl"}}), "attack.loss");
        check(
            "clp",
            serde_json::json!({"form": "pair", "attack": {"steps": 3}}),
            "attack",
        );
    }
}
