//! Numbers as shown to readers, in every format.

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

/// The text without the characters that XML forbids (section 2.2 of XML 1.0): a control character is replaced by its
/// picture, such as ␛, so that labels that differ only in one stay different.
pub(crate) fn visible(text: &str) -> String {
    let picture = |character| match character {
        '\t' | '\n' | '\r' => character,
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).expect("a picture for each"),
        '\u{7f}' => '␡',
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        other => other,
    };
    text.chars().map(picture).collect()
}

const RAISED: &str = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐ";

/// A small letter above the line; there are ten flags.
pub(crate) fn superscript(letter: char) -> char {
    let place = (letter as usize).wrapping_sub('a' as usize);
    RAISED.chars().nth(place).unwrap_or(letter)
}

/// The letter of a superscript.
pub(crate) fn lowered(raised: char) -> Option<char> {
    RAISED
        .chars()
        .zip('a'..='z')
        .find(|(known, _)| *known == raised)
        .map(|(_, letter)| letter)
}
