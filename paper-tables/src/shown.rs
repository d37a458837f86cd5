//! Numbers as every format for readers shows them.

/// An accuracy in percent, to the paper's two decimals.
pub(crate) fn percent(value: f64) -> String {
    format!("{value:.2}")
}

/// A difference with its sign; `minus` differs between formats.
pub(crate) fn signed(value: f64, minus: &str) -> String {
    let text = format!("{:.2}", value.abs());
    match value {
        _ if text == "0.00" => text,
        value if value < 0.0 => format!("{minus}{text}"),
        _ => format!("+{text}"),
    }
}
