//! The page as a whole: its sections, and the links from flags to numbers.

use minijinja::context;
use minijinja::value::Serde;
use serde::Serialize;

use super::chart::ReportChart;
use super::detail::Detail;
use super::heat_map::ReportHeatMap;
use super::lists::{CellLine, Item, Record, ReportFlag, Settings};
use super::table::{Place, ReportTable};
use crate::figures::ExampleImages;
use crate::format::visible;

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
    /// What was compared and what came out: two sentences for each data set and network.
    pub sentences: Vec<Item>,
    /// The same in bars.
    pub overview: Vec<ReportChart>,
    /// The most important numbers.
    pub tiles: Vec<Item>,
    /// The tables.
    pub tables: Vec<ReportTable>,
    /// Reasons to doubt numbers, with the marks that tables show.
    pub flags: Vec<ReportFlag>,
    /// Accuracy by source and target, one for each attack.
    pub heats: Vec<ReportHeatMap>,
    /// Accuracy by defense and class, one for each attack; the first is open.
    pub classes: Vec<ReportHeatMap>,
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
    /// A panel for each number.
    pub details: Vec<Detail>,
    /// How the networks were trained.
    pub settings: Settings,
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
            ("classes", "Classes", !self.classes.is_empty()),
            ("curves", "Curves", !self.charts.is_empty()),
            ("examples", "Images", !self.examples.is_empty()),
            ("cells", "Cells", true),
            ("settings", "Settings", !self.settings.heads.is_empty()),
            ("origin", "Origin", true),
        ];
        let sections: Vec<Link> = parts
            .into_iter()
            .filter(|(_, _, there)| *there)
            .map(|(id, title, _)| Link { id, title })
            .collect();
        let page = environment.get_template("page.html")?;
        let plain = |report: Serde<&Self>| minijinja::Value::from(report);
        let page = page.render(context! {
            back => minijinja::Value::from(Serde(&self.back())),
            sections => minijinja::Value::from(Serde(&sections)),
            marked => minijinja::Value::from(Serde(&self.marked())),
            style => STYLE,
            script => SCRIPT,
            ..plain(Serde(self))
        })?;
        Ok(visible(&page))
    }

    /// Where the link that closes a panel leads: to the first number that opens it, or to the list of cells.
    fn back(&self) -> Vec<String> {
        let of = |detail: &Detail| {
            let found = self.tables.iter().find_map(|table| table.leads_to(&detail.id));
            found.map_or_else(|| "cells".to_string(), str::to_string)
        };
        self.details.iter().map(of).collect()
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
