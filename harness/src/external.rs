//! Somebody's network out of a file, and how the command line names what is done to it.

use std::path::{Path, PathBuf};

use attacks::{Attack, Configured, Family, Norm, Pixels, Registry, Setting, Threat};
use candle_core::{Device, Result as TensorResult, Tensor};
use clap::Args;
use models::{Checkpoint, Classifier, Mode, Network, Networks};
use plan::attack_label;
use plan::matrix::from_value;
use plan::with_suggestion;
use plan::yaml;
use random::Stream;
use serde_json::{Map, Value, json};

use crate::exit::Stop;

/// Which network.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// Its parameters: safetensors or PyTorch's `.pt` and `.pth`, of this program or anybody's.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: PathBuf,
    /// Its architecture, as `harness ls models` names it.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// Pass over an entry of the checkpoint that the architecture does not have. May be repeated.
    #[arg(long, value_name = "ENTRY")]
    pub(crate) ignore: Vec<String>,
    /// What is subtracted from each channel of an image before the network sees it, as in
    /// `0.4914,0.4822,0.4465`. Images and threat model stay in [0, 1].
    #[arg(long, value_name = "M,M,M", value_delimiter = ',', requires = "std")]
    pub(crate) mean: Vec<f64>,
    /// What each channel is divided by after that.
    #[arg(long, value_name = "S,S,S", value_delimiter = ',', requires = "mean")]
    pub(crate) std: Vec<f64>,
}

/// A network out of a file.
pub(crate) struct External {
    pub(crate) network: Network,
    normalisation: Option<Normalisation>,
    /// BLAKE3 of the file.
    pub(crate) digest: String,
    /// What everybody should know about how it was read.
    pub(crate) remarks: Vec<String>,
}

impl NetworkArgs {
    /// Builds the architecture for such images and puts the parameters in.
    pub(crate) fn load(&self, networks: &Networks, image: [usize; 3], classes: usize) -> anyhow::Result<External> {
        let usage = |error: &dyn std::error::Error| {
            let causes = std::iter::successors(error.source(), |cause| cause.source());
            Stop::usage(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
        };
        let network = networks.find_for(&self.model, image, classes);
        let network = network.and_then(|it| it.build(&Device::Cpu, &Stream::new(0)));
        let network = network.map_err(|error| usage(&error))?;
        let [channels, height, width] = image;
        let normalisation = match (&self.mean[..], &self.std[..]) {
            ([], _) => None,
            (mean, std) if mean.len() != channels || std.len() != channels => {
                return Err(Stop::usage(format!(
                    "--mean and --std need one number for each of the {channels} channels, not {} and {}",
                    mean.len(),
                    std.len()
                )));
            }
            (mean, std) => {
                if !mean.iter().chain(std).all(|it| it.is_finite()) || std.iter().any(|it| *it <= 0.0) {
                    return Err(Stop::usage("--mean and --std must be finite, and --std positive"));
                }
                Some(Normalisation {
                    mean: mean.to_vec(),
                    std: std.to_vec(),
                })
            }
        };
        let checkpoint = Checkpoint::read(&self.checkpoint).map_err(|error| usage(&error))?;
        let loaded = checkpoint.load_into(&network, &self.ignore).map_err(|error| {
            Stop::usage(format!(
                "checkpoint `{}` for images {channels}×{height}×{width} and {classes} classes: {error}\n\
                 choose another --model or --dataset, or pass over what is not expected with --ignore ENTRY if it does nothing",
                self.checkpoint.display()
            ))
        })?;
        let mut remarks = Vec::new();
        if !checkpoint.within.is_empty() {
            remarks.push(format!("parameters found under `{}`", checkpoint.within.join("` in `")));
        }
        if !checkpoint.prefix.is_empty() {
            remarks.push(format!("prefix `{}` taken off every name", checkpoint.prefix));
        }
        if !loaded.ignored.is_empty() {
            remarks.push(format!("passed over as asked: `{}`", loaded.ignored.join("`, `")));
        }
        if !loaded.kept.is_empty() {
            remarks.push(format!(
                "{} entries without effect are not in the file (`sub_block1`)",
                loaded.kept.len()
            ));
        }
        Ok(External {
            network,
            normalisation,
            digest: digest_of(&self.checkpoint)?,
            remarks,
        })
    }
}

/// BLAKE3 of a file, hexadecimal.
fn digest_of(file: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(file).map_err(|error| Stop::usage(format!("cannot read {}: {error}", file.display())))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

impl External {
    /// The normalisation, for a key.
    pub(crate) fn normalisation(&self) -> Value {
        json!(self.normalisation.as_ref().map(|it| [&it.mean, &it.std]))
    }
}

/// The network as an attack sees it: images in `[0, 1]` in, whatever it normalises.
impl Classifier for External {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> TensorResult<Tensor> {
        match &self.normalisation {
            None => self.network.logits(images, mode),
            Some(normalisation) => self.network.logits(&normalisation.apply(images)?, mode),
        }
    }

    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn freeze(&self) -> TensorResult<Option<Box<dyn Classifier>>> {
        let frozen = self.network.freeze()?;
        let Some(normalisation) = self.normalisation.clone() else {
            return Ok(frozen);
        };
        Ok(frozen.map(|inner| -> Box<dyn Classifier> { Box::new(Normalised { normalisation, inner }) }))
    }
}

/// (x − mean) / std, channel by channel.
#[derive(Debug, Clone)]
struct Normalisation {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Normalisation {
    fn apply(&self, images: &Tensor) -> TensorResult<Tensor> {
        let channels = |values: &[f64]| {
            let values = Tensor::new(values, images.device())?.to_dtype(images.dtype())?;
            values.reshape((1, values.elem_count(), 1, 1))
        };
        images
            .broadcast_sub(&channels(&self.mean)?)?
            .broadcast_div(&channels(&self.std)?)
    }
}

/// A frozen network that sees normalised images.
struct Normalised {
    normalisation: Normalisation,
    inner: Box<dyn Classifier>,
}

impl Classifier for Normalised {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> TensorResult<Tensor> {
        self.inner.logits(&self.normalisation.apply(images)?, mode)
    }

    fn classes(&self) -> usize {
        self.inner.classes()
    }
}

/// A threat model as the command line writes it: `linf:8/255`.
pub(crate) fn threat(text: &str) -> anyhow::Result<Threat> {
    let mistake = |why: String| Stop::usage(format!("--threat {text}: {why}; write it as `linf:8/255` or `l2:0.5`"));
    let (norm, epsilon) = text.split_once(':').ok_or_else(|| mistake("no `:`".into()))?;
    let norm: Norm = from_value(json!(norm)).map_err(|(_, message)| mistake(message))?;
    let epsilon: Pixels = epsilon
        .parse()
        .map_err(|error: attacks::InvalidPixels| mistake(error.to_string()))?;
    let threat = Threat { norm, epsilon };
    threat.check().map_err(|invalid| mistake(invalid.message))?;
    Ok(threat)
}

/// What the literature allows on such images: 8/255 in colour, 0.3 on grey digits, under L∞.
pub(crate) fn usual_threat(family: Family) -> Threat {
    let epsilon = match family {
        Family::Mnist => Pixels::new(3, 10),
        Family::Cifar => Pixels::new(8, 255),
    };
    Threat {
        norm: Norm::Linf,
        epsilon,
    }
}

/// The setting of a data set.
pub(crate) fn setting(entry: &datasets::Entry, model: &str, threat: Option<Threat>) -> Setting {
    let family = match entry.family {
        datasets::Family::Mnist => Family::Mnist,
        datasets::Family::Cifar => Family::Cifar,
    };
    Setting {
        family,
        threat: threat.unwrap_or_else(|| usual_threat(family)),
        network: model.to_string(),
        image: entry.image,
        classes: entry.classes.len(),
    }
}

/// An attack with what is said around it.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    pub(crate) attack: Configured<dyn Attack>,
    pub(crate) label: String,
    pub(crate) threat: Threat,
}

/// An attack as the command line writes it: a name, or an entry of a matrix such as
/// `{ name: pgd, steps: 40, epsilon: 4/255 }`.
pub(crate) fn judge(text: &str, registry: &Registry<dyn Attack>, setting: &Setting) -> anyhow::Result<Judge> {
    let mistake = |at: &str, message: String| {
        let at = if at.is_empty() {
            String::new()
        } else {
            format!(" `{at}`:")
        };
        Stop::usage(format!("--attack {text}:{at} {}", with_suggestion(&message)))
    };
    let value = yaml::parse(text).map_err(|error| {
        mistake(
            "",
            format!("{}; write a name or `{{ name: pgd, steps: 20 }}`", error.message),
        )
    })?;
    let mut entry = match value {
        Value::String(name) => Map::from_iter([("name".to_string(), Value::String(name))]),
        Value::Object(entry) => entry,
        _ => return Err(mistake("", "write a name or `{ name: pgd, steps: 20 }`".into())),
    };
    let mut take = |key: &str| -> anyhow::Result<Option<String>> {
        match entry.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(mistake(key, "must be text or a number".into())),
        }
    };
    let name = take("name")?.ok_or_else(|| mistake("", "missing field `name`".into()))?;
    let label = take("label")?;
    let mut threat = setting.threat;
    if let Some(epsilon) = take("epsilon")? {
        threat.epsilon = epsilon
            .parse()
            .map_err(|error: attacks::InvalidPixels| mistake("epsilon", error.to_string()))?;
        threat.check().map_err(|invalid| mistake("epsilon", invalid.message))?;
    }
    let setting = Setting {
        threat,
        ..setting.clone()
    };
    let attack = registry
        .parse(&name, Value::Object(entry), &setting)
        .map_err(|error| match error {
            attacks::ParseError::Field { field, message } => mistake(&field, message),
            unknown => mistake("", unknown.to_string()),
        })?;
    let label = label.unwrap_or_else(|| attack_label(&attack));
    Ok(Judge { attack, label, threat })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits() -> Setting {
        setting(datasets::entry("digits").unwrap(), "tiny-cnn", None)
    }

    #[test]
    fn threats_and_attacks_are_read() {
        let it = threat("linf:8/255").unwrap();
        assert_eq!((it.norm, it.epsilon.to_string()), (Norm::Linf, "8/255".into()));
        assert_eq!(threat("l2:0.5").unwrap().norm, Norm::L2);
        for text in ["8/255", "linf:x", "l3:1", "linf:2", "linf:1/0"] {
            let error = threat(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--threat {text}: ")), "{error}");
        }
        let methods = attacks::builtin();
        assert_eq!(judge("pgd", &methods, &digits()).unwrap().label, "PGD-40");
        let it = judge(
            "{ name: pgd, steps: 7, epsilon: 0.1, label: mine }",
            &methods,
            &digits(),
        )
        .unwrap();
        assert_eq!((&*it.label, it.threat.epsilon.value()), ("mine", 0.1));
        assert_eq!(it.attack.config["steps"], 7);
        let check = |text: &str, part: &str| {
            let error = judge(text, &methods, &digits()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check("pdg", "did you mean `pgd`?");
        check("{ name: pgd, stpes: 3 }", "did you mean `steps`?");
        check("{ name: pgd, epsilon: 3 }", "`epsilon`");
        check("[1]", "write a name");
        check("{ steps: 3 }", "missing field `name`");
        check("{", "write a name");
    }

    #[test]
    fn a_normalised_network_sees_normalised_images() {
        let image = [3, 8, 8];
        let build = || models::build("tiny-cnn", image, 4, &Stream::new(3)).unwrap();
        let images = Tensor::rand(0f32, 1.0, (2, 3, 8, 8), &candle_core::Device::Cpu).unwrap();
        let normalised = External {
            network: build(),
            normalisation: Some(Normalisation {
                mean: vec![0.5, 0.25, 0.0],
                std: vec![0.5, 1.0, 2.0],
            }),
            digest: String::new(),
            remarks: Vec::new(),
        };
        let channel =
            |c: usize, mean: f64, std: f64| ((images.narrow(1, c, 1).unwrap() - mean).unwrap() / std).unwrap();
        let by_hand = Tensor::cat(&[channel(0, 0.5, 0.5), channel(1, 0.25, 1.0), channel(2, 0.0, 2.0)], 1).unwrap();
        let numbers = |logits: Tensor| logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = numbers(build().logits(&by_hand, Mode::Eval).unwrap());
        let frozen = normalised.freeze().unwrap().unwrap();
        for found in [&normalised as &dyn Classifier, frozen.as_ref()] {
            for (a, b) in numbers(found.logits(&images, Mode::Eval).unwrap())
                .iter()
                .zip(&expected)
            {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
}
