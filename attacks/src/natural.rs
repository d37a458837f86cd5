//! No attack: the images as they are. Its accuracy is the natural accuracy.

use candle_core::Result;
use models::Classifier;
use random::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Attack, Batch, Cost, Description, Invalid, Method, Perturbed, Setting, Threat};

/// No attack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Natural {}

impl Method for Natural {
    const NAME: &'static str = "natural";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "the images as they are: natural accuracy";
    const SOURCE: &'static str = "no attack";
    const EXAMPLE: &'static str = "{}";

    fn resolve(&mut self, _: &Setting) -> std::result::Result<(), Invalid> {
        Ok(())
    }
}

impl Attack for Natural {
    fn perturb(&self, _: &dyn Classifier, batch: &Batch, _: &Threat, _: &Stream) -> Result<Perturbed> {
        Ok(Perturbed {
            images: batch.images.detach(),
            cost: Cost::default(),
            zero_gradients: 0,
            queries: None,
        })
    }

    fn describe(&self) -> Description {
        Description::default()
    }
}
