//! The gradient of a frozen network to its images.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::forward::{Kept, len};
use super::{Convolution, Layer, Method, Plan, Workspace};
use crate::bias::Activation;
use crate::convolution::{Patches, Planes};
use crate::element::values;
use crate::product::{multiply, store};

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
        out.par_chunks_mut(group * len(plan.shapes[0]))
            .zip(gradient.par_chunks(group * classes).zip(&self.kept.marks))
            .for_each(|(out, (gradient, marks))| {
                plan.with_workspace(|work| plan.backward(gradient, marks, out, work));
            });
        Ok((CpuStorage::F32(out), self.images.clone()))
    }
}

impl Plan {
    pub(super) fn gradient(&self, kept: &Kept, images: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let op = Gradient {
            plan: self,
            kept,
            images: images.shape().clone(),
        };
        gradient.apply_op1_no_bwd(&op)
    }

    /// From the gradient of a group's logits to that of its images.
    fn backward(&self, gradient: &[f32], marks: &[Vec<u8>], out: &mut [f32], work: &mut Workspace) {
        let count = out.len() / len(self.shapes[0]);
        let mut gradients: Vec<Option<Vec<f32>>> = vec![None; self.shapes.len()];
        let mut last = work.take(gradient.len());
        last.copy_from_slice(gradient);
        gradients[self.shapes.len() - 1] = Some(last);
        for (index, step) in self.steps.iter().enumerate().rev() {
            // A value that nothing reads has no gradient.
            let Some(mut gradient) = gradients[index + 1].take() else {
                continue;
            };
            let (shape, mark) = (self.shapes[step.input], &marks[index]);
            let earlier = gradients[step.input].take();
            let is_first = earlier.is_none();
            let mut to_input = earlier.unwrap_or_else(|| work.take(count * len(shape)));
            match &step.layer {
                Layer::Convolution(convolution) => {
                    if convolution.activation == Activation::Relu {
                        mask(&mut gradient, mark);
                    }
                    convolution.backward(&gradient, is_first, &mut to_input, work);
                    if let Some(residual) = convolution.residual {
                        // The gradient's own buffer goes on, unless there is one already.
                        match &mut gradients[residual] {
                            Some(sum) => add(sum, &gradient),
                            none => *none = Some(std::mem::take(&mut gradient)),
                        }
                    }
                }
                Layer::ScaleShiftRelu { scale, .. } => {
                    mask(&mut gradient, mark);
                    let area = shape[1] * shape[2];
                    let planes = to_input.chunks_exact_mut(area).zip(gradient.chunks_exact(area));
                    for ((to_input, gradient), &scale) in planes.zip(scale.iter().cycle()) {
                        let pairs = to_input.iter_mut().zip(gradient);
                        match is_first {
                            true => pairs.for_each(|(out, &g)| *out = g * scale),
                            false => pairs.for_each(|(out, &g)| *out += g * scale),
                        }
                    }
                }
                Layer::MaxPool(size) => {
                    if is_first {
                        to_input.fill(0.0);
                    }
                    max_pool(&gradient, mark, *size, shape, &mut to_input);
                }
                Layer::MeanPerChannel => {
                    let area = shape[1] * shape[2];
                    let scale = 1.0 / area as f32;
                    for (plane, &gradient) in to_input.chunks_exact_mut(area).zip(&gradient) {
                        match is_first {
                            true => plane.fill(gradient * scale),
                            false => plane.iter_mut().for_each(|out| *out += gradient * scale),
                        }
                    }
                }
                Layer::Flatten => match is_first {
                    true => to_input.copy_from_slice(&gradient),
                    false => add(&mut to_input, &gradient),
                },
            }
            if !gradient.is_empty() {
                work.give(gradient);
            }
            gradients[step.input] = Some(to_input);
        }
        let images = gradients[0].take().expect("the first layer reads the images");
        out.copy_from_slice(&images);
        work.give(images);
    }
}

fn add(sum: &mut [f32], gradient: &[f32]) {
    sum.iter_mut().zip(gradient).for_each(|(sum, &g)| *sum += g);
}

/// Zero where the ReLU was off.
fn mask(gradient: &mut [f32], signs: &[u8]) {
    for (gradient, &sign) in gradient.iter_mut().zip(signs) {
        *gradient = if sign == 0 { 0.0 } else { *gradient };
    }
}

/// Adds every window's gradient where its maximum was.
fn max_pool(gradient: &[f32], places: &[u8], size: usize, [_, height, width]: [usize; 3], out: &mut [f32]) {
    let (rows, columns) = (height / size, width / size);
    let windows = gradient
        .chunks_exact(rows * columns)
        .zip(places.chunks_exact(rows * columns));
    for (plane, (gradient, places)) in out.chunks_exact_mut(height * width).zip(windows) {
        for i in 0..rows {
            for j in 0..columns {
                let place = usize::from(places[i * columns + j]);
                let (row, column) = (i * size + place / size, j * size + place % size);
                plane[row * width + column] += gradient[i * columns + j];
            }
        }
    }
}

impl Convolution {
    fn backward(&self, gradient: &[f32], is_first: bool, out: &mut [f32], work: &mut Workspace) {
        let rows = self.padded.channels;
        let plane = self.padded.height * self.padded.width;
        let images = out.len() / (rows * plane);
        let mut border = std::mem::take(&mut work.border);
        self.padded_gradient.copy(gradient, &mut border);
        match &self.backward {
            Method::Direct(parts) => {
                let covered: usize = parts.iter().map(|part| part.stencil.pixels()).sum();
                if is_first && covered < plane {
                    out.fill(0.0);
                }
                for part in parts {
                    let patches = Patches {
                        stencil: &part.stencil,
                        padded: &border,
                        len: self.padded_gradient.len(),
                        images,
                    };
                    let mut planes = Planes::new(out, rows, plane, part);
                    planes.accumulate = !is_first;
                    multiply(&part.weights, &patches, &mut work.panel, &mut planes);
                }
            }
            Method::Winograd(winograd) => {
                let size = [self.padded.height, self.padded.width];
                winograd.run(
                    &border,
                    images,
                    size,
                    &mut work.winograd,
                    |image, channel, row, column, values| {
                        let start = (image * rows + channel) * plane + row * size[1] + column;
                        store(&mut out[start..start + values.len()], values, is_first);
                    },
                );
            }
        }
        work.border = border;
    }
}
