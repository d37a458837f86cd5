//! Convolutions of a network in training: weights are packed for one pass.

use super::pass::Pass;
use crate::convolution::{Geometry, Plain, Scratch, Winograd, over_pixels};
use crate::frame::Frame;

impl Pass {
    /// The convolution of images `[N, H, W, C]`. `finish` gets some results and their place among all.
    pub(super) fn convolve(
        &self,
        geometry: &Geometry,
        weights: &[f32],
        images: &[f32],
        finish: impl Fn(&mut [f32], usize) + Sync,
    ) -> Vec<f32> {
        let (frame, out) = (geometry.input_frame(), Frame::bare(geometry.out_shape()));
        let mut results = self.pool.take(images.len() / frame.bare_len() * out.len());
        match Winograd::forward(geometry, weights, &frame) {
            Some(winograd) => over_pixels(&frame, images, &out, &mut results, |frames, count, results, place| {
                Scratch::of_thread(|scratch| winograd.run(frames, count, &frame, &out, scratch, &mut Plain(results)));
                finish(results, place);
            }),
            None => {
                let part = geometry.forward(weights, &frame);
                over_pixels(&frame, images, &out, &mut results, |frames, count, results, place| {
                    part.run(frames, count, frame.len(), &out, &mut Plain(results));
                    finish(results, place);
                });
            }
        }
        results
    }

    /// The gradient to the images of a convolution, both `[N, H, W, C]`.
    pub(super) fn gradient_to_images(&self, geometry: &Geometry, weights: &[f32], gradient: &[f32]) -> Vec<f32> {
        let frame = geometry.gradient_frame();
        let out = Frame::bare([geometry.inputs, geometry.height, geometry.width]);
        let len = gradient.len() / frame.bare_len() * out.len();
        if let Some(winograd) = Winograd::backward(geometry, weights, &frame) {
            let mut results = self.pool.take(len);
            over_pixels(&frame, gradient, &out, &mut results, |frames, count, results, _| {
                Scratch::of_thread(|scratch| winograd.run(frames, count, &frame, &out, scratch, &mut Plain(results)));
            });
            return results;
        }
        let parts = geometry.backward(weights, &frame);
        // With a stride there may be pixels that no result sees.
        let covered: usize = parts.iter().map(|part| part.covered()).sum();
        let mut results = if covered < out.height * out.width {
            self.pool.zeros(len)
        } else {
            self.pool.take(len)
        };
        over_pixels(&frame, gradient, &out, &mut results, |frames, count, results, _| {
            for part in &parts {
                part.run(frames, count, frame.len(), &out, &mut Plain(results));
            }
        });
        results
    }
}
