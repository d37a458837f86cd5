//! Classifiers whose best perturbation is known or hard to find.

use candle_core::{Result, Tensor};
use models::{Classifier, Mode};

use crate::compare::tensor;

/// Logits W·x + b.
#[derive(Debug)]
pub struct Linear {
    /// `[K, pixels]`
    pub weight: Tensor,
    /// `[K]`
    pub bias: Tensor,
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
pub struct Wave(pub Linear);

impl Wave {
    /// Fixed weights of both signs and several frequencies.
    pub fn new(classes: usize, pixels: usize, frequency: f64) -> Self {
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
