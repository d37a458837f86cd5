//! The trait that every defense implements.

use attacks::Setting;
use candle_core::{Result, Tensor};

use crate::{Group, Memory, Recipe, Step};

/// An adversarial training method.
pub trait Defense: std::fmt::Debug + Send + Sync {
    /// The scalar to be minimised in this step, with gradients to the parameters.
    fn objective(&self, step: &mut Step<'_>) -> Result<Tensor>;

    /// The memory before the first step, for `examples` training examples.
    fn memory(&self, examples: usize) -> Memory {
        let _ = examples;
        Memory::default()
    }

    /// The group of examples that it treats differently, which a teacher must name.
    fn treats(&self) -> Option<Group> {
        None
    }

    /// How the method's authors train in this setting, with where they say so in the
    /// documentation of the implementation. `None`: they give no recipe.
    fn authors_recipe(&self, setting: &Setting) -> Option<Recipe> {
        let _ = setting;
        None
    }
}
