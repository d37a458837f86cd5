//! Comma-separated values (RFC 4180), as far as stored results need them.
//!
//! The results' own Parquet is read by its own reader; this one reads baselines, which people keep
//! under version control, edit and merge. It is strict, so that a half-merged file is an error and not
//! a smaller baseline.

use std::collections::BTreeMap;

/// A row: its fields by column. An empty field is absent.
pub(crate) type Record = BTreeMap<String, String>;

/// The rows under a header. The error names the line, counted from 1.
pub(crate) fn parse(text: &str) -> Result<Vec<Record>, String> {
    let mut lines = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
    };
    let Some((_, header)) = lines.record()? else {
        return Err("it is empty".into());
    };
    for (i, name) in header.iter().enumerate() {
        if header[..i].contains(name) {
            return Err(format!("line 1: two columns are called `{}`", shown(name)));
        }
    }
    let mut records = Vec::new();
    while let Some((line, fields)) = lines.record()? {
        if fields.len() != header.len() {
            return Err(format!(
                "line {line}: {} fields under a header of {}",
                fields.len(),
                header.len()
            ));
        }
        let filled = header
            .iter()
            .cloned()
            .zip(fields)
            .filter(|(_, field)| !field.is_empty());
        records.push(filled.collect());
    }
    Ok(records)
}

/// Text from a file, shortened and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    /// The next record and the line it begins on. Blank lines are passed over.
    fn record(&mut self) -> Result<Option<(usize, Vec<String>)>, String> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start_matches('\r').len();
            match self.rest.as_bytes().get(blank) {
                None => return Ok(None),
                Some(b'\n') => {
                    self.rest = &self.rest[blank + 1..];
                    self.line += 1;
                }
                Some(_) => break,
            }
        }
        let begin = self.line;
        let mut fields = Vec::new();
        loop {
            let field = if let Some(quoted) = self.rest.strip_prefix('"') {
                self.rest = quoted;
                self.quoted(begin)?
            } else {
                let end = self.rest.find([',', '\n', '"']).unwrap_or(self.rest.len());
                let (field, rest) = self.rest.split_at(end);
                if rest.starts_with('"') {
                    return Err(format!("line {}: a quote within a field that is not quoted", self.line));
                }
                self.rest = rest;
                let field = if rest.starts_with(',') {
                    field
                } else {
                    field.strip_suffix('\r').unwrap_or(field)
                };
                field.to_string()
            };
            fields.push(field);
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            self.rest = self.rest.strip_prefix('\r').unwrap_or(self.rest);
            if let Some(rest) = self.rest.strip_prefix('\n') {
                self.rest = rest;
                self.line += 1;
            } else if !self.rest.is_empty() {
                return Err(format!("line {}: text follows a closing quote", self.line));
            }
            return Ok(Some((begin, fields)));
        }
    }

    /// The text between quotes. The opening quote has been read already.
    fn quoted(&mut self, begin: usize) -> Result<String, String> {
        let mut field = String::new();
        loop {
            let Some(end) = self.rest.find('"') else {
                return Err(format!("line {begin}: a quote is never closed"));
            };
            let (part, rest) = self.rest.split_at(end);
            field += part;
            self.line += part.matches('\n').count();
            self.rest = &rest[1..];
            match self.rest.strip_prefix('"') {
                None => return Ok(field),
                Some(rest) => {
                    field.push('"');
                    self.rest = rest;
                }
            }
        }
    }
}

/// A line, with fields in quotes where they need them.
pub(crate) fn line<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
    let quoted = |field: &str| {
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.to_string()
        }
    };
    let fields: Vec<String> = fields.into_iter().map(quoted).collect();
    fields.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written() {
        let text = "a,b\n1,\"x, \"\"y\"\"\nz\"\n\n2,\n";
        let rows = parse(text).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((&rows[0]["a"][..], &rows[0]["b"][..]), ("1", "x, \"y\"\nz"));
        assert_eq!(rows[1].get("b"), None);
        assert_eq!(parse("\u{feff}a,b\r\n1,2\r\n").unwrap(), parse("a,b\n1,2").unwrap());
    }

    #[test]
    fn what_is_half_there_is_refused() {
        for (text, part) in [
            ("", "it is empty"),
            ("a,a\n", "two columns are called `a`"),
            ("a,b\n1\n", "line 2: 1 fields under a header of 2"),
            ("a\n\"1\n", "line 2: a quote is never closed"),
            ("a\n\"1\"2\n", "line 2: text follows a closing quote"),
            ("a\n1\"2\n", "line 2: a quote within"),
            ("a,b\n<<<<<<< ours\n", "line 2: 1 fields"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn lines_read_back(fields in prop::collection::vec(".{1,12}|[,\"\r\n]{1,3}", 1..5)) {
            let header: Vec<String> = (0..fields.len()).map(|i| format!("c{i}")).collect();
            let text = line(header.iter().map(String::as_str)) + &line(fields.iter().map(String::as_str));
            let rows = parse(&text).unwrap();
            prop_assert_eq!(rows.len(), 1);
            for (name, field) in header.iter().zip(&fields) {
                prop_assert_eq!(&rows[0][name], field);
            }
        }

        #[test]
        fn nothing_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
