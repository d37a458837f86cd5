//! The operations against naive ones, finite differences and themselves.

mod frozen;
mod gradients;
mod naive;
mod properties;
