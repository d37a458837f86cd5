//! Words that a matrix can use: whether a new name can be one, and "did you mean", the known word nearest to a misspelt
//! one.

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

/// Checks the name of a method or network of `kind`: it becomes part of folders, labels and file names, so it has lower
/// case letters, digits and single dashes between them.
///
/// # Errors
/// What is wrong with it and what would be right.
pub fn check_name(kind: &str, name: &str) -> Result<(), String> {
    let plain = |part: &str| {
        let mut chars = part.chars();
        !part.is_empty() && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if name.len() <= 60 && name.split('-').all(plain) {
        return Ok(());
    }
    Err(format!(
        "a {kind} cannot be called `{}`: a name has up to 60 lower-case letters and digits, in words joined by single \
         dashes, such as `my-{kind}-2`",
        name.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_folders_cannot_carry_are_refused() {
        for name in ["pgd", "wide-net-2", "auto-attack"] {
            assert_eq!(check_name("network", name), Ok(()));
        }
        let long = "a".repeat(61);
        for name in [
            "",
            "net.v2",
            "Net",
            "a/b",
            "..",
            "two words",
            "-net",
            "a--b",
            "réseau",
            "a_b",
            &long,
        ] {
            let message = check_name("network", name).unwrap_err();
            assert!(message.contains("`my-network-2`"), "{message}");
        }
    }

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
