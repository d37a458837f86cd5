//! Networks in training on a card: one operation from images and parameters to logits, its buffers left to the next
//! step.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda::CudaStorageSlice;
use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor, Var, bail};

use super::card::Card;
use super::machine::{Address, Form};
use super::operations::{at, card, made};
use super::program::trained::{Bases, Program, Variant};
use crate::Statistics;
use crate::device::{Precision, is_out_of_memory, settings};
use crate::graph::{Graph, Recording};
use crate::trained::gradients::Gradients;

/// Programs with their memory, left by passes that have ended for those that come.
#[derive(Default, Clone)]
pub(crate) struct Pool(Arc<Mutex<Vec<State>>>);

impl Pool {
    /// What a pass needs, made or left by an earlier one.
    fn take(&self, card: &Arc<Card>, graph: &Arc<Graph>, variant: Variant) -> Result<State> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |state: &State| state.variant == variant && state.graph == *graph && Arc::ptr_eq(&state.card, card);
        if let Some(found) = free.iter().position(fits) {
            return Ok(free.swap_remove(found));
        }
        match State::new(card, graph, variant) {
            // What waits for other sizes of batch may be in the way.
            Err(error) if is_out_of_memory(&error) && !free.is_empty() => {
                free.clear();
                State::new(card, graph, variant)
            }
            made => made,
        }
    }

    fn give(&self, state: State) {
        // An epoch's last batch is smaller, and a step may make two passes of each size before it goes back.
        const KEPT: usize = 4;
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(state);
        }
    }
}

/// A program with its memory.
struct State {
    card: Arc<Card>,
    graph: Arc<Graph>,
    variant: Variant,
    program: Program,
    work: CudaSlice<u8>,
}

impl State {
    fn new(card: &Arc<Card>, graph: &Arc<Graph>, variant: Variant) -> Result<Self> {
        let program = Program::new(graph, variant)?;
        Ok(Self {
            work: card.room(program.work as usize)?,
            card: card.clone(),
            graph: graph.clone(),
            variant,
            program,
        })
    }
}

/// A network about to make a pass.
pub(crate) struct Network {
    /// Its parameters are contiguous, f32, on the card, and not tracked.
    pub(crate) recording: Recording,
    pub(crate) gradients: Gradients,
    pub(crate) pool: Pool,
}

impl Network {
    /// The logits `[B, K]` of contiguous f32 images. Gradients reach the parameters through the token. `factors`: of
    /// all dropouts, one after the other.
    pub(crate) fn logits(
        self,
        images: &Tensor,
        token: &Tensor,
        statistics: Statistics,
        factors: Option<Vec<f32>>,
    ) -> Result<Tensor> {
        let card = card(images)?;
        let settings = settings();
        let update = statistics == Statistics::BatchAndUpdate;
        let variant = Variant {
            form: Form {
                half: settings.precision == Precision::Bf16,
                last: settings.channels_last,
            },
            batch: images.dim(0)?,
            update,
            dropout: factors.is_some(),
            to_images: images.track_op(),
        };
        let Recording {
            graph,
            parameters,
            running,
        } = self.recording;
        let state = self.pool.take(&card, &Arc::new(graph), variant)?;
        let mut places = Vec::new();
        for parameter in &parameters {
            places.push(at(&card, parameter)?);
        }
        let mut running_places = Vec::new();
        for statistics in &running {
            let tensors = [&statistics.mean, &statistics.variance].map(Var::as_tensor);
            running_places.push([at(&card, tensors[0])?, at(&card, tensors[1])?]);
        }
        let run = Run {
            keep: images.track_op() || token.track_op(),
            factors: factors.map(|factors| card.upload(&factors)).transpose()?,
            state: Mutex::new(Some(state)),
            tensors: parameters,
            parameters: places,
            running: running_places,
            gradients: self.gradients,
            pool: self.pool,
        };
        let logits = images.apply_op2(token, run)?;
        if update {
            for statistics in &running {
                statistics.updates.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(logits)
    }
}

/// One pass.
struct Run {
    /// Whether a gradient may be asked for.
    keep: bool,
    /// Gone when the gradient has been computed.
    state: Mutex<Option<State>>,
    /// Held for as long as their places are used.
    tensors: Vec<Tensor>,
    parameters: Vec<Address>,
    running: Vec<[Address; 2]>,
    factors: Option<CudaSlice<f32>>,
    gradients: Gradients,
    pool: Pool,
}

impl Run {
    fn take(&self) -> Option<State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What both passes need.
    fn bases(&self, state: &State) -> Bases<'_> {
        Bases {
            work: state.card.address(&state.work),
            factors: self.factors.as_ref().map_or(0, |factors| state.card.address(factors)),
            parameters: &self.parameters,
            running: &self.running,
            ..Bases::default()
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // The gradient of this pass was not asked for.
        if let Some(state) = self.take() {
            self.pool.give(state);
        }
    }
}

impl CustomOp2 for Run {
    fn name(&self) -> &'static str {
        "trained-network"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("trained: the network is on a GPU, the images are not")
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let Some((start, _)) = lx.contiguous_offsets() else {
            bail!("trained: images are not contiguous");
        };
        let Some(state) = self.take() else {
            bail!("trained: a pass runs once");
        };
        let (batch, classes) = (state.variant.batch, state.program.classes);
        let out: CudaSlice<f32> = state.card.room(batch * classes)?;
        let bases = Bases {
            images: state.card.address(x.as_cuda_slice::<f32>()?) + 4 * start as u64,
            logits: state.card.address(&out),
            ..self.bases(&state)
        };
        state.program.forward(&*state.card, &bases)?;
        if self.keep {
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state)
        } else {
            self.pool.give(state)
        }
        let storage = CudaStorage {
            slice: CudaStorageSlice::F32(out),
            device: x.device.clone(),
        };
        Ok((storage, (batch, classes).into()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        token: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(state) = self.take() else {
            bail!("trained: the gradient of a pass can be asked for once; make another pass");
        };
        let (card, program) = (&state.card, &state.program);
        let gradient = gradient.contiguous()?;
        let all = made(card, program.gradient_len, |to| {
            if program.reaches_all {
                Ok(())
            } else {
                card.zero(to, 4 * program.gradient_len)
            }
        })?;
        let bases = Bases {
            logit_gradient: at(card, &gradient)?,
            gradients: at(card, &all)?,
            ..self.bases(&state)
        };
        let to_images = if state.variant.to_images {
            Some(made(card, images.shape().clone(), |image_gradient| {
                let bases = Bases {
                    image_gradient,
                    ..bases
                };
                program.backward(&**card, &bases)
            })?)
        } else {
            program.backward(&**card, &bases)?;
            None
        };
        let parts = self.tensors.iter().zip(&program.gradients).map(|(tensor, &start)| {
            let part = all.narrow(0, start, tensor.elem_count())?;
            part.reshape(tensor.shape())
        });
        self.gradients.leave(parts.collect::<Result<_>>()?);
        self.pool.give(state);
        Ok((to_images, Some(token.zeros_like()?)))
    }
}
