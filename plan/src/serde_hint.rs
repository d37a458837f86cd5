//! "Did you mean" in the messages of serde.

use suggest::nearest;

/// Adds "did you mean" to messages about unknown fields and names, unless they have a suggestion already.
pub fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let kinds = ["unknown field", "unknown variant", "unknown name"];
    let unknown = kinds.iter().any(|kind| message.starts_with(kind)) && !message.contains("did you mean");
    match quoted.next().filter(|_| unknown).and_then(|word| nearest(word, quoted)) {
        Some(best) => format!("{message}; did you mean `{best}`?"),
        None => message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_get_a_suggestion() {
        let message = "unknown field `stpes`, expected `steps` or `restarts`";
        assert_eq!(with_suggestion(message), format!("{message}; did you mean `steps`?"));
        assert_eq!(with_suggestion("missing field `steps`"), "missing field `steps`");
    }
}
