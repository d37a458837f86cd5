//! What the tests of several crates share: networks of the reference vectors, fixtures, comparisons.

mod classifiers;
mod compare;
mod methods;
mod net;
mod zip;

pub use attacks::{Family, Norm};
pub use classifiers::{Linear, Wave};
pub use compare::{BOTH, assert_gradient, assert_near, assert_near_where, decimal, tensor, tolerance};
pub use methods::{check_entries, setting, settings, waves};
pub use net::Net;
pub use zip::zip;
