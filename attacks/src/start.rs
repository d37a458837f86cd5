//! Where an attack starts.

use candle_core::{Result, Tensor};
use random::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ball::Ball;
use crate::host::placed;
use crate::{Norm, Pixels};

/// Where an attack starts. Draws follow the example: [`random::Purpose::AttackStart`], then the restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// The image itself.
    None,
    /// L∞: uniform in the cube of the radius. L2, as advertorch: an image of uniform noise, brought
    /// into the ball.
    #[default]
    Uniform,
    /// Normal noise: TRADES and MART take a standard deviation of 0.001.
    Gaussian {
        /// The standard deviation of each pixel.
        sigma: Pixels,
    },
}

impl Start {
    /// The starting points `[B, C, H, W]`. Under L∞ they may leave `[0, 1]`, as in most published
    /// code: the first step brings them back.
    pub fn points(&self, ball: &Ball, ids: &[u64], random: &Stream) -> Result<Tensor> {
        let images = ball.centre();
        match self {
            Self::None => Ok(images.clone()),
            Self::Uniform => {
                let draws = draws(random, ids, images, Distribution::Uniform)?;
                match ball.norm() {
                    Norm::Linf => images + ((draws * 2.0)? - 1.0)?.broadcast_mul(ball.radii())?,
                    Norm::L2 => ball.project(&draws),
                }
            }
            Self::Gaussian { sigma } => images + (draws(random, ids, images, Distribution::Normal)? * sigma.value())?,
        }
    }
}

impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Uniform => f.write_str("uniform"),
            Self::Gaussian { sigma } => write!(f, "gaussian(sigma={sigma})"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distribution {
    Uniform,
    Normal,
}

/// Draws in the shape, precision and on the device of `images`.
fn draws(random: &Stream, ids: &[u64], images: &Tensor, distribution: Distribution) -> Result<Tensor> {
    if let Some(key) = random.key()
        && let Some(draws) = kernels::resident::draws(images, key, ids, distribution == Distribution::Normal)?
    {
        return Ok(draws);
    }
    let pixels = images.elem_count() / images.dim(0)?.max(1);
    let draws = match distribution {
        Distribution::Uniform => random.uniform(ids, pixels),
        Distribution::Normal => random.normal(ids, pixels),
    };
    placed(draws, images.shape(), images)
}
