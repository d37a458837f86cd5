//! Frozen networks on a card: buffers, folded weights and graphs that outlive one freezing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda::CudaStorageSlice;
use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

use super::card::{Capture, Card};
use super::machine::{Address, Form};
use super::operations::{at, made};
use super::program::frozen::{AttackStep, Bases, Parameters, Program, Staging, sources};
use crate::ascent::{self, Ascended, Ascent};
use crate::device::{Precision, Settings, settings};
use crate::graph::{Graph, Recording};

/// States of networks that were frozen before, for the next ones with the same graph.
#[derive(Default, Clone)]
pub(crate) struct Pool(Arc<Mutex<Vec<State>>>);

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frozen network on a card.
pub(crate) struct Network {
    /// In evaluation mode.
    recording: Recording,
    pool: Pool,
    /// Made when first used.
    state: Mutex<Option<State>>,
}

/// What a network needs on its card.
struct State {
    card: Arc<Card>,
    graph: Graph,
    settings: Settings,
    form: Form,
    parameters: Parameters,
    numbers: CudaSlice<u8>,
    /// By size of batch.
    programs: HashMap<usize, Loaded>,
    /// Forward passes so far.
    passes: u64,
}

/// A program with its memory.
struct Loaded {
    program: Program,
    staging: Staging,
    work: CudaSlice<u8>,
    stage: CudaSlice<u8>,
    /// The forward pass whose marks the work memory holds.
    holds: u64,
    graph: Option<(AttackStep, Capture)>,
}

impl Drop for Network {
    fn drop(&mut self) {
        // Two: an attack's and a transfer's source. More would only take memory.
        const KEPT: usize = 2;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let mut pool = self.pool.lock();
        if let Some(state) = state
            && pool.len() < KEPT
        {
            pool.push(state);
        }
    }
}

impl Network {
    pub(crate) fn new(recording: Recording, pool: &Pool) -> Self {
        Self {
            recording,
            pool: pool.clone(),
            state: Mutex::new(None),
        }
    }

    /// The state, made or taken from the pool, with this network's numbers folded into it.
    fn state(&self, card: &Arc<Card>) -> Result<MutexGuard<'_, Option<State>>> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() {
            return Ok(guard);
        }
        let settings = settings();
        let fits = |state: &State| {
            state.settings == settings && state.graph == self.recording.graph && Arc::ptr_eq(&state.card, card)
        };
        let taken = {
            let mut pool = self.pool.lock();
            let found = pool.iter().position(fits);
            found.map(|index| pool.swap_remove(index))
        };
        let state = match taken {
            Some(state) => state,
            None => State::new(card, &self.recording.graph, settings)?,
        };
        // Tensors that had to be copied live until their numbers have been read.
        let mut kept = Vec::new();
        let sources = sources(&self.recording, |tensor| {
            if tensor.dtype() != DType::F32 {
                bail!("frozen: on a GPU numbers must be f32, not {:?}", tensor.dtype());
            }
            let tensor = tensor.contiguous()?;
            let address = at(card, &tensor)?;
            kept.push(tensor);
            Ok(address)
        })?;
        let base = card.address(&state.numbers);
        let parameters = &state.parameters;
        parameters.fill(&**card, &self.recording.graph, state.form, &sources, base)?;
        *guard = Some(state);
        Ok(guard)
    }

    fn classes(&self) -> usize {
        let graph = &self.recording.graph;
        graph.shapes[graph.last()][0]
    }

    /// Many steps of an attack.
    pub(crate) fn ascend(&self, ascent: &Ascent<'_>) -> Result<Ascended> {
        ascent.check(self.recording.graph.shapes[0], self.classes())?;
        let card = super::operations::card(ascent.start)?;
        let batch = ascent.start.dim(0)?;
        let mut guard = self.state(&card)?;
        let state = guard.as_mut().expect("made above");
        state.passes += 1;
        let passes = state.passes;
        let graphs = state.settings.graphs;
        let (parameters, loaded) = state.loaded(batch)?;
        loaded.holds = passes;
        let stage = card.address(&loaded.stage);
        let staging = loaded.staging;
        let images = ascent.start.elem_count() * 4;
        let put = |offset: u64, tensor: &Tensor, bytes: usize| -> Result<()> {
            let tensor = tensor.contiguous()?;
            card.copy(stage + offset, at(&card, &tensor)?, bytes)
        };
        put(staging.images, &ascent.start.detach().to_dtype(DType::F32)?, images)?;
        put(staging.lower, ascent.lower, images)?;
        put(staging.upper, ascent.upper, images)?;
        put(staging.labels, ascent.labels, batch * 4)?;
        if let Some(logits) = ascent.clean_logits {
            put(staging.clean, logits, logits.elem_count() * 4)?;
        }
        card.zero(stage + staging.stalled, batch * 4)?;
        let bases = loaded.bases(&card, parameters);
        let step = AttackStep {
            labels: stage + staging.labels,
            clean: stage + staging.clean,
            lower: stage + staging.lower,
            upper: stage + staging.upper,
            stalled: stage + staging.stalled,
            loss: ascent.loss,
            length: ascent.step as f32,
        };
        let fits = matches!(&loaded.graph, Some((captured, _)) if *captured == step);
        let mut left = ascent.steps;
        if left > 0 && !fits {
            // A step launch by launch: it is due anyway, and it chooses every algorithm before the capture.
            loaded.program.attack_step(&*card, &bases, &step)?;
            left -= 1;
            loaded.graph = None;
            if graphs && left > 0 {
                let graph = card.capture(|| loaded.program.attack_step(&*card, &bases, &step));
                // What cannot be captured runs launch by launch.
                loaded.graph = graph.ok().map(|graph| (step, graph));
            }
        }
        for _ in 0..left {
            match &loaded.graph {
                Some((_, graph)) if graphs => {
                    graph.replay()?;
                    ascent::count_replay();
                }
                _ => loaded.program.attack_step(&*card, &bases, &step)?,
            }
        }
        Ok(Ascended {
            images: made(&card, ascent.start.shape().clone(), |out| {
                card.copy(out, stage + staging.images, images)
            })?,
            stalled: made(&card, batch, |out| card.copy(out, stage + staging.stalled, batch * 4))?,
        })
    }
}

impl State {
    fn new(card: &Arc<Card>, graph: &Graph, settings: Settings) -> Result<Self> {
        let form = Form {
            half: settings.precision == Precision::Bf16,
            last: settings.channels_last,
        };
        let parameters = Parameters::new(graph, form);
        Ok(Self {
            numbers: card.room(parameters.bytes as usize)?,
            card: card.clone(),
            graph: graph.clone(),
            settings,
            form,
            parameters,
            programs: HashMap::new(),
            passes: 0,
        })
    }

    /// The parameters' place and the program for a size of batch.
    fn loaded(&mut self, batch: usize) -> Result<(Address, &mut Loaded)> {
        // An epoch has two sizes of batch; more than a few would hold memory for nothing.
        const SIZES: usize = 3;
        if !self.programs.contains_key(&batch) {
            if self.programs.len() >= SIZES {
                // What may still run must have ended before its memory goes.
                self.card.synchronize()?;
                self.programs.clear();
            }
            let program = Program::new(&self.graph, &self.parameters, self.form, batch)?;
            let staging = Staging::new(&program);
            let loaded = Loaded {
                work: self.card.room(program.work as usize)?,
                stage: self.card.room(staging.bytes as usize)?,
                program,
                staging,
                holds: 0,
                graph: None,
            };
            self.programs.insert(batch, loaded);
        }
        let parameters = self.card.address(&self.numbers);
        Ok((parameters, self.programs.get_mut(&batch).expect("inserted above")))
    }
}

impl Loaded {
    /// Everything in the program's own memory.
    fn bases(&self, card: &Card, parameters: Address) -> Bases {
        let stage = card.address(&self.stage);
        Bases {
            work: card.address(&self.work),
            parameters,
            images: stage + self.staging.images,
            logits: stage + self.staging.logits,
            logit_gradient: stage + self.staging.logit_gradient,
            image_gradient: stage + self.staging.image_gradient,
        }
    }
}

/// One forward pass as an operation of Candle's.
pub(crate) struct Run {
    network: Arc<Network>,
    /// Which pass it was.
    pass: Mutex<u64>,
}

impl Run {
    pub(crate) fn new(network: Arc<Network>) -> Self {
        Self {
            network,
            pass: Mutex::default(),
        }
    }
}

impl CustomOp1 for Run {
    fn name(&self) -> &'static str {
        "frozen-network"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("frozen: the network was frozen on a GPU, the images are not there")
    }

    fn cuda_fwd(&self, images: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(&images.device)?;
        let (batch, classes) = (layout.dims()[0], self.network.classes());
        let out: CudaSlice<f32> = card.room(batch * classes)?;
        if batch > 0 {
            let Some((start, _)) = layout.contiguous_offsets() else {
                bail!("frozen: images are not contiguous");
            };
            let mut guard = self.network.state(&card)?;
            let state = guard.as_mut().expect("made above");
            state.passes += 1;
            let passes = state.passes;
            let (parameters, loaded) = state.loaded(batch)?;
            loaded.holds = passes;
            *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = passes;
            let bases = Bases {
                images: card.address(images.as_cuda_slice::<f32>()?) + 4 * start as u64,
                logits: card.address(&out),
                ..loaded.bases(&card, parameters)
            };
            loaded.program.forward(&*card, &bases)?;
        }
        let storage = CudaStorage {
            slice: CudaStorageSlice::F32(out),
            device: images.device.clone(),
        };
        Ok((storage, (batch, classes).into()))
    }

    fn bwd(&self, images: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let card = super::operations::card(images)?;
        let gradient = gradient.contiguous()?;
        let gradient_at = at(&card, &gradient)?;
        let images_at = at(&card, images)?;
        let batch = images.dim(0)?;
        let to = made(&card, images.shape().clone(), |out| {
            let mut guard = self.network.state(&card)?;
            let state = guard.as_mut().expect("made above");
            let next = state.passes + 1;
            let (parameters, loaded) = state.loaded(batch)?;
            let bases = Bases {
                images: images_at,
                logit_gradient: gradient_at,
                image_gradient: out,
                ..loaded.bases(&card, parameters)
            };
            let mine = *self.pass.lock().unwrap_or_else(PoisonError::into_inner);
            if loaded.holds != mine {
                // Another pass came between, and its marks are not ours.
                loaded.program.forward(&*card, &bases)?;
                loaded.holds = next;
            }
            loaded.program.backward(&*card, &bases)?;
            state.passes = next;
            Ok(())
        })?;
        Ok(Some(to))
    }
}
