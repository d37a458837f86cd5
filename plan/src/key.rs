//! Keys of cells: a hash of everything that decides a cell's numbers, and of nothing else.
//!
//! A new field changes every key, and with it every finished cell is computed again. A field that most matrices do not
//! use is left out of the text where it is not set.

use attacks::{Configured, Threat};
use defenses::Recipe;
use serde::Serialize;
use serde_json::Value;

use crate::matrix::{Checkpoint, SelectionSplit, Unlabeled};

/// Raised whenever the training loop starts to give other numbers for the same configuration.
const TRAINING_VERSION: u32 = 2;
/// Raised whenever an evaluation starts to give other numbers for the same configuration.
const EVALUATION_VERSION: u32 = 2;

/// What determines the numbers of a training.
#[derive(Debug, Serialize)]
pub struct TrainingKey<'a> {
    /// The training data.
    pub dataset: DataKey<'a>,
    /// Norm and radius, which the defense's attack uses.
    pub threat: Threat,
    /// The network.
    pub network: NetworkKey<'a>,
    /// The defense.
    pub defense: MethodKey<'a>,
    /// Epochs, optimizer, schedule and augmentation.
    pub recipe: &'a Recipe,
    /// How the best checkpoint is chosen.
    pub selection: SelectionKey<'a>,
    /// Seed of every random draw.
    pub seed: u64,
    /// The teacher whose predictions are used, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<CheckpointKey<'a>>,
    /// The weight of unlabeled examples, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlabeled: Option<Unlabeled>,
}

/// What determines the numbers of an evaluation.
#[derive(Debug, Serialize)]
pub struct EvaluationKey<'a> {
    /// The network that is attacked.
    pub target: CheckpointKey<'a>,
    /// The network on which the images are made, for a transferred attack.
    pub source: Option<CheckpointKey<'a>>,
    /// The attack.
    pub attack: MethodKey<'a>,
    /// Norm and radius.
    pub threat: Threat,
    /// How many test images are attacked. `None`: all.
    pub test: Option<usize>,
}

/// The training data and how they are cut.
#[derive(Debug, Serialize)]
pub struct DataKey<'a> {
    /// Digest of the data set's content.
    pub digest: &'a str,
    /// How many training examples are kept. `None`: all.
    pub limit: Option<usize>,
    /// How many are held out for validation.
    pub validation: usize,
    /// How many keep their labels, unless all do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labeled: Option<usize>,
}

/// A network by name.
#[derive(Debug, Serialize)]
pub struct NetworkKey<'a> {
    /// Its name.
    pub name: &'a str,
    /// Raised when the network of this name changes.
    pub version: u32,
}

/// A defense or an attack with every field filled.
#[derive(Debug, Serialize)]
pub struct MethodKey<'a> {
    /// Its name.
    pub name: &'a str,
    /// Raised when the method starts to give other numbers.
    pub version: u32,
    /// Its fields.
    pub config: &'a Value,
}

impl<'a, T: ?Sized> From<&'a Configured<T>> for MethodKey<'a> {
    fn from(method: &'a Configured<T>) -> Self {
        Self {
            name: method.name,
            version: method.version,
            config: &method.config,
        }
    }
}

/// How the best checkpoint is chosen.
#[derive(Debug, Serialize)]
pub struct SelectionKey<'a> {
    /// On which examples, if there are any.
    pub split: Option<SelectionSplit>,
    /// The attack that measures robust accuracy.
    pub attack: MethodKey<'a>,
    /// Measured every this many epochs.
    pub every: u64,
    /// How many test images it is measured on, where that is the test split.
    pub test: Option<usize>,
}

/// A checkpoint of another cell.
#[derive(Debug, Serialize)]
pub struct CheckpointKey<'a> {
    /// Key of the training.
    pub training: &'a str,
    /// Which of its checkpoints.
    pub checkpoint: Checkpoint,
}

impl TrainingKey<'_> {
    /// The resolved configuration: JSON of everything in it, with sorted keys and no spaces.
    pub fn text(&self) -> String {
        cell_text("training", TRAINING_VERSION, self)
    }
}

impl EvaluationKey<'_> {
    /// The resolved configuration: JSON of everything in it, with sorted keys and no spaces.
    pub fn text(&self) -> String {
        cell_text("evaluation", EVALUATION_VERSION, self)
    }
}

fn cell_text(kind: &str, code: u32, key: &impl Serialize) -> String {
    let mut config = serde_json::to_value(key).expect("a key is plain data");
    config["cell"] = kind.into();
    config["code"] = code.into();
    canonical_text(&config)
}

/// The key of a cell whose resolved configuration is this text: the first 32 hexadecimal digits of its BLAKE3.
pub fn key_of_text(config: &str) -> String {
    blake3::hash(config.as_bytes()).to_hex()[..32].to_string()
}

/// A configuration as JSON with sorted keys and no spaces.
pub fn canonical_text(config: &Value) -> String {
    let mut text = Vec::new();
    canonical(config, &mut text);
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// JSON with sorted keys and no spaces, whatever order the map type keeps.
fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            out.push(b'{');
            let mut sorted: Vec<_> = map.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                separate(i, out);
                scalar(key, out);
                out.push(b':');
                canonical(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                separate(i, out);
                canonical(item, out);
            }
            out.push(b']');
        }
        plain => scalar(plain, out),
    }
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

fn scalar(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("plain data into memory");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A different text for the same configuration would invalidate every finished cell.
    #[test]
    fn keys_are_of_one_text() {
        let config = r#" {"c": null, "b": {}, "é\"": [1, 2.5, "\n", true, []], "a": 0.1} "#;
        let text = r#"{"a":0.1,"b":{},"c":null,"é\"":[1,2.5,"\n",true,[]]}"#;
        assert_eq!(
            key_of_text(&canonical_text(&serde_json::from_str(config).unwrap())),
            blake3::hash(text.as_bytes()).to_hex()[..32]
        );
    }

    /// A different text invalidates every finished cell: it requires a raised version and a line in the changelog.
    #[test]
    fn the_texts_of_keys_are_pinned() {
        let threat: Threat = serde_json::from_value(json!({"norm": "linf", "epsilon": "8/255"})).unwrap();
        let config = json!({"steps": 10});
        let method = |name| MethodKey {
            name,
            version: 3,
            config: &config,
        };
        let parent = |training| CheckpointKey {
            training,
            checkpoint: Checkpoint::Best,
        };
        let evaluation = EvaluationKey {
            target: parent("00ff"),
            source: Some(parent("11ff")),
            attack: method("pgd"),
            threat,
            test: None,
        };
        assert_eq!(
            evaluation.text(),
            r#"{"attack":{"config":{"steps":10},"name":"pgd","version":3},"cell":"evaluation","code":2,"source":{"checkpoint":"best","training":"11ff"},"target":{"checkpoint":"best","training":"00ff"},"test":null,"threat":{"epsilon":"8/255","norm":"linf"}}"#
        );
        let recipe: Recipe = serde_json::from_value(json!({
            "length": {"epochs": 2}, "batch": 8, "optimizer": {"name": "adam", "rate": 0.001},
            "schedule": {"name": "constant"}, "augment": [],
        }))
        .unwrap();
        let mut training = TrainingKey {
            dataset: DataKey {
                digest: "d1",
                limit: Some(100),
                validation: 20,
                labeled: None,
            },
            threat,
            network: NetworkKey {
                name: "tiny-cnn",
                version: 1,
            },
            defense: method("mart"),
            recipe: &recipe,
            selection: SelectionKey {
                split: Some(SelectionSplit::Validation),
                attack: method("pgd"),
                every: 1,
                test: None,
            },
            seed: 7,
            teacher: None,
            unlabeled: None,
        };
        let recipe = serde_json::to_value(&recipe).unwrap();
        let recipe_text = canonical_text(&recipe);
        let expected = r#"{"cell":"training","code":2,"dataset":{"digest":"d1","limit":100,"validation":20},"defense":{"config":{"steps":10},"name":"mart","version":3},"network":{"name":"tiny-cnn","version":1},"recipe":RECIPE,"seed":7,"selection":{"attack":{"config":{"steps":10},"name":"pgd","version":3},"every":1,"split":"validation","test":null},"threat":{"epsilon":"8/255","norm":"linf"}}"#;
        assert_eq!(training.text(), expected.replace("RECIPE", &recipe_text));
        // What most matrices leave out is not in the text at all.
        training.dataset.labeled = Some(50);
        training.teacher = Some(parent("22ff"));
        training.unlabeled = Some(Unlabeled::default());
        let added = training.text();
        for part in [
            r#""labeled":50"#,
            r#""teacher":{"checkpoint":"best","training":"22ff"}"#,
            r#""unlabeled":{"share":null,"weight":1.0}"#,
        ] {
            assert!(added.contains(part), "{added}");
        }
    }

    #[test]
    fn keys_do_not_depend_on_the_order_of_fields() {
        let key = |text: &str| key_of_text(&canonical_text(&serde_json::from_str(text).unwrap()));
        assert_eq!(
            key(r#"{"a": 1, "b": [{"c": 2, "d": 3}]}"#),
            key(r#"{"b": [{"d": 3, "c": 2}], "a": 1}"#)
        );
        assert_ne!(key(r#"{"a": [1, 2]}"#), key(r#"{"a": [2, 1]}"#));
        assert_ne!(key(r#"{"a": 1}"#), key(r#"{"a": 1.5}"#));
    }
}
