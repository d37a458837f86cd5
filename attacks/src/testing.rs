//! The small networks of the reference vectors, other classifiers that tests attack, and checks that the
//! tests of attacks and of defenses share.

use std::collections::{BTreeMap, BTreeSet};

use attacks::{Batch, Family, Norm, ParseError, Registry, Setting, Threat};
use candle_core::{DType, Device, Result, Tensor, Var};
use models::{Classifier, Mode};
use reference::Case;

/// Both precisions in which every reference case runs.
pub(crate) const BOTH: [DType; 2] = [DType::F32, DType::F64];

/// `net_conv` or `net_mlp`. Every tensor is a variable, running statistics included.
#[derive(Debug)]
pub(crate) struct Net {
    convolutional: bool,
    pub(crate) tensors: BTreeMap<String, Var>,
}

impl Net {
    /// From the tensors whose names start with `prefix`.
    pub(crate) fn read(case: &Case, prefix: &str, dtype: DType) -> Self {
        let mut tensors = BTreeMap::new();
        for name in case.tensors().keys() {
            if let Some(short) = name.strip_prefix(prefix) {
                let tensor = case.input(name, dtype).copy().unwrap();
                tensors.insert(short.to_string(), Var::from_tensor(&tensor).unwrap());
            }
        }
        let convolutional = match case.meta["net"]["type"].as_str() {
            Some("conv") => true,
            Some("mlp") => false,
            other => panic!("{}: unknown network {other:?}", case.path.display()),
        };
        Self { convolutional, tensors }
    }

    /// The parameters that are trained, in the order of their names.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&str, &Var)> {
        let trained = |name: &&String| !name.contains("running_");
        self.tensors
            .iter()
            .filter(move |(name, _)| trained(name))
            .map(|(name, var)| (name.as_str(), var))
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors[name].as_tensor()
    }

    fn linear(&self, name: &str, input: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        input.matmul(&weight.t()?)?.broadcast_add(bias)
    }

    fn batch_norm(&self, name: &str, input: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let channels = |values: &Tensor| values.reshape((1, values.elem_count(), 1, 1));
        let (running_mean, running_var) = (format!("{name}.running_mean"), format!("{name}.running_var"));
        let (mean, variance) = match mode {
            Mode::Eval => (self.get(&running_mean).detach(), self.get(&running_var).detach()),
            Mode::BatchStatistics | Mode::Train(_) => {
                let rows = input.transpose(0, 1)?.flatten_from(1)?; // [C, B·H·W]
                let mean = rows.mean(1)?;
                let variance = rows.broadcast_sub(&mean.unsqueeze(1)?)?.sqr()?.mean(1)?;
                if matches!(mode, Mode::Train(_)) {
                    let count = rows.dim(1)? as f64;
                    let unbiased = (variance.detach() * (count / (count - 1.0)))?;
                    self.learn(&running_mean, &mean.detach())?;
                    self.learn(&running_var, &unbiased)?;
                }
                (mean, variance)
            }
        };
        let scale = self.get(&format!("{name}.weight")).div(&(variance + 1e-5)?.sqrt()?)?;
        let centred = input.broadcast_sub(&channels(&mean)?)?;
        centred
            .broadcast_mul(&channels(&scale)?)?
            .broadcast_add(&channels(self.get(&format!("{name}.bias")))?)
    }

    fn learn(&self, name: &str, value: &Tensor) -> Result<()> {
        let running = &self.tensors[name];
        running.set(&((running.as_detached_tensor() * 0.9)? + (value * 0.1)?)?)
    }
}

impl Classifier for Net {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        if !self.convolutional {
            let hidden = relu(&self.linear("fc1", &images.flatten_from(1)?)?)?;
            return self.linear("fc3", &relu(&self.linear("fc2", &hidden)?)?);
        }
        let first = images.conv2d(self.get("conv1.weight"), 1, 1, 1, 1)?;
        let first = relu(&self.batch_norm("bn1", &first, mode)?)?;
        let second = first.conv2d(self.get("conv2.weight"), 1, 2, 1, 1)?;
        let second = relu(&self.batch_norm("bn2", &second, mode)?)?;
        self.linear("fc", &second.flatten_from(1)?)
    }

    fn classes(&self) -> usize {
        let last = if self.convolutional { "fc.bias" } else { "fc3.bias" };
        self.get(last).elem_count()
    }
}

/// max(v, 0) with gradient 0 at 0, as in PyTorch; Candle's has 1 there.
fn relu(values: &Tensor) -> Result<Tensor> {
    values
        .gt(&values.zeros_like()?)?
        .where_cond(values, &values.zeros_like()?)
}

/// Logits W·x + b.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[K, pixels]`
    pub(crate) weight: Tensor,
    /// `[K]`
    pub(crate) bias: Tensor,
}

impl Classifier for Linear {
    fn logits(&self, images: &Tensor, _: Mode<'_>) -> Result<Tensor> {
        images
            .flatten_from(1)?
            .matmul(&self.weight.t()?)?
            .broadcast_add(&self.bias)
    }

    fn classes(&self) -> usize {
        self.bias.elem_count()
    }
}

/// Logits sin(W·x + b): many local maxima.
#[derive(Debug)]
pub(crate) struct Wave(pub(crate) Linear);

impl Wave {
    /// Fixed weights of both signs and several frequencies.
    pub(crate) fn new(classes: usize, pixels: usize, frequency: f64) -> Self {
        let weights: Vec<f64> = (0..classes * pixels)
            .map(|i| frequency * (1.7 * i as f64 + 0.3).sin())
            .collect();
        let bias: Vec<f64> = (0..classes).map(|k| (2.1 * k as f64).cos()).collect();
        Self(Linear {
            weight: tensor(&weights, &[classes, pixels]),
            bias: tensor(&bias, &[classes]),
        })
    }
}

impl Classifier for Wave {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        self.0.logits(images, mode)?.sin()? * 3.0
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }
}

/// Images with the pixels of a wave, in `[0, 1]`, some at its ends.
pub(crate) fn waves(examples: usize, shape: [usize; 3], classes: usize) -> Batch {
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

/// A setting at its family's usual radius.
pub(crate) fn setting(family: Family, norm: Norm) -> Setting {
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

/// Both families under both norms.
pub(crate) fn settings() -> Vec<Setting> {
    let families = [Family::Mnist, Family::Cifar];
    families
        .iter()
        .flat_map(|&family| [Norm::Linf, Norm::L2].map(|norm| setting(family, norm)))
        .collect()
}

/// What must hold of every method of a registry: a kebab-case name of its own; its example and its defaults
/// resolve in every setting, to a configuration that resolves to itself; an unknown key is refused by name.
pub(crate) fn check_entries<T: ?Sized + std::fmt::Debug + 'static>(registry: &Registry<T>) {
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

/// Fails unless the gradient that autograd gives for the sum of `function` agrees with central differences at
/// `point` (doubles).
#[track_caller]
pub(crate) fn assert_gradient(what: &str, point: &Tensor, function: impl Fn(&Tensor) -> Result<Tensor>) {
    const STEP: f64 = 1e-5;
    let variable = Var::from_tensor(&point.copy().unwrap()).unwrap();
    let total = function(&variable).unwrap().sum_all().unwrap();
    let gradients = total.backward().unwrap();
    let gradient = gradients.get(&variable).cloned().unwrap_or(point.zeros_like().unwrap());
    let values = reference::doubles(point);
    let at = |place: usize, step: f64| {
        let mut moved = values.clone();
        moved[place] += step;
        let total = function(&tensor(&moved, point.dims())).unwrap().sum_all().unwrap();
        total.to_scalar::<f64>().unwrap()
    };
    let expected: Vec<f64> = (0..values.len())
        .map(|i| (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP))
        .collect();
    assert_near(what, &gradient, &tensor(&expected, point.dims()), 1e-6);
}

/// The decimal that was recorded, exactly.
pub(crate) fn pixels(value: f64) -> attacks::Pixels {
    value.to_string().parse().unwrap()
}

/// A tensor of doubles on the CPU.
pub(crate) fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap()
}

/// Fails unless |actual − expected| ≤ `tolerance` · max(1, |expected|) wherever `skip` is false.
#[track_caller]
pub(crate) fn assert_near_where(
    what: &str,
    actual: &Tensor,
    expected: &Tensor,
    tolerance: f64,
    skip: impl Fn(usize) -> bool,
) {
    assert_eq!(actual.dims(), expected.dims(), "{what}: shape");
    let (actual, expected) = (reference::doubles(actual), reference::doubles(expected));
    for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
        let close = (a - e).abs() <= tolerance * e.abs().max(1.0);
        assert!(close || skip(i), "{what}[{i}]: {a} instead of {e}; off by {:e}", a - e);
    }
}

/// Fails unless |actual − expected| ≤ `tolerance` · max(1, |expected|) everywhere.
#[track_caller]
pub(crate) fn assert_near(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_near_where(what, actual, expected, tolerance, |_| false);
}

/// One of two tolerances.
pub(crate) fn tolerance(dtype: DType, single: f64, double: f64) -> f64 {
    if dtype == DType::F32 { single } else { double }
}
