//! Balls around images, cut to `[0, 1]`, and steps that stay inside them.
//!
//! Points, gradients and centres are `[B, C, H, W]`; every length is in pixel units.

use candle_core::{Result, Tensor};

use crate::{Norm, Threat};

pub use kernels::sign_step;

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

    /// The smallest and the largest value of each pixel: the ball itself under L∞.
    pub fn bounds(&self) -> [&Tensor; 2] {
        [&self.lower, &self.upper]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pixels;
    use proptest::prelude::*;
    use testing::{assert_near, tensor};

    fn threat(norm: Norm, thousandths: u64) -> Threat {
        Threat {
            norm,
            epsilon: Pixels::new(thousandths, 1000),
        }
    }

    #[test]
    fn steps_worked_by_hand() {
        let images = tensor(&[0.5, 0.02, 0.99], &[1, 1, 1, 3]);
        let gradient = tensor(&[3.0, -4.0, 0.0], &[1, 1, 1, 3]);
        let step = |norm, length: f64| {
            let ball = Ball::new(&threat(norm, 100), &images).unwrap();
            ball.ascend(&images, &gradient, &Length::Same(length)).unwrap()
        };
        assert_near(
            "linf, short",
            &step(Norm::Linf, 0.01),
            &tensor(&[0.51, 0.01, 0.99], &[1, 1, 1, 3]),
            1e-12,
        );
        assert_near(
            "linf, long",
            &step(Norm::Linf, 0.7),
            &tensor(&[0.6, 0.0, 0.99], &[1, 1, 1, 3]),
            1e-12,
        );
        assert_near(
            "l2, short",
            &step(Norm::L2, 0.01),
            &tensor(&[0.506, 0.012, 0.99], &[1, 1, 1, 3]),
            1e-12,
        );
        // (0.3, −0.02 after the box): shrunk to 0.1.
        let shrink = 0.1 / 0.3f64.hypot(0.02);
        let expected = [0.5 + 0.3 * shrink, 0.02 - 0.02 * shrink, 0.99];
        assert_near(
            "l2, long",
            &step(Norm::L2, 0.5),
            &tensor(&expected, &[1, 1, 1, 3]),
            1e-12,
        );
    }

    #[test]
    fn every_image_has_its_own_radius() {
        let images = tensor(&[0.5, 0.5], &[2, 1, 1, 1]);
        let ball = Ball::with_radii(Norm::Linf, &images, &tensor(&[0.1, 0.2], &[2])).unwrap();
        let length = Length::Each((ball.radii() * 0.5).unwrap());
        let moved = ball.ascend(&images, &images.ones_like().unwrap(), &length).unwrap();
        assert_near(
            "half a radius each",
            &moved,
            &tensor(&[0.55, 0.6], &[2, 1, 1, 1]),
            1e-12,
        );
        assert_near(
            "projected",
            &ball.project(&tensor(&[0.9, 0.1], &[2, 1, 1, 1])).unwrap(),
            &tensor(&[0.6, 0.3], &[2, 1, 1, 1]),
            1e-12,
        );
    }

    proptest! {
        #[test]
        fn projection_is_idempotent_and_inside(
            centre in prop::collection::vec(0f64..=1.0, 12),
            points in prop::collection::vec(-3f64..=3.0, 12),
            thousandths in 0u64..2000,
            l2: bool,
        ) {
            let threat = threat(if l2 { Norm::L2 } else { Norm::Linf }, thousandths);
            let images = tensor(&centre, &[2, 1, 2, 3]);
            let ball = Ball::new(&threat, &images).unwrap();
            let once = ball.project(&tensor(&points, &[2, 1, 2, 3])).unwrap();
            let twice = ball.project(&once).unwrap();
            assert_near("twice", &twice, &once, 1e-12);
            for distance in reference::doubles(&threat.distances(&images, &once).unwrap()) {
                prop_assert!(distance <= threat.epsilon.value() + 1e-12);
            }
            for value in reference::doubles(&once) {
                prop_assert!((0.0..=1.0).contains(&value));
            }
        }
    }
}
