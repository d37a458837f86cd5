//! Names of figures in files, and lists by key that keep the order of the rows.

use std::collections::BTreeMap;

use results::{Checkpoint, Row};

/// Data set, network, checkpoint.
pub(super) type Place<'a> = (&'a str, &'a str, Checkpoint);

pub(super) fn place(row: &Row) -> Place<'_> {
    (&row.dataset, &row.network, row.checkpoint)
}

/// Words as a name in files.
pub(crate) fn file_name(words: &[&str]) -> String {
    let lower = words.join(" ").to_lowercase();
    let plain = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    plain.collect::<Vec<_>>().join("-")
}

/// Makes names unique by numbering duplicates.
pub(super) fn number_duplicates<T>(figures: &mut [T], id: impl Fn(&mut T) -> &mut String) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for figure in figures {
        let id = id(figure);
        let count = seen.entry(id.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            *id += &format!("-{count}");
        }
    }
}

/// The value of a key in a list; a new key is appended.
pub(super) fn entry_or_default<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let place = list.iter().position(|(known, _)| *known == key);
    let place = place.unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[place].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        assert_eq!(file_name(&["queries", "digits", "Square (ε)"]), "queries-digits-square");
        let mut names = ["a", "b", "a"].map(String::from);
        number_duplicates(&mut names, |name| name);
        assert_eq!(names, ["a", "b", "a-2"]);
    }
}
