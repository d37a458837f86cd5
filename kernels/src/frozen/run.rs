//! A frozen network as operations of Candle's.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::plan::{Marks, Plan};
use crate::element::values;

/// One forward pass, and what its gradient needs of it.
pub(super) struct Run {
    plan: Arc<Plan>,
    /// Whether a gradient may be asked for.
    keep: bool,
    kept: Mutex<Kept>,
}

/// What the gradient needs of a forward pass.
#[derive(Default)]
struct Kept {
    /// Images per group.
    group: usize,
    /// For every group, for every step.
    marks: Vec<Vec<Marks>>,
}

impl Run {
    pub(super) fn new(plan: Arc<Plan>, keep: bool) -> Self {
        Self {
            plan,
            keep,
            kept: Mutex::default(),
        }
    }
}

impl CustomOp1 for Run {
    fn name(&self) -> &'static str {
        "frozen-network"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let images = values::<f32>(storage, layout)?;
        let batch = layout.dims()[0];
        let plan = &*self.plan;
        let classes = plan.frames[plan.frames.len() - 1].bare_len();
        let mut logits = vec![0.0; batch * classes];
        let group = plan.group.min(batch.div_ceil(rayon::current_num_threads())).max(1);
        let image_len = plan.frames[0].bare_len();
        let marks = logits
            .par_chunks_mut(group * classes)
            .zip(images.par_chunks(group * image_len))
            .map(|(logits, images)| plan.with_workspace(|work| plan.forward(images, logits, self.keep, work)))
            .collect();
        *self.kept.lock().expect("no forward pass panicked") = Kept { group, marks };
        Ok((CpuStorage::F32(logits), (batch, classes).into()))
    }

    fn bwd(&self, images: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let kept = self.kept.lock().expect("no forward pass panicked");
        let op = Gradient {
            plan: &self.plan,
            kept: &kept,
            images: images.shape().clone(),
        };
        gradient.contiguous()?.apply_op1_no_bwd(&op).map(Some)
    }
}

/// From the gradient of the logits to that of the images.
struct Gradient<'a> {
    plan: &'a Plan,
    kept: &'a Kept,
    images: Shape,
}

impl CustomOp1 for Gradient<'_> {
    fn name(&self) -> &'static str {
        "frozen-network-gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let gradient = values::<f32>(storage, layout)?;
        let (plan, group) = (self.plan, self.kept.group);
        let classes = layout.dims()[1];
        let mut out = vec![0.0; self.images.elem_count()];
        out.par_chunks_mut(group * plan.frames[0].bare_len())
            .zip(gradient.par_chunks(group * classes).zip(&self.kept.marks))
            .for_each(|(out, (gradient, marks))| {
                plan.with_workspace(|work| plan.backward(gradient, marks, out, work));
            });
        Ok((CpuStorage::F32(out), self.images.clone()))
    }
}
