//! "Did you mean": the known word nearest to a misspelt one.

/// The known word nearest to `word` by the Damerau–Levenshtein distance, in any case, if it is near enough to be meant:
/// one edit, and one more for every four characters. The first of several that are equally near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let (distance, best) = known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&word, &known.to_lowercase()), known))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + best.chars().count() / 4).then_some(best)
}

/// What to write instead of a misspelt word, for the end of an error: the nearest known word, or all of them.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("known: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested() {
        assert_eq!(nearest("tradse", ["mart", "trades"]), Some("trades"));
        assert_eq!(nearest("resnet", ["mart", "trades"]), None);
        assert_eq!(nearest("mart", ["MART"]), Some("MART"));
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn a_hint_is_one_word_or_all() {
        assert_eq!(hint("tradse", ["mart", "trades"]), "did you mean `trades`?");
        assert_eq!(hint("resnet", ["mart", "trades"]), "known: mart, trades");
    }
}
