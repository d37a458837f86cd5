//! Trains one network.

mod best;
mod checkpoints;
mod learner;
mod memory;
mod resume;
mod select;
mod train;

pub(crate) use self::checkpoints::{
    CheckpointInfo, Epoch, HISTORY, Selected, checkpoint_file, history, load_network, read_about,
};
pub(crate) use self::memory::batch_that_fits;
pub(crate) use self::resume::{RESUME, clean_up};
pub(crate) use self::train::train;
