//! Checks and access of configuration fields.

use attacks::Invalid;
use candle_core::Result;

/// Refuses a weight that is negative or not finite.
pub(crate) fn check_weight(field: &str, weight: f64) -> std::result::Result<(), Invalid> {
    if weight.is_finite() && weight >= 0.0 {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!("{field} is {weight}; it must be at least 0"),
    ))
}

/// The value of a field that [`attacks::Method::resolve`] has filled.
pub(crate) fn resolved<T: Copy>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| candle_core::Error::msg(format!("{field} is open; resolve the configuration first")))
}
