//! "Did you mean": the nearest known word to a misspelt one.

/// The known word nearest to `word`, if it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let (distance, best) = known
        .into_iter()
        .map(|it| (strsim::damerau_levenshtein(&word, it), it))
        .min()?;
    (distance <= 1 + best.len() / 4).then_some(best)
}

/// Adds "did you mean" to serde's "unknown field" and "unknown variant" messages.
pub fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match quoted.next().filter(|_| unknown).and_then(|word| nearest(word, quoted)) {
        Some(best) => format!("{message}; did you mean `{best}`?"),
        None => message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        assert_eq!(nearest("tradse", ["mart", "trades"]), Some("trades"));
        assert_eq!(nearest("resnet", ["mart", "trades"]), None);
        let message = "unknown field `stpes`, expected `steps` or `restarts`";
        assert_eq!(with_suggestion(message), format!("{message}; did you mean `steps`?"));
        assert_eq!(with_suggestion("missing field `steps`"), "missing field `steps`");
    }
}
