//! One method as text for a terminal.

use std::io::Write;

use anyhow::Result;
use plan::written_recipe;
use serde_json::{Value, json};

use super::field::Field;
use super::method::Method;
use super::place::{LEGEND, Place, grouped};
use super::text::plain;

const WIDTH: usize = 100;

impl Method {
    /// For readers.
    pub(crate) fn print(&self, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "{}: {}\n", self.name, self.summary)?;
        writeln!(out, "source   {}", self.source)?;
        writeln!(out, "version  {}", self.version)?;
        writeln!(out, "example  {}", self.example)?;
        for field in &self.fields {
            writeln!(out, "\n{} = {}", field.name, shown_defaults(field))?;
            write_folded(out, &field.about)?;
            for (name, about) in &field.choices {
                write_folded(out, &format!("{name}: {about}"))?;
            }
        }
        let shown: Vec<(Place, Value)> = self
            .recipes
            .iter()
            .map(|(place, recipe)| (*place, recipe.as_ref().map_or(json!("not given"), written_recipe)))
            .collect();
        if !shown.is_empty() {
            writeln!(
                out,
                "\nrecipe of the authors (`recipe: authors`; where it is not given, the shared one stands in)"
            )?;
            for (names, recipe) in grouped(&shown) {
                write_folded(out, &format!("{}: {}", names.join("; "), plain(&recipe)))?;
            }
        }
        if self.differs() {
            writeln!(out)?;
            for line in folded(LEGEND, WIDTH) {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }

    /// Whether the names of the settings must be explained.
    fn differs(&self) -> bool {
        !self.recipes.is_empty() || self.fields.iter().any(|field| grouped(&field.defaults).len() > 1)
    }
}

/// `10`, or `2/255 (colour), 0.01 (grey)`.
fn shown_defaults(field: &Field) -> String {
    let groups = grouped(&field.defaults);
    match &groups[..] {
        [] if !field.required => "none".to_string(),
        [] => match field.name.rsplit_once('.') {
            Some((group, _)) => format!("none; must be given where `{group}` is"),
            None => "none; must be given".to_string(),
        },
        [(_, value)] => plain(value),
        _ => {
            let shown = groups
                .iter()
                .map(|(names, value)| format!("{} ({})", plain(value), names.join("; ")));
            shown.collect::<Vec<_>>().join(", ")
        }
    }
}

fn write_folded(out: &mut dyn Write, text: &str) -> Result<()> {
    for (i, line) in folded(text, WIDTH - 6).iter().enumerate() {
        writeln!(out, "{}{line}", if i == 0 { "    " } else { "      " })?;
    }
    Ok(())
}

/// The words of a text in lines of at most `width` characters, if no word is longer.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("one at least");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_string());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::method::{attack, defense};
    use super::*;
    use plan::Methods;

    fn text(method: &Method) -> String {
        let mut out = Vec::new();
        method.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_method_tells_all_its_fields() {
        let methods = Methods::builtin();
        let attacks = methods
            .attacks
            .entries()
            .iter()
            .map(|entry| attack(&methods.attacks, entry.name));
        let defenses = methods
            .defenses
            .entries()
            .iter()
            .map(|entry| defense(&methods.defenses, entry.name));
        for method in attacks.chain(defenses).map(Result::unwrap) {
            let text = text(&method);
            assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
            for field in &method.fields {
                assert!(!field.about.is_empty(), "{}: {} says nothing", method.name, field.name);
                // Fields of an optional group have no default.
                assert!(
                    !field.defaults.is_empty() || field.name.contains('.'),
                    "{}: {} has no default",
                    method.name,
                    field.name
                );
            }
        }
    }

    #[test]
    fn defaults_are_those_that_a_matrix_gets() {
        let methods = Methods::builtin();
        let mart = text(&defense(&methods.defenses, "mart").unwrap());
        for line in [
            "lambda = 5 (colour; grey), 6 (wide networks)",
            "attack.step_size = 2/255 (colour), 0.01 (grey), 0.125 (colour, l2), 0.5 (grey, l2)",
            "attack.start = { gaussian: { sigma: 0.001 } }",
            "    natural: BCE on the clean images.",
            "    grey; colour, l2: not given",
        ] {
            assert!(
                mart.lines().any(|printed| printed == line),
                "`{line}` is not in\n{mart}"
            );
        }
        let json = defense(&methods.defenses, "mart").unwrap().json();
        assert_eq!(json["recipes"]["wide networks"]["epochs"], 90);
        assert_eq!(json["recipes"]["grey"], Value::Null);
    }

    #[test]
    fn a_name_that_is_none_gets_a_hint() {
        let methods = Methods::builtin();
        let error = attack(&methods.attacks, "pdg").err().unwrap();
        assert_eq!(error.to_string(), "there is no attack `pdg`; did you mean `pgd`?");
    }
}
