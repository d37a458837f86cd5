//! A heat map of the page, in the shades of the figure.

use serde::Serialize;

use super::download::Download;
use crate::figures::{Figure, HeatMap, colour, shade};
use crate::format::percent;

/// A heat map of accuracy.
#[derive(Debug, Clone, Serialize)]
pub struct ReportHeatMap {
    title: String,
    /// What a line is.
    corner: String,
    targets: Vec<String>,
    lines: Vec<HeatLine>,
    downloads: Vec<Download>,
}

#[derive(Debug, Clone, Serialize)]
struct HeatLine {
    source: String,
    cells: Vec<HeatCell>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct HeatCell {
    text: String,
    background: String,
    ink: String,
}

impl ReportHeatMap {
    /// A map in the shades of the figure, with its numbers to save but not the figure.
    pub fn of_numbers(map: &HeatMap) -> Self {
        Self {
            downloads: vec![Download::new("CSV", format!("{}.csv", map.id), &map.csv())],
            ..Self::new(map)
        }
    }

    /// A map in the shades of the figure.
    pub fn new(map: &HeatMap) -> Self {
        let cell = |value: &Option<f64>| {
            let Some(value) = *value else {
                return HeatCell::default();
            };
            let (ground, ink) = shade(value);
            HeatCell {
                text: percent(value),
                background: colour(ground),
                ink: colour(ink),
            }
        };
        let line = |(source, values): (&String, &Vec<Option<f64>>)| HeatLine {
            source: source.clone(),
            cells: values.iter().map(cell).collect(),
        };
        Self {
            title: map.title.clone(),
            corner: map.line.clone(),
            targets: map.columns.clone(),
            lines: map.lines.iter().zip(&map.values).map(line).collect(),
            downloads: Download::of_figure(map),
        }
    }
}
