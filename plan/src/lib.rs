//! What will be computed: a matrix resolved into cells with every default filled, and what its tables will show.
//!
//! There is no tensor here, no clock and no run folder.

mod serde_hint;
pub mod yaml;

mod key;
mod label;
pub mod matrix;

mod cell;
mod cell_name;
mod methods;
mod plan;
pub mod tables;

mod resolve;

pub use self::cell::{Cell, Evaluation, SelectionRule, Supervision, Teacher, Training, TransferSource};
pub use self::cell_name::{CELLS, CellName, NotACellName};
pub use self::key::{EvaluationKey, TrainingKey, canonical_text, key_of_text};
pub use self::label::{attack_label, defense_label, slug};
pub use self::methods::Methods;
pub use self::plan::Plan;
pub use self::resolve::{Digests, resolve, written_recipe};
pub use self::serde_hint::with_suggestion;
