//! The small networks of the reference vectors.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Result, Tensor, Var};
use models::{Classifier, Mode};
use reference::{Case, NotBuilt};

/// A network as its case describes it: `net.type` names the kind of layers, the tensors give their number and sizes.
/// Every tensor is a variable, running statistics included.
#[derive(Debug)]
pub struct Net {
    layers: Layers,
    /// The variables by name.
    pub tensors: BTreeMap<String, Var>,
}

/// How the layers are connected.
#[derive(Debug)]
enum Layers {
    /// `conv1`, `bn1`, ReLU, …, then `fc`. The first convolution has stride 1, the others stride 2.
    Convolutional(usize),
    /// `fc1`, ReLU, `fc2`, ….
    Linear(usize),
}

impl Net {
    /// The small convolutional network of the vectors in double precision: 3×8×8 images, 10 classes.
    pub fn small() -> Self {
        let case = reference::vectors().join("attacks/net_conv.safetensors");
        Self::read(&Case::read(&case), "", DType::F64).expect("a network of known layers")
    }

    /// From the tensors whose names start with `prefix`.
    ///
    /// # Errors
    /// The network has layers of an unknown kind.
    pub fn read(case: &Case, prefix: &str, dtype: DType) -> std::result::Result<Self, NotBuilt> {
        let mut tensors = BTreeMap::new();
        for name in case.tensors().keys() {
            if let Some(short) = name.strip_prefix(prefix) {
                let tensor = case.input(name, dtype).copy().unwrap();
                tensors.insert(short.to_string(), Var::from_tensor(&tensor).unwrap());
            }
        }
        let count = |layer: &str| {
            let numbered = (1..).take_while(|i| tensors.contains_key(&format!("{layer}{i}.weight")));
            numbered.count()
        };
        let (layers, expected) = match case.meta["net"]["type"].as_str() {
            Some("conv") => {
                let convolutions = count("conv");
                let blocks = (1..=convolutions).flat_map(|i| {
                    let norm = ["weight", "bias", "running_mean", "running_var"].map(|part| format!("bn{i}.{part}"));
                    [format!("conv{i}.weight")].into_iter().chain(norm)
                });
                let last = ["fc.weight".to_string(), "fc.bias".to_string()];
                (Layers::Convolutional(convolutions), blocks.chain(last).collect())
            }
            Some("mlp") => {
                let linear = count("fc");
                let layers = (1..=linear).flat_map(|i| [format!("fc{i}.weight"), format!("fc{i}.bias")]);
                (Layers::Linear(linear), layers.collect::<BTreeSet<_>>())
            }
            other => return Err(NotBuilt(format!("a network of unknown type {other:?}"))),
        };
        if expected.len() <= 2 || !tensors.keys().eq(&expected) {
            let found: Vec<_> = tensors.keys().collect();
            return Err(NotBuilt(format!("a network of other layers: {found:?}")));
        }
        let net = Self { layers, tensors };
        net.check_features(case)?;
        Ok(net)
    }

    /// The last layer must take what the convolutions give: otherwise their strides are not those described above.
    fn check_features(&self, case: &Case) -> std::result::Result<(), NotBuilt> {
        let (Layers::Convolutional(convolutions), Some(side)) = (&self.layers, case.meta["net"]["hw"].as_u64()) else {
            return Ok(());
        };
        let side = (1..*convolutions).fold(side as usize, |side, _| side.div_ceil(2));
        let channels = self.get(&format!("conv{convolutions}.weight")).dims()[0];
        let [given, taken] = [channels * side * side, self.get("fc.weight").dims()[1]];
        if given != taken {
            return Err(NotBuilt(format!(
                "convolutions of other strides: {taken} features instead of {given}"
            )));
        }
        Ok(())
    }

    /// The parameters that are trained, in the order of their names.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Var)> {
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
        match self.layers {
            Layers::Linear(layers) => {
                let mut hidden = images.flatten_from(1)?;
                for layer in 1..layers {
                    hidden = relu(&self.linear(&format!("fc{layer}"), &hidden)?)?;
                }
                self.linear(&format!("fc{layers}"), &hidden)
            }
            Layers::Convolutional(layers) => {
                let mut hidden = images.clone();
                for layer in 1..=layers {
                    let weight = self.get(&format!("conv{layer}.weight"));
                    let (padding, stride) = (weight.dims()[2] / 2, if layer == 1 { 1 } else { 2 });
                    let summed = hidden.conv2d(weight, padding, stride, 1, 1)?;
                    hidden = relu(&self.batch_norm(&format!("bn{layer}"), &summed, mode)?)?;
                }
                self.linear("fc", &hidden.flatten_from(1)?)
            }
        }
    }

    fn classes(&self) -> usize {
        match self.layers {
            Layers::Convolutional(_) => self.get("fc.bias").elem_count(),
            Layers::Linear(layers) => self.get(&format!("fc{layers}.bias")).elem_count(),
        }
    }
}

/// max(v, 0) with gradient 0 at 0, as in PyTorch; Candle's has 1 there.
fn relu(values: &Tensor) -> Result<Tensor> {
    values
        .gt(&values.zeros_like()?)?
        .where_cond(values, &values.zeros_like()?)
}
