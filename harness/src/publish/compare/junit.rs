//! A comparison as JUnit's XML, which most CI services show: one test case for each line, a failure for each
//! that must not be.

use std::fmt::Write;

use super::comparison::{Comparison, Line, Scope, Verdict};
use super::report::{describe, summary};

/// The whole document.
pub(crate) fn junit(comparison: &Comparison) -> String {
    let (tests, failures) = (comparison.lines.len(), comparison.failures().len());
    let skipped = comparison.count(Verdict::New) * usize::from(!comparison.rules.strict);
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"");
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let mut put = |line: String| {
        let _ = writeln!(out, "{line}");
    };
    put(format!("<testsuites name=\"rampart compare\" {counts}>"));
    put(format!("  <testsuite name=\"results\" {counts}>"));
    put("    <properties>".into());
    for warning in &comparison.warnings {
        put(format!(
            "      <property name=\"warning\" value=\"{}\"/>",
            escaped(warning)
        ));
    }
    for note in comparison.notes.iter().chain([&summary(comparison)]) {
        put(format!("      <property name=\"note\" value=\"{}\"/>", escaped(note)));
    }
    put("    </properties>".into());
    for line in &comparison.lines {
        let class = match line.scope {
            Scope::Cell => format!("{}.{}.{}", line.dataset, line.network, line.defense),
            Scope::Attack => format!("{}.{}.(means over defenses)", line.dataset, line.network),
            Scope::Defense => format!("{}.{}.(means over attacks)", line.dataset, line.network),
        };
        let name = match line.scope {
            Scope::Defense => format!("{} ({})", line.defense, line.checkpoint),
            Scope::Cell | Scope::Attack => format!("{} ({})", line.attack, line.checkpoint),
        };
        let case = format!(
            "    <testcase classname=\"{}\" name=\"{}\" time=\"0\"",
            escaped(&class),
            escaped(&name)
        );
        let message = escaped(&message(line));
        let word = describe(line.verdict);
        if comparison.fails(line) {
            put(format!(
                "{case}>\n      <failure type=\"{word}\" message=\"{message}\">{message}</failure>\n    </testcase>"
            ));
        } else if line.verdict == Verdict::New {
            put(format!(
                "{case}>\n      <skipped message=\"{message}\"/>\n    </testcase>"
            ));
        } else {
            put(format!(
                "{case}>\n      <system-out>{message}</system-out>\n    </testcase>"
            ));
        }
    }
    put("  </testsuite>\n</testsuites>".into());
    out
}

/// What happened, in a line.
fn message(line: &Line) -> String {
    let word = describe(line.verdict);
    match (&line.before, &line.after, line.difference, line.tolerance) {
        (Some(before), Some(after), Some(difference), Some(tolerance)) => format!(
            "{word}: {:.2} % before ({} seeds), {:.2} % after ({}), difference {difference:+.2}, tolerance {tolerance:.2}",
            before.mean, before.seeds, after.mean, after.seeds
        ),
        (Some(before), ..) => match &line.error {
            Some(error) => format!("{word}: {:.2} % before; {error}", before.mean),
            None => format!("{word}: {:.2} % before", before.mean),
        },
        (None, Some(after), ..) => format!("{word}: {:.2} %, without a number in the baseline", after.mean),
        (None, None, ..) => format!("{word}: no number before or after"),
    }
}

/// Text for a double-quoted attribute or between tags. XML 1.0 has no way to write most control characters,
/// so they become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&apos;",
            '\t' | '\n' | '\r' => {
                let _ = write!(out, "&#{};", c as u32);
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use quick_xml::Reader;
    use quick_xml::events::Event;

    use super::super::compare::compare;
    use super::super::compare::tests::{name, rules, stored};
    use super::super::comparison::Rules;
    use super::super::read::Count;
    use super::*;

    /// Every element with its attributes, read by a stranger's reader that checks well-formedness.
    fn elements(xml: &str) -> Vec<(String, BTreeMap<String, String>)> {
        let mut reader = Reader::from_str(xml);
        reader.config_mut().check_end_names = true;
        let (mut elements, mut depth) = (Vec::new(), 0);
        loop {
            match reader.read_event().unwrap() {
                event @ (Event::Start(_) | Event::Empty(_)) => {
                    depth += usize::from(matches!(event, Event::Start(_)));
                    let (Event::Start(tag) | Event::Empty(tag)) = event else {
                        unreachable!()
                    };
                    let attributes = tag.attributes().map(|attribute| {
                        let attribute = attribute.unwrap();
                        let key = String::from_utf8(attribute.key.as_ref().to_vec()).unwrap();
                        (key, attribute.unescape_value().unwrap().into_owned())
                    });
                    let attributes = attributes.collect();
                    elements.push((String::from_utf8(tag.name().as_ref().to_vec()).unwrap(), attributes));
                }
                Event::End(_) => depth -= 1,
                Event::Text(text) => {
                    text.decode().unwrap();
                }
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(depth, 0);
        elements
    }

    #[test]
    fn every_line_is_a_test_case_and_every_failure_a_failure() {
        let before = stored(&[("A", "PGD", &[300, 302, 304, 306, 308, 310]), ("B", "PGD", &[1; 6])]);
        let mut after = stored(&[("A", "PGD", &[200, 202]), ("C", "PGD", &[300])]);
        after.cells.insert(
            name("B", "PGD"),
            [(0, Count::Failed("a \"<b>\" & 'c'\u{1}\n".into()))].into(),
        );
        let comparison = compare(&after, &before, &rules());
        let elements = elements(&junit(&comparison));
        let count = |tag: &str| elements.iter().filter(|element| element.0 == tag).count();
        assert_eq!((count("testcase"), count("failure"), count("skipped")), (3, 2, 1));
        let suite = &elements.iter().find(|element| element.0 == "testsuite").unwrap().1;
        assert_eq!(
            (&suite["tests"][..], &suite["failures"][..], &suite["skipped"][..]),
            ("3", "2", "1")
        );
        let messages: Vec<&str> = elements
            .iter()
            .filter(|element| element.0 == "failure")
            .map(|element| &element.1["message"][..])
            .collect();
        assert!(
            messages[0].starts_with("regressed: 61.00 % before (6 seeds), 40.20 % after (2)"),
            "{messages:?}"
        );
        assert!(messages[1].ends_with("a \"<b>\" & 'c'\u{fffd}\n"), "{messages:?}");
        let strict = Rules {
            strict: true,
            ..rules()
        };
        assert_eq!(junit(&compare(&after, &before, &strict)).matches("<failure").count(), 3);
    }

    proptest! {
        #[test]
        fn any_label_gives_well_formed_xml(defense: String, attack in "\\PC*") {
            let results = stored(&[(&defense, &attack, &[300, 302])]);
            let elements = elements(&junit(&compare(&results, &results, &rules())));
            prop_assert_eq!(elements.iter().filter(|element| element.0 == "testcase").count(), 1);
        }
    }
}
