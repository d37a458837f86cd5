//! What pages show of matrices, made whole so that it can be checked.

/// What a snippet is laid over, key by key.
const BASE: &str = "\
name: snippet
dataset: { name: cifar10, validation: 1000 }
threat: { norm: linf, epsilon: 8/255 }
networks: [resnet18]
defenses: [standard]
attacks: [pgd]
";

/// A matrix for every YAML block and every `{ name: … }` of a page. `keys` are those that a matrix has at its top.
pub fn matrices(text: &str, keys: &[String], attacks: &[String], defenses: &[String]) -> Vec<String> {
    let (mut found, mut block) = (Vec::new(), None::<String>);
    let (mut in_code, mut is_file) = (false, false);
    for line in text.lines() {
        match (&mut block, line.trim()) {
            (Some(snippet), "```") => {
                // What is a file of its own has tests of its own.
                if is_matrix(snippet, keys) && !is_file {
                    found.push(laid_over(snippet));
                }
                (block, is_file) = (None, false);
            }
            (Some(snippet), _) => *snippet += &format!("{line}\n"),
            (None, "```yaml") => block = Some(String::new()),
            (None, other) => {
                is_file = other.starts_with("<!-- file: ") || (is_file && other.is_empty());
                if other.starts_with("```") {
                    in_code = !in_code;
                }
                if !in_code {
                    found.extend(entries(line, attacks, defenses));
                }
            }
        }
    }
    found
}

/// Other YAML, such as a CI service's, has other keys.
fn is_matrix(snippet: &str, keys: &[String]) -> bool {
    let own = keyed(snippet);
    !own.is_empty() && own.iter().all(|(key, _)| keys.contains(key))
}

fn laid_over(snippet: &str) -> String {
    let own = keyed(snippet);
    let is_whole = own.iter().any(|(key, _)| key == "name");
    let base = keyed(BASE);
    let kept = base
        .iter()
        .filter(|(key, _)| !is_whole && own.iter().all(|(other, _)| other != key));
    kept.chain(&own).map(|(_, text)| &text[..]).collect()
}

/// The top keys of a document, each with its lines.
fn keyed(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let starts = line.starts_with(|it: char| it.is_ascii_alphabetic());
        match (starts, line.split_once(':')) {
            (true, Some((key, _))) => found.push((key.to_string(), format!("{line}\n"))),
            _ => {
                if let Some((_, text)) = found.last_mut() {
                    *text += &format!("{line}\n");
                }
            }
        }
    }
    found
}

/// Entries between back quotes: each in a matrix of its own.
fn entries(line: &str, attacks: &[String], defenses: &[String]) -> Vec<String> {
    let spans = line.split('`').skip(1).step_by(2);
    let mut found = Vec::new();
    for span in spans.filter(|span| span.starts_with("{ name: ") && span.ends_with('}') && !span.contains('…')) {
        let name = span["{ name: ".len()..]
            .split([',', ' ', '}'])
            .next()
            .unwrap_or_default();
        let is = |known: &[String]| known.iter().any(|it| it == name);
        let list = match (is(attacks), is(defenses)) {
            (true, _) => "attacks",
            (_, true) => "defenses",
            _ => continue,
        };
        found.push(laid_over(&format!("{list}: [{span}]\n")));
    }
    found
}
