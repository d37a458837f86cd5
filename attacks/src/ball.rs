//! Balls around images, cut to `[0, 1]`, and steps that stay inside them.
//!
//! Points, gradients and centres are `[B, C, H, W]`; every length is in pixel units.

use candle_core::{Result, Tensor};

use crate::{Norm, Threat};

/// v ← min(max(v + step · sign(g), lower), upper), with sign(0) = 0.
pub fn sign_step(points: &Tensor, gradient: &Tensor, step: f64, lower: &Tensor, upper: &Tensor) -> Result<Tensor> {
    (points + (gradient.sign()? * step)?)?.maximum(lower)?.minimum(upper)
}

/// ‖v‖₁ of each image, `[B, 1, 1, 1]`.
pub fn l1_norms(values: &Tensor) -> Result<Tensor> {
    per_image(&values.flatten_from(1)?.abs()?.sum(1)?, values)
}

/// ‖v‖₂ of each image, `[B, 1, 1, 1]`.
pub fn l2_norms(values: &Tensor) -> Result<Tensor> {
    per_image(&values.flatten_from(1)?.sqr()?.sum(1)?.sqrt()?, values)
}

/// One value for each image, `[B]`, in a shape that broadcasts over the images: `[B, 1, 1, 1]`.
pub fn per_image(values: &Tensor, images: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; images.rank()];
    shape[0] = images.dim(0)?;
    values.reshape(shape)
}

/// The ball of one radius around each image, cut to `[0, 1]`.
#[derive(Debug, Clone)]
pub struct Ball {
    norm: Norm,
    centre: Tensor,
    /// `[B, 1, 1, 1]`
    radii: Tensor,
    /// The smallest box around it: the ball itself under L∞.
    lower: Tensor,
    upper: Tensor,
}

/// The length of a step.
#[derive(Debug, Clone)]
pub enum Length {
    /// The same for every image.
    Same(f64),
    /// One for each image, `[B, 1, 1, 1]`.
    Each(Tensor),
}

impl Length {
    fn times(&self, directions: &Tensor) -> Result<Tensor> {
        match self {
            Self::Same(length) => directions * *length,
            Self::Each(lengths) => directions.broadcast_mul(lengths),
        }
    }
}

impl Ball {
    /// The threat model around `images`.
    pub fn new(threat: &Threat, images: &Tensor) -> Result<Self> {
        let radius = Tensor::new(threat.epsilon.value(), images.device())?.to_dtype(images.dtype())?;
        Self::with_radii(threat.norm, images, &radius.broadcast_as(images.dim(0)?)?.contiguous()?)
    }

    /// A radius of its own for each image, `[B]`.
    pub fn with_radii(norm: Norm, images: &Tensor, radii: &Tensor) -> Result<Self> {
        let centre = images.detach();
        let radii = per_image(radii, images)?;
        Ok(Self {
            norm,
            lower: centre.broadcast_sub(&radii)?.maximum(0.0)?,
            upper: centre.broadcast_add(&radii)?.minimum(1.0)?,
            centre,
            radii,
        })
    }

    /// The points, each brought into its ball. L∞: the nearest point. L2: cut to `[0, 1]` first, then
    /// shrunk towards the centre, as advertorch does.
    pub fn project(&self, points: &Tensor) -> Result<Tensor> {
        match self.norm {
            Norm::Linf => points.maximum(&self.lower)?.minimum(&self.upper),
            Norm::L2 => {
                let change = (points.clamp(0.0, 1.0)? - &self.centre)?;
                let longer = l2_norms(&change)?.maximum(1e-12)?;
                let shrink = self.radii.broadcast_div(&longer)?.minimum(1.0)?;
                (&self.centre + change.broadcast_mul(&shrink)?)?.clamp(0.0, 1.0)
            }
        }
    }

    /// A step of steepest ascent, then the projection. L∞: along the gradient's sign. L2: along
    /// g / max(‖g‖₂, 1e-6); the floor, advertorch's, damps steps where the loss is all but flat.
    pub fn ascend(&self, points: &Tensor, gradient: &Tensor, length: &Length) -> Result<Tensor> {
        match (self.norm, length) {
            (Norm::Linf, Length::Same(step)) => sign_step(points, gradient, *step, &self.lower, &self.upper),
            (Norm::Linf, each) => self.project(&(points + each.times(&gradient.sign()?)?)?),
            (Norm::L2, length) => {
                let unit = gradient.broadcast_div(&l2_norms(gradient)?.maximum(1e-6)?)?;
                self.project(&(points + length.times(&unit)?)?)
            }
        }
    }

    /// The norm.
    pub fn norm(&self) -> Norm {
        self.norm
    }

    /// The images in the middle.
    pub fn centre(&self) -> &Tensor {
        &self.centre
    }

    /// The radii, `[B, 1, 1, 1]`.
    pub fn radii(&self) -> &Tensor {
        &self.radii
    }
}

impl Threat {
    /// How far each image has moved, `[B]`, in this threat model's norm.
    pub fn distances(&self, images: &Tensor, moved: &Tensor) -> Result<Tensor> {
        let change = (moved - images)?;
        match self.norm {
            Norm::Linf => change.flatten_from(1)?.abs()?.max(1),
            Norm::L2 => l2_norms(&change)?.flatten_all(),
        }
    }
}
