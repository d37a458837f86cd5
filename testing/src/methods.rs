//! Fixtures for methods: settings, batches, and the checks of a registry.

use std::collections::BTreeSet;

use attacks::{Batch, Family, Norm, ParseError, Registry, Setting, Threat};
use candle_core::{Device, Tensor};

use crate::compare::tensor;

/// Images whose pixels follow a wave, in `[0, 1]`, some of them exactly 0 or 1.
pub fn waves(examples: usize, shape: [usize; 3], classes: usize) -> Batch {
    let [channels, height, width] = shape;
    let pixels = examples * channels * height * width;
    let values: Vec<f64> = (0..pixels)
        .map(|i| (0.5 + 0.7 * (0.9 * i as f64).sin()).clamp(0.0, 1.0))
        .collect();
    let labels: Vec<u32> = (0..examples).map(|i| (i % classes) as u32).collect();
    Batch {
        images: tensor(&values, &[examples, channels, height, width]),
        labels: Tensor::new(labels, &Device::Cpu).unwrap(),
        ids: (0..examples as u64).map(|id| 100 + 7 * id).collect(),
    }
}

/// A setting with the usual radius for its kind of images.
pub fn setting(family: Family, norm: Norm) -> Setting {
    let (epsilon, image) = match (family, norm) {
        (Family::Mnist, Norm::Linf) => ("0.3", [1, 28, 28]),
        (Family::Mnist, Norm::L2) => ("1.5", [1, 28, 28]),
        (Family::Cifar, Norm::Linf) => ("8/255", [3, 32, 32]),
        (Family::Cifar, Norm::L2) => ("0.5", [3, 32, 32]),
    };
    Setting {
        family,
        threat: Threat {
            norm,
            epsilon: epsilon.parse().unwrap(),
        },
        network: "resnet18".to_string(),
        image,
        classes: 10,
    }
}

/// Both kinds of images under both norms.
pub fn settings() -> Vec<Setting> {
    let families = [Family::Mnist, Family::Cifar];
    families
        .iter()
        .flat_map(|&family| [Norm::Linf, Norm::L2].map(|norm| setting(family, norm)))
        .collect()
}

/// What must hold of every method of a registry: a kebab-case name of its own; its example and its defaults
/// resolve in every setting, to a configuration that resolves to itself; an unknown key is refused by name.
pub fn check_entries<T: ?Sized + std::fmt::Debug + 'static>(registry: &Registry<T>) {
    let mut names = BTreeSet::new();
    for entry in registry.entries() {
        let name = entry.name;
        let kebab = name
            .split('-')
            .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()));
        assert!(
            kebab && names.insert(name),
            "{name} is not a kebab-case name of its own"
        );
        assert!(
            entry.version > 0 && !entry.summary.is_empty() && !entry.source.is_empty(),
            "{name}"
        );
        let example: serde_json::Value = serde_json::from_str(entry.example).unwrap();
        for setting in settings() {
            for written in [example.clone(), serde_json::json!({})] {
                let once = registry
                    .parse(name, written, &setting)
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
                let again = registry.parse(name, once.config.clone(), &setting).unwrap();
                assert_eq!(once.config, again.config, "{name} changes when it is resolved again");
                let open = once.config.to_string();
                assert!(
                    !open.contains("null") || name == "clp",
                    "{name} leaves a field open: {open}"
                );
            }
            let mut wrong = example.clone();
            wrong["no_such_field"] = 1.into();
            match registry.parse(name, wrong, &setting) {
                Err(ParseError::Field { message, .. }) => assert!(message.contains("no_such_field"), "{message}"),
                other => panic!("{name} accepts an unknown field: {other:?}"),
            }
        }
    }
}
