//! Every attack of the registry can be configured and run.

use attacks::builtin;
use random::Stream;
use testing::{Wave, check_entries, settings, waves};

#[test]
fn every_attack_can_be_configured() {
    check_entries(&builtin());
}

#[test]
fn every_attack_can_describe_itself_and_run() {
    let batch = waves(2, [1, 2, 3], 10);
    for setting in settings() {
        for entry in builtin().entries() {
            let example = serde_json::from_str(entry.example).unwrap();
            let attack = builtin().parse(entry.name, example, &setting).unwrap().method;
            let stream = Stream::new(4);
            let found = attack
                .perturb(&Wave::new(10, 6, 4.0), &batch, &setting.threat, &stream)
                .unwrap();
            assert_eq!(found.images.dims(), batch.images.dims());
            assert!(!found.images.track_op(), "{} returns images with a graph", entry.name);
            let description = attack.describe();
            assert_eq!(description.steps.is_some(), entry.name != "natural", "{}", entry.name);
        }
    }
}
