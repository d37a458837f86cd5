//! The operations against naive ones, finite differences and themselves.

mod gradients;
mod naive;
mod properties;
