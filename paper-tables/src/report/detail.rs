//! A panel for each number: its seeds, its cells on disk, its classes, its curves and images.

use serde::Serialize;

/// What is known about one defense's checkpoint under one attack, over its seeds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Detail {
    /// The panel's id in the page.
    pub id: String,
    /// Defense and attack.
    pub title: String,
    /// Data set, network, checkpoint, threat model.
    pub place: String,
    /// One for each seed that was asked for.
    pub seeds: Vec<DetailSeed>,
    /// Accuracy by class, over all seeds.
    pub classes: Vec<ClassCount>,
    /// The attack's settings, each with the path of its name.
    pub attack: Vec<(String, String)>,
    /// Places in the page that show more of it.
    pub links: Vec<PageLink>,
}

/// One evaluation.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DetailSeed {
    /// The seed of the training.
    pub seed: u64,
    /// `done`, `failed` or `missing`.
    pub state: &'static str,
    /// The accuracy with its interval, or why there is none.
    pub text: String,
    /// How many images of how many are still classified correctly.
    pub count: String,
    /// Marks of flags.
    pub marks: Vec<String>,
    /// The evaluation's folder and the training's.
    pub folders: Vec<CellFolder>,
}

/// A cell's folder in the run's.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CellFolder {
    /// What it holds: the evaluation, the training.
    pub label: String,
    /// Its path from the run's folder.
    pub path: String,
    /// The names of its files.
    pub files: Vec<String>,
    /// Whether the page lies in the run's folder, so that the paths lead there.
    pub linked: bool,
}

/// How many images of a class are classified correctly.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ClassCount {
    /// The class.
    pub name: String,
    /// How many of its images are classified correctly, over seeds.
    pub correct: u64,
    /// How many there are.
    pub of: u64,
    /// The same in percent, to one decimal.
    pub percent: String,
}

impl ClassCount {
    /// A class with its counts.
    pub fn new(name: String, correct: u64, of: u64) -> Self {
        let share = 100.0 * correct as f64 / of.max(1) as f64;
        Self {
            name,
            correct,
            of,
            percent: format!("{share:.1}"),
        }
    }
}

/// A link to another place of the page.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PageLink {
    /// The id of the place.
    pub to: String,
    /// What it shows.
    pub text: String,
    /// The curve to highlight there, if it is a chart.
    pub curve: String,
}
