//! Natural training: no adversary.
//!
//! loss = mean_B CE(f(x), y)
//!
//! Images `[B, C, H, W]` in `[0, 1]`; result: scalar, nats. Its networks are the sources of transfer attacks.

use attacks::losses::cross_entropy;
use attacks::{Invalid, Method, Setting};
use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Defense, Step};

/// Natural training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Natural {}

impl Method for Natural {
    const NAME: &'static str = "natural";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "no adversary: cross entropy on the images as they are";
    const SOURCE: &'static str = "no defense";
    const EXAMPLE: &'static str = "{}";

    fn resolve(&mut self, _: &Setting) -> std::result::Result<(), Invalid> {
        Ok(())
    }
}

impl Defense for Natural {
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor> {
        let logits = step.train_logits(&step.batch.images)?;
        step.mean(&cross_entropy(&logits, &step.batch.labels)?)
    }
}
