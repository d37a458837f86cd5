//! Lists of the page: named values, plain tables, flags, and cells.

use serde::Serialize;

/// A row in the list of cells.
#[derive(Debug, Clone, Serialize)]
pub struct CellLine {
    /// `done`, `failed` or `missing`.
    pub state: &'static str,
    /// One for each column.
    pub values: Vec<Value>,
    /// The marks of its flags.
    pub marks: Vec<String>,
}

/// A plain table with a caption.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// What it lists.
    pub title: String,
    /// The columns.
    pub heads: Vec<String>,
    /// One text per column in each line.
    pub lines: Vec<Vec<String>>,
}

/// A value with a name.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// Its name.
    pub label: String,
    /// The value.
    pub value: String,
}

impl Item {
    /// A value with a name.
    pub fn new(label: impl Into<String>, value: impl ToString) -> Self {
        Self {
            label: label.into(),
            value: value.to_string(),
        }
    }
}

/// A value in a list, with its sort key.
#[derive(Debug, Clone, Serialize)]
pub struct Value {
    /// What is shown.
    pub text: String,
    /// The sort key: a number, or text.
    pub key: String,
    /// `failed`, `missing`, `text` or nothing.
    pub class: String,
}

impl Value {
    /// Text, sorted as such.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            key: text.clone(),
            text,
            class: String::new(),
        }
    }

    /// Words, which are aligned to the left.
    pub fn words(text: impl Into<String>) -> Self {
        Self {
            class: "words".into(),
            ..Self::text(text)
        }
    }

    /// A number, formatted by `show`. `None` is shown as a dash and sorted last.
    pub fn number(number: Option<f64>, show: impl Fn(f64) -> String) -> Self {
        Self {
            text: number.map_or_else(|| "—".to_string(), show),
            key: number.map_or_else(String::new, |number| number.to_string()),
            class: String::new(),
        }
    }
}

/// The explanation of a flag.
#[derive(Debug, Clone, Serialize)]
pub struct ReportFlag {
    /// The mark in tables.
    pub mark: String,
    /// The flag's name.
    pub name: String,
    /// What it means.
    pub text: String,
    /// The evaluations it was raised for, each with its numbers.
    pub places: Vec<String>,
}
