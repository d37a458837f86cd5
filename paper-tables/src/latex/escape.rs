//! Text as LaTeX.

use std::collections::BTreeSet;

use super::symbols::symbol;

/// Text that pdflatex sets as it is. Different texts stay different: a character that its fonts lack is written by its
/// Unicode number, in a typewriter font, and [`remark`] says so.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut before = None;
    for character in text.chars() {
        // LaTeX takes two hyphens for a dash, two apostrophes or commas for a quotation mark, and swallows blanks.
        match character {
            ' ' if matches!(before, None | Some(' ')) => escaped.push('\\'),
            '-' | '\'' | ',' if before == Some(character) => escaped += "{}",
            _ => {}
        }
        escaped += &symbol(character).unwrap_or_else(|| stand_in(character));
        before = Some(character);
    }
    if before == Some(' ') {
        escaped.pop();
        escaped += if escaped.ends_with('\\') { " " } else { "\\ " };
    }
    escaped
}

/// What [`escape`] writes for a character that cannot be set.
fn stand_in(character: char) -> String {
    format!("{START}{:04X}]}}", u32::from(character))
}

/// How a stand-in begins; nothing else that [`escape`] writes is in a typewriter font.
const START: &str = "\\texttt{[U+";

/// The stand-ins of a source, each once.
fn stand_ins(source: &str) -> BTreeSet<char> {
    let numbers = source.split(START).skip(1).filter_map(|rest| rest.split_once("]}"));
    let known = numbers.filter_map(|(number, _)| u32::from_str_radix(number, 16).ok());
    known.filter_map(char::from_u32).collect()
}

/// A note that explains the stand-ins of a source, if it has some.
pub(crate) fn remark(source: &str) -> Option<String> {
    let all = stand_ins(source);
    let first = *all.first()?;
    Some(match all.len() {
        1 => format!(
            "{} is the Unicode number of a character that the fonts lack.",
            stand_in(first)
        ),
        _ => format!(
            "{} and the like are Unicode numbers of characters that the fonts lack.",
            stand_in(first)
        ),
    })
}

/// The same as lines of comments, which name the characters.
pub(crate) fn comments(source: &str) -> String {
    let all = stand_ins(source);
    let line = |character: &char| {
        let number = u32::from(*character);
        // A sign that cannot be seen, or that ends a line, is no use in a comment.
        if character.is_alphanumeric() {
            format!("% \\texttt{{[U+{number:04X}]}} is written for {character}, which the fonts of pdflatex lack.\n")
        } else {
            format!("% \\texttt{{[U+{number:04X}]}} is written for the character of that Unicode number.\n")
        }
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::fixtures;

    #[test]
    fn nothing_in_a_name_is_a_command() {
        assert_eq!(
            escape(r"a_b & 50% {x} \y #1 $2"),
            r"a\_b \& 50\% \{x\} \textbackslash{}y \#1 \$2"
        );
        assert_eq!(
            escape("CW∞, ε ± 1 — é †"),
            "CW\\ensuremath{_{\\infty}}, \\ensuremath{\\varepsilon} \\ensuremath{\\pm} 1 \\textemdash{} é \
             \\textsuperscript{\\ensuremath{\\dagger}}"
        );
        assert_eq!(escape("--a ''b, ,,c"), "-{}-a '{}'b, ,{},c");
        assert_eq!(escape(" a  b "), "\\ a \\ b\\ ");
    }

    #[test]
    fn signs_that_papers_use_are_set() {
        for (text, expected) in [
            ("S⁺", "S\\ensuremath{^{+}}"),
            ("S⁻", "S\\ensuremath{^{-}}"),
            ("a → b", "a \\ensuremath{\\rightarrow} b"),
            ("f′", "f\\ensuremath{^{\\prime}}"),
            ("x¹", "x\\textsuperscript{1}"),
            ("Ωθ", "\\ensuremath{\\Omega}\\ensuremath{\\theta}"),
            ("h₂", "h\\ensuremath{_{2}}"),
        ] {
            assert_eq!(escape(text), expected);
            assert_eq!(remark(&escape(text)), None);
        }
    }

    #[test]
    fn what_cannot_be_set_is_named() {
        let source = escape("基线 A");
        assert_eq!(source, "\\texttt{[U+57FA]}\\texttt{[U+7EBF]} A");
        assert!(remark(&source).unwrap().contains("characters that the fonts lack"));
        assert!(comments(&source).contains("written for 基"));
        // A comment is one line, whatever the character.
        assert_eq!(comments(&escape("a\u{85}\n\u{2028}")).lines().count(), 3);
        assert!(
            comments(&escape("a\u{85}\n\u{2028}"))
                .lines()
                .all(|line| line.starts_with('%'))
        );
    }

    /// Every character that has a source of its own, in one document.
    #[test]
    fn every_symbol_compiles_and_no_two_are_equal() {
        let set: Vec<char> = ('\0'..='\u{ffff}').filter(|one| symbol(*one).is_some()).collect();
        assert!(set.len() > 400);
        let mut sources = BTreeMap::new();
        for &one in &set {
            if let Some(other) = sources.insert(symbol(one), one) {
                panic!("{one} and {other} have one source");
            }
        }
        let lines: String = set
            .chunks(12)
            .map(|some| escape(&some.iter().map(|one| format!("{one} ")).collect::<String>()) + "\\par\n")
            .collect();
        let text = include_str!("../../templates/document.tex").replace("{{ fragment -}}", &lines);
        let text = text.replace("{% if landscape %},landscape{% endif %}", "");
        fixtures::compile("symbols", &text);
    }

    proptest! {
        /// Different labels have different sources, and none leaves its place.
        #[test]
        fn labels_stay_apart(one in any::<String>(), other in any::<String>()) {
            prop_assert_eq!(one == other, escape(&one) == escape(&other));
            prop_assert!(!escape(&one).contains(['\n', '\r', '\t']));
        }

        /// The same for labels that are nearly equal.
        #[test]
        fn near_labels_stay_apart(one in "[-–—' ,’”⁺⁻ab]{0,5}", other in "[-–—' ,’”⁺⁻ab]{0,5}") {
            prop_assert_eq!(one == other, escape(&one) == escape(&other));
        }
    }
}
