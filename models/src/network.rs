//! A network with named parameters.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::{DType, Device, Result, Tensor, Var};
use kernels::ascent::{Ascended, Ascent};
use kernels::{Recording, Statistics, frozen, trained};

use crate::body::Body;
use crate::builder::Builder;
use crate::error::ModelError;
use crate::layers::{Parameters, Pass, dropout_factors};
use crate::parameter::{Buffer, Parameter, State};
use crate::{Classifier, Mode};

/// A network: a [`Classifier`] whose parameters can be trained, stored and loaded.
pub struct Network {
    name: String,
    image: [usize; 3],
    classes: usize,
    version: u32,
    dtype: DType,
    device: Device,
    parameters: Vec<Parameter>,
    state: Vec<(String, State)>,
    body: Arc<dyn Body>,
    /// Buffers that a training step reuses.
    pool: trained::Pool,
    /// Buffers that the frozen forms of this network reuse.
    frozen_pool: frozen::Pool,
}

impl Network {
    pub(crate) fn new(
        name: &str,
        version: u32,
        image: [usize; 3],
        classes: usize,
        (dtype, device): (DType, Device),
        builder: Builder,
        body: Arc<dyn Body>,
    ) -> Self {
        Self {
            name: name.to_string(),
            image,
            classes,
            version,
            dtype,
            device,
            parameters: builder.parameters,
            state: builder.state,
            body,
            pool: trained::Pool::default(),
            frozen_pool: frozen::Pool::default(),
        }
    }

    /// The name it was built by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Increases whenever the same parameters would give other logits.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Channels, height and width of its images.
    pub fn image(&self) -> [usize; 3] {
        self.image
    }

    /// The type of its numbers.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device of its parameters; images must be there too.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The trained parameters, in the authors' order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The running statistics, in the authors' order.
    pub fn buffers(&self) -> Vec<Buffer> {
        let statistics = self.state.iter().filter_map(|(name, state)| match state {
            State::Statistic(var) => Some(Buffer {
                name: name.clone(),
                var: var.clone(),
            }),
            _ => None,
        });
        statistics.collect()
    }

    /// The number of trainable parameters.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.var.elem_count()).sum()
    }

    /// Multiplications of convolutions and linear layers in one forward pass of one image.
    pub fn multiplications(&self) -> Result<u64> {
        let [channels, height, width] = self.image;
        let image = Tensor::zeros((1, channels, height, width), self.dtype, &self.device)?;
        let count = Cell::new(0);
        let pass = Pass {
            mode: Mode::Eval,
            parameters: Parameters::Constant,
            multiplications: Some(&count),
        };
        self.body.forward(&image, &pass)?;
        Ok(count.get())
    }

    /// Names and shapes of the state dictionary, in the authors' order.
    pub fn state_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let shapes = self.state.iter().map(|(name, state)| {
            let shape = match state {
                State::Parameter(index) => self.parameters[*index].var.dims().to_vec(),
                State::Statistic(var) => var.dims().to_vec(),
                State::Updates(_) => vec![],
            };
            (name.clone(), shape)
        });
        shapes.collect()
    }

    /// A copy of the whole state under the authors' names: parameters, running statistics and
    /// `num_batches_tracked`.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let entries = self.state.iter().map(|(name, state)| {
            let tensor = match state {
                State::Parameter(index) => self.parameters[*index].var.as_tensor().copy()?.detach(),
                State::Statistic(var) => var.as_tensor().copy()?.detach(),
                State::Updates(count) => Tensor::new(count.load(Ordering::Relaxed), &Device::Cpu)?,
            };
            Ok((name.clone(), tensor))
        });
        entries.collect()
    }

    /// One line for each entry of a state that is missing, unknown or of another shape.
    pub(crate) fn misfits(&self, state: &BTreeMap<String, Tensor>) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, shape) in self.state_shapes() {
            match state.get(&name) {
                None if name.ends_with("num_batches_tracked") => {}
                None => problems.push(format!("`{name}` {shape:?} is missing")),
                // Older PyTorch versions wrote counts as [1].
                Some(_) if name.ends_with("num_batches_tracked") => {}
                Some(tensor) if tensor.dims() != shape => {
                    problems.push(format!("`{name}` is {:?} instead of {shape:?}", tensor.dims()));
                }
                Some(_) => {}
            }
        }
        for (name, tensor) in state {
            if !self.state.iter().any(|(known, _)| known == name) {
                problems.push(format!("`{name}` {:?} is not expected", tensor.dims()));
            }
        }
        problems
    }

    /// Loads a whole state. Nothing is changed if a name or shape does not fit;
    /// `num_batches_tracked` may be missing.
    pub fn load_state(&self, state: &BTreeMap<String, Tensor>) -> std::result::Result<(), ModelError> {
        let problems = self.misfits(state);
        if !problems.is_empty() {
            let name = self.name.clone();
            return Err(ModelError::State { name, problems });
        }
        for (name, target) in &self.state {
            let Some(tensor) = state.get(name) else { continue };
            match target {
                State::Parameter(index) => set(&self.parameters[*index].var, tensor)?,
                State::Statistic(var) => set(var, tensor)?,
                State::Updates(count) => {
                    let value = tensor.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
                    count.store(value.first().copied().unwrap_or(0), Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// The logits layer by layer through Candle's graph: slower than [`Classifier::logits`], which
    /// tests compare with this.
    pub fn logits_by_layers(&self, images: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        self.check(images)?;
        let pass = Pass {
            mode,
            parameters: Parameters::Tracked,
            multiplications: None,
        };
        self.body.forward(images, &pass)
    }

    /// The logits in training as one operation, where that is possible: in `f32`.
    fn train_as_one(&self, images: &Tensor, mode: Mode<'_>) -> Result<Option<Tensor>> {
        let (statistics, dropout) = match mode {
            Mode::Eval => return Ok(None),
            Mode::BatchStatistics => (Statistics::Batch, None),
            Mode::Train(dropout) => (Statistics::BatchAndUpdate, dropout),
        };
        if self.dtype != DType::F32 {
            return Ok(None);
        }
        let Some(recording) = self.record()? else {
            return Ok(None);
        };
        let images = self.body.prepare(images)?;
        let logits = match &dropout {
            None => trained::logits(recording, &images, statistics, None, &self.pool)?,
            Some(dropout) => {
                let batch = images.dim(0)?;
                if dropout.ids.len() != batch {
                    candle_core::bail!("dropout: {} ids for {batch} images", dropout.ids.len());
                }
                let factors = |layer, width| dropout_factors(dropout, layer, width);
                trained::logits(recording, &images, statistics, Some(&factors), &self.pool)?
            }
        };
        Ok(Some(logits))
    }

    /// The layers after [`Body::prepare`], if they can be recorded.
    fn record(&self) -> Result<Option<Recording>> {
        let (mut recording, images) = Recording::new(self.image);
        let logits = self.body.describe(&mut recording, images)?;
        Ok(logits.map(|_| recording))
    }

    fn check(&self, images: &Tensor) -> Result<()> {
        check_images(&self.name, self.image, images)?;
        if images.device().same_device(&self.device) {
            return Ok(());
        }
        candle_core::bail!(
            "{} is on {:?}, the images are on {:?}",
            self.name,
            self.device.location(),
            images.device().location()
        )
    }
}

fn set(var: &Var, tensor: &Tensor) -> Result<()> {
    // A copy: a variable must not share its storage with the caller's tensor.
    var.set(&tensor.to_device(var.device())?.to_dtype(var.dtype())?.copy()?)
}

fn check_images(name: &str, [channels, height, width]: [usize; 3], images: &Tensor) -> Result<()> {
    match images.dims() {
        [_, c, h, w] if [*c, *h, *w] == [channels, height, width] => Ok(()),
        dims => candle_core::bail!("{name} takes images [B, {channels}, {height}, {width}], not {dims:?}"),
    }
}

impl Classifier for Network {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        self.check(images)?;
        if let Some(logits) = self.train_as_one(images, mode)? {
            return Ok(logits);
        }
        self.logits_by_layers(images, mode)
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn freeze(&self) -> Result<Option<Box<dyn Classifier>>> {
        let recording = match self.dtype {
            DType::F32 => self.record()?,
            _ => None,
        };
        let layers = recording
            .map(|recording| frozen::Frozen::new(&recording, &self.frozen_pool))
            .transpose()?;
        Ok(Some(Box::new(Frozen {
            name: self.name.clone(),
            image: self.image,
            classes: self.classes,
            layers,
            body: self.body.clone(),
        })))
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("classes", &self.classes)
            .field("parameters", &self.parameter_count())
            .finish_non_exhaustive()
    }
}

/// A network whose parameters are constants.
struct Frozen {
    name: String,
    image: [usize; 3],
    classes: usize,
    /// In f32 and for [`Mode::Eval`]; otherwise the body with parameters that are not tracked.
    layers: Option<frozen::Frozen>,
    body: Arc<dyn Body>,
}

impl Classifier for Frozen {
    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        check_images(&self.name, self.image, images)?;
        if let (Some(layers), Mode::Eval) = (&self.layers, mode) {
            return layers.logits(&self.body.prepare(images)?);
        }
        let pass = Pass {
            mode,
            parameters: Parameters::Constant,
            multiplications: None,
        };
        self.body.forward(images, &pass)
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn ascend(&self, ascent: &Ascent<'_>) -> Result<Option<Ascended>> {
        check_images(&self.name, self.image, ascent.start)?;
        match &self.layers {
            // If images are prepared first, the layers do not see the images to which the bound applies.
            Some(layers) if self.body.prepare(ascent.start)?.id() == ascent.start.id() => layers.ascend(ascent),
            _ => Ok(None),
        }
    }
}
