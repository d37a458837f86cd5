//! "Did you mean": the known word nearest to a misspelt one.

/// The known word nearest to `word` by the Damerau–Levenshtein distance, in any case, if it is near enough to be meant:
/// one edit, and one more for every four characters. Of several that are equally near, one that begins with the word, or
/// the first. Where none is near, the only known word that begins with it, if it has at least three characters.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let known: Vec<&str> = known.into_iter().collect();
    let distance = |known: &&str| strsim::damerau_levenshtein(&word, &known.to_lowercase());
    let begins = |known: &&str| known.to_lowercase().starts_with(&word);
    let best = *known.iter().min_by_key(|known| (distance(known), !begins(known)))?;
    let distance = distance(&best);
    if distance <= 1 + best.chars().count() / 4 {
        return Some(best);
    }
    let mut longer = known.iter().filter(|known| begins(known));
    match (longer.next(), longer.next()) {
        (Some(only), None) if word.chars().count() >= 3 => Some(only),
        _ => None,
    }
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
        assert_eq!(nearest("fashion", ["mnist", "fashion-mnist"]), Some("fashion-mnist"));
        assert_eq!(nearest("data", ["dataset-one", "dataset-two"]), None);
    }

    #[test]
    fn a_hint_is_one_word_or_all() {
        assert_eq!(hint("tradse", ["mart", "trades"]), "did you mean `trades`?");
        assert_eq!(hint("resnet", ["mart", "trades"]), "known: mart, trades");
    }
}
