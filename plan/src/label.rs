//! How tables and folders name methods.

use attacks::{Attack, Configured};

/// How tables name an attack: `FGSM`, `PGD-20`.
pub fn attack_label(attack: &Configured<dyn Attack>) -> String {
    let upper = attack.name.to_uppercase();
    match (attack.name, attack.method.describe().steps) {
        ("pgd", Some(steps)) => format!("{upper}-{steps}"),
        ("auto-attack", _) => "AutoAttack".into(),
        ("square", _) => "Square".into(),
        _ => upper,
    }
}

/// How tables name a defense: `TRADES`, `Standard`.
pub fn defense_label(name: &str) -> String {
    const ACRONYMS: &[&str] = &["alp", "clp", "trades", "mma", "mart"];
    match name.split_at_checked(1) {
        _ if ACRONYMS.contains(&name) => name.to_uppercase(),
        Some((first, rest)) => first.to_uppercase() + rest,
        None => String::new(),
    }
}

/// Lower-case letters, digits and single dashes: safe in any file system.
pub fn slug(label: &str) -> String {
    let lower = label.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_fields_own() {
        assert_eq!(defense_label("mart"), "MART");
        assert_eq!(defense_label("standard"), "Standard");
        assert_eq!(slug("CW∞ (κ = 50)"), "cw-50");
    }
}
