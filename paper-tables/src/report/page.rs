//! The page as a whole: its sections, and the links from flags to numbers.

use minijinja::context;
use minijinja::value::Serde;
use serde::Serialize;

use super::chart::ReportChart;
use super::heat_map::ReportHeatMap;
use super::lists::{CellLine, Item, Record, ReportFlag};
use super::table::{Place, ReportTable};
use crate::figures::ExampleImages;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the page shows, in order. Empty parts are left out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The run's name.
    pub title: String,
    /// One sentence below it.
    pub subtitle: String,
    /// The most important numbers.
    pub tiles: Vec<Item>,
    /// The tables.
    pub tables: Vec<ReportTable>,
    /// Reasons to doubt numbers, with the marks that tables show.
    pub flags: Vec<ReportFlag>,
    /// Accuracy by source and target, one for each attack.
    pub heats: Vec<ReportHeatMap>,
    /// Curves.
    pub charts: Vec<ReportChart>,
    /// What the images below show.
    pub examples_about: String,
    /// Images, before and after.
    pub examples: Vec<ExampleImages>,
    /// The columns of the list of cells.
    pub cell_heads: Vec<String>,
    /// Every cell of the run, whether it has a number or not.
    pub cells: Vec<CellLine>,
    /// Program, data, seeds.
    pub origin: Vec<Item>,
    /// Further details of the run.
    pub records: Vec<Record>,
    /// The matrix as it was written.
    pub matrix: String,
}

#[derive(Serialize)]
struct Link {
    id: &'static str,
    title: &'static str,
}

impl Report {
    /// The page.
    pub fn html(&self) -> Result<String, minijinja::Error> {
        let mut environment = minijinja::Environment::new();
        // The name says that values are escaped as HTML.
        environment.add_template("page.html", PAGE)?;
        let parts = [
            ("overview", "Overview", true),
            ("tables", "Tables", true),
            ("flags", "Flags", !self.flags.is_empty()),
            ("transfer", "Transfer", !self.heats.is_empty()),
            ("curves", "Curves", !self.charts.is_empty()),
            ("examples", "Images", !self.examples.is_empty()),
            ("cells", "Cells", true),
            ("origin", "Origin", true),
        ];
        let sections: Vec<Link> = parts
            .into_iter()
            .filter(|(_, _, there)| *there)
            .map(|(id, title, _)| Link { id, title })
            .collect();
        let page = environment.get_template("page.html")?;
        let plain = |report: Serde<&Self>| minijinja::Value::from(report);
        page.render(context! {
            sections => minijinja::Value::from(Serde(&sections)),
            marked => minijinja::Value::from(Serde(&self.marked())),
            style => STYLE,
            script => SCRIPT,
            ..plain(Serde(self))
        })
    }

    /// For each flag, the places in tables that carry its mark.
    fn marked(&self) -> Vec<Vec<Place>> {
        let mut marked = vec![Vec::new(); self.flags.len()];
        for (mark, place) in self.tables.iter().flat_map(ReportTable::marked) {
            if let Some(at) = self.flags.iter().position(|flag| flag.mark == mark) {
                marked[at].push(place);
            }
        }
        marked
    }
}
