//! The table before it has a format.

use std::collections::BTreeSet;

use serde_json::Value;

use super::columns::COLUMNS;
use super::words::settings;
use crate::records::Records;

/// A training by its names, with its resolved configuration.
#[derive(Debug, Clone, Copy)]
pub struct TrainedConfig<'a> {
    /// Name of the data set.
    pub dataset: &'a str,
    /// Name of the network.
    pub network: &'a str,
    /// Label of the defense.
    pub defense: &'a str,
    /// Label of the recipe.
    pub recipe: &'a str,
    /// Seed.
    pub seed: u64,
    /// Its resolved configuration: the JSON of which its key is the hash.
    pub config: &'a Value,
}

/// How the networks of a run were trained: trainings that differ in their seeds alone are one line.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipes {
    lines: Vec<Line>,
}

/// Trainings that differ in their seeds alone.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    names: [String; 4],
    seeds: BTreeSet<u64>,
    config: Value,
}

/// Names every line begins with.
pub(super) const NAMES: [&str; 4] = ["data set", "network", "defense", "recipe"];

impl Recipes {
    /// The recipes of these trainings, in their order. Those of earlier builds, without a configuration, are left out.
    pub fn of<'a>(trainings: impl IntoIterator<Item = TrainedConfig<'a>>) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        for training in trainings {
            if !training.config.is_object() {
                continue;
            }
            let names = [training.dataset, training.network, training.defense, training.recipe];
            let names = names.map(str::to_string);
            let config = without_seed(training.config);
            match lines
                .iter_mut()
                .find(|line| line.names == names && line.config == config)
            {
                Some(line) => {
                    line.seeds.insert(training.seed);
                }
                None => lines.push(Line {
                    names,
                    seeds: BTreeSet::from([training.seed]),
                    config,
                }),
            }
        }
        Self { lines }
    }

    /// Whether nothing is known about any training.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The first line is the head; only columns in which lines differ, and the defense.
    pub fn grid(&self) -> Vec<Vec<String>> {
        let columns = self.columns();
        let kept: Vec<&(&str, Vec<String>)> = columns
            .iter()
            .filter(|(name, texts)| *name == "defense" || !is_constant(texts))
            .collect();
        let head = kept.iter().map(|(name, _)| (*name).to_string()).collect();
        let line = |i: usize| kept.iter().map(|(_, texts)| texts[i].clone()).collect();
        [head].into_iter().chain((0..self.lines.len()).map(line)).collect()
    }

    /// What is the same in all lines: heading and text.
    pub fn shared(&self) -> Vec<(&'static str, String)> {
        let columns = self.columns().into_iter();
        columns
            .filter(|(name, texts)| *name != "defense" && is_constant(texts))
            .filter_map(|(name, texts)| Some((name, texts.into_iter().next()?)))
            .collect()
    }

    fn columns(&self) -> Vec<(&'static str, Vec<String>)> {
        let names = NAMES.iter().enumerate();
        let names = names.map(|(i, name)| (*name, self.lines.iter().map(|line| line.names[i].clone()).collect()));
        let settings = COLUMNS.iter();
        let settings = settings.map(|(name, text)| (*name, self.lines.iter().map(|line| text(&line.config)).collect()));
        let seeds = self.lines.iter().map(|line| list(&line.seeds)).collect();
        names.chain(settings).chain([("seeds", seeds)]).collect()
    }

    /// One record per line, one field per setting that any line has, by the path of its name.
    pub fn csv(&self) -> String {
        let settings: Vec<Vec<(String, String)>> = self.lines.iter().map(|line| settings(&line.config)).collect();
        let mut paths: Vec<&str> = Vec::new();
        for (path, _) in settings.iter().flatten() {
            if !paths.contains(&path.as_str()) {
                paths.push(path);
            }
        }
        paths.sort_unstable();
        let head = ["dataset", "network", "defense", "recipe", "seeds"];
        let mut records = Records::new(head.iter().chain(&paths));
        for (line, settings) in self.lines.iter().zip(&settings) {
            let value = |path: &&str| {
                let found = settings.iter().find(|(name, _)| name == path);
                found.map_or_else(String::new, |(_, value)| value.clone())
            };
            let names = line.names.iter().cloned().chain([list(&line.seeds)]);
            records.add(names.chain(paths.iter().map(value)));
        }
        records.finish()
    }
}

/// A configuration as it is with any seed.
fn without_seed(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(fields) = config.as_object_mut() {
        fields.remove("seed");
        if let Some(teacher) = fields.get_mut("teacher").and_then(Value::as_object_mut) {
            // The key of a network that was trained with this seed.
            teacher.remove("training");
        }
    }
    config
}

fn is_constant(texts: &[String]) -> bool {
    texts.windows(2).all(|pair| pair[0] == pair[1])
}

fn list(seeds: &BTreeSet<u64>) -> String {
    let texts: Vec<String> = seeds.iter().map(u64::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures;
    use crate::latex::Latex;

    fn config(seed: u64, beta: f64, teacher: &str) -> Value {
        json!({
            "seed": seed, "dataset": { "validation": 1000 }, "threat": { "norm": "linf", "epsilon": "8/255" },
            "defense": { "name": "trades", "config": {
                "beta": beta, "attack": { "steps": 10, "step_size": "2/255", "start": "uniform" },
            } },
            "recipe": {
                "length": { "epochs": 76 }, "batch": 128, "clip_gradient": null, "augment": ["flip"],
                "optimizer": { "name": "sgd", "rate": 0.1, "weight_decay": 0.0 },
                "schedule": { "name": "steps", "at": [75], "factor": 0.1 }, "awp": { "gamma": 0.005 },
            },
            "selection": { "split": null },
            "teacher": { "training": teacher, "checkpoint": "last" },
        })
    }

    fn recipes(configs: &[(&'static str, u64, Value)]) -> Recipes {
        Recipes::of(configs.iter().map(|(defense, seed, config)| TrainedConfig {
            dataset: "cifar10",
            network: "resnet18",
            defense,
            recipe: "shared",
            seed: *seed,
            config,
        }))
    }

    #[test]
    fn seeds_share_a_line_and_settings_a_note() {
        let trained = [
            ("TRADES", 0, config(0, 6.0, "a1")),
            ("TRADES", 1, config(1, 6.0, "b2")),
            ("TRADES β=1", 0, config(0, 1.0, "a1")),
        ];
        insta::assert_snapshot!(recipes(&trained).markdown());
        let csv = recipes(&trained).csv();
        assert_eq!(csv.lines().count(), 3, "{csv}");
        assert!(
            csv.starts_with("dataset,network,defense,recipe,seeds,dataset.validation,"),
            "{csv}"
        );
    }

    #[test]
    fn every_part_of_a_wide_table_names_its_lines() {
        let long = |seed| {
            let mut config = config(seed, seed as f64, "a");
            config["defense"]["config"]["attack"]["start"] = "a start with a name as long as a line".repeat(3).into();
            config["defense"]["config"]["attack"]["steps"] = seed.into();
            config
        };
        let configs = [long(1), long(2)];
        let trained = |network, config| TrainedConfig {
            dataset: "cifar10",
            network,
            defense: "TRADES",
            recipe: "shared",
            seed: 0,
            config,
        };
        let text = Recipes::of([trained("resnet18", &configs[0]), trained("wrn-28-10", &configs[1])]).markdown();
        let parts = text.matches("| network, defense").count();
        assert!(parts > 1, "{text}");
        assert_eq!(text.matches("| wrn-28-10, TRADES").count(), parts, "{text}");
    }

    #[test]
    fn one_label_with_two_configurations_is_two_lines() {
        let trained = [("TRADES", 0, config(0, 6.0, "a")), ("TRADES", 1, config(1, 5.0, "a"))];
        assert_eq!(recipes(&trained).grid().len(), 3);
    }

    #[test]
    fn what_earlier_builds_did_not_record_is_left_out() {
        assert!(recipes(&[("TRADES", 0, Value::Null)]).is_empty());
    }

    #[test]
    fn the_document_compiles() {
        let trained = [("TRADES", 0, config(0, 6.0, "a")), ("β_1 & 2%", 0, config(0, 1.0, "a"))];
        fixtures::compile("recipes", &recipes(&trained).latex(Latex::Document));
    }
}
