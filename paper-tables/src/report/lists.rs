//! Lists of the page: named values, plain tables, flags, and cells.

use serde::Serialize;

use super::download::Download;
use crate::latex::Latex;
use crate::recipes::Recipes;

/// A row in the list of cells.
#[derive(Debug, Clone, Serialize)]
pub struct CellLine {
    /// `done`, `failed` or `missing`.
    pub state: &'static str,
    /// One for each column.
    pub values: Vec<Value>,
    /// The marks of its flags.
    pub marks: Vec<String>,
    /// The id of the panel that tells more, if there is one.
    pub panel: String,
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

/// How networks were trained.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Settings {
    /// The settings that differ: the head, then one line for each recipe.
    pub heads: Vec<String>,
    /// One text per column.
    pub lines: Vec<Vec<String>>,
    /// The settings that are the same for all.
    pub shared: Vec<Item>,
    /// Everything about each training, where seeds alone differ once.
    pub trainings: Vec<TrainingSettings>,
    /// The same as files.
    pub downloads: Vec<Download>,
}

/// Every setting of one training.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrainingSettings {
    /// The id in the page.
    pub id: String,
    /// Which training.
    pub title: String,
    /// Each setting with the path of its name.
    pub pairs: Vec<(String, String)>,
}

impl Settings {
    /// The recipes of a run, and every setting of its trainings.
    pub fn of(recipes: &Recipes, trainings: Vec<TrainingSettings>) -> Self {
        if recipes.is_empty() {
            return Self::default();
        }
        let mut grid = recipes.grid().into_iter();
        Self {
            heads: grid.next().unwrap_or_default(),
            lines: grid.collect(),
            shared: recipes
                .shared()
                .into_iter()
                .map(|(name, text)| Item::new(name, text))
                .collect(),
            trainings,
            downloads: vec![
                Download::new("CSV", "recipes.csv".into(), &recipes.csv()),
                Download::new("LaTeX", "input-recipes.tex".into(), &recipes.latex(Latex::Fragment)),
            ],
        }
    }
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

    /// A whole number, such as a seed: all its digits, which a floating-point number need not keep.
    pub fn integer(number: Option<u64>) -> Self {
        let digits = number.map(|number| number.to_string());
        Self {
            text: digits.clone().unwrap_or_else(|| "—".to_string()),
            key: digits.unwrap_or_default(),
            class: String::new(),
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
