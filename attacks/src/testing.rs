//! The small networks of the reference vectors, and other classifiers that tests attack.

use std::collections::BTreeMap;

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
