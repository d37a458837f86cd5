//! Typeset tables read back: rows of a defense, columns of an attack, and the published numbers.

use std::path::Path;

use serde_json::Value;

/// Cells by line and column; the first line is the head.
pub type Grid = Vec<Vec<String>>;

/// A table of one data set and network.
pub struct Part {
    heading: String,
    grid: Grid,
}

impl Part {
    /// Other tables, such as that of differences, have another corner.
    fn is_of_defenses(&self) -> bool {
        self.grid.first().is_some_and(|head| head[0] == "defense")
    }
}

/// The parts of a typeset table. Where one was broken into pieces for its width, each with all lines, it is one again.
pub fn read(text: &str) -> Vec<Part> {
    let (mut title, mut parts) = (String::new(), Vec::<Part>::new());
    // The line of the table at hand, from 0; `None` outside of tables.
    let mut row: Option<usize> = None;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            title = heading.to_string();
        } else if let Some(block) = line.strip_prefix("### ") {
            parts.push(Part {
                heading: format!("{title}: {block}"),
                grid: Vec::new(),
            });
        }
        if !line.starts_with('|') {
            row = None;
            continue;
        }
        let cells = cells(line);
        let Some(part) = parts.last_mut() else { continue };
        if cells.iter().all(|cell| cell.chars().all(|it| it == '-')) {
            continue;
        }
        let place = row.map_or(0, |row| row + 1);
        row = Some(place);
        match part.grid.get_mut(place) {
            Some(line) => {
                assert_eq!(line[0], cells[0], "{}: the pieces have other lines", part.heading);
                line.extend(cells.into_iter().skip(1));
            }
            None => part.grid.push(cells),
        }
    }
    parts
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().to_string()).collect()
}

/// The rows of a defense, with the paper's beneath.
pub fn rows(parts: &[Part], label: &str) -> Vec<(String, Grid)> {
    let is_its = |name: &str| name == label || name.strip_prefix(label).is_some_and(|rest| rest.starts_with(", "));
    let mut found = Vec::new();
    for part in parts.iter().filter(|part| part.is_of_defenses()) {
        let mut grid: Grid = part.grid.iter().take(1).cloned().collect();
        let mut its = false;
        for line in part.grid.iter().skip(1) {
            its = is_its(&line[0]) || (its && line[0] == "paper");
            if its {
                grid.push(line.clone());
            }
        }
        if grid.len() > 1 {
            found.push((part.heading.clone(), grid));
        }
    }
    found
}

/// The columns of an attack, beside the defenses: by its label, or by the beginning of several, as in `CW*`.
pub fn columns(parts: &[Part], label: &str) -> Vec<(String, Grid)> {
    let (label, open) = label.strip_suffix('*').map_or((label, false), |label| (label, true));
    let belongs =
        |rest: &str| open || rest.is_empty() || rest.starts_with(" @ ") || [" transfer", " queries"].contains(&rest);
    let is_its = |name: &str| name.strip_prefix(label).is_some_and(belongs);
    let mut found = Vec::new();
    for part in parts.iter().filter(|part| part.is_of_defenses()) {
        let head = &part.grid[0];
        let mut kept = vec![0];
        kept.extend((1..head.len()).filter(|&column| is_its(&head[column])));
        if kept.len() > 1 {
            let line = |line: &Vec<String>| kept.iter().map(|&column| line[column].clone()).collect();
            found.push((part.heading.clone(), part.grid.iter().map(line).collect()));
        }
    }
    found
}

/// A grid as Markdown.
pub fn show(grid: &Grid) -> String {
    let mut text = String::new();
    for (place, line) in grid.iter().enumerate() {
        text += &format!("| {} |\n", line.join(" | "));
        if place == 0 {
            text += &format!("|{}\n", " --- |".repeat(line.len()));
        }
    }
    text
}

/// Attacks from weak to strong, as tables have them.
const ORDER: [&str; 6] = ["natural", "fgsm", "pgd10", "pgd20", "pgd100", "cw"];

/// The published numbers of a defense, by `mart`, or of an attack, by `pgd20`; whichever the name is.
pub fn published(root: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(root.join("paper-tables/published.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let numbers = all["numbers"].as_array().unwrap();
    let (own, other) = match numbers.iter().any(|it| it["method"] == name) {
        true => ("method", "column"),
        false => ("column", "method"),
    };
    let its: Vec<&Value> = numbers.iter().filter(|it| it[own] == name).collect();
    assert!(!its.is_empty(), "nothing is published of `{name}`");
    let mut heads: Vec<&str> = Vec::new();
    let mut sources: Vec<Source<'_>> = Vec::new();
    for number in &its {
        let head = number[other].as_str().unwrap();
        if !heads.contains(&head) {
            heads.push(head);
        }
        let source = Source::of(number);
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    heads.sort_by_key(|head| ORDER.iter().position(|known| known == head));
    // A number that holds for every checkpoint stands in the lines of both.
    let is_split = |it: &Source<'_>| {
        sources
            .iter()
            .any(|other| other.citation == it.citation && other.checkpoint.is_some())
    };
    let shown: Vec<&Source<'_>> = sources
        .iter()
        .filter(|it| it.checkpoint.is_some() || !is_split(it))
        .collect();
    let citation = |id: &str| {
        let mut citations = all["citations"].as_array().unwrap().iter();
        citations.find(|it| it["id"] == id).expect("a citation")
    };
    let mut grid: Grid = vec![["source", "data", "network", "checkpoint"].map(str::to_string).to_vec()];
    grid[0].extend(heads.iter().map(|head| shown_name(head)));
    let mut notes: Vec<String> = Vec::new();
    for source in shown {
        let cited = citation(source.citation);
        let unknown = "not stated".to_string();
        let mut line = vec![
            cited["text"].as_str().unwrap().to_string(),
            source.dataset.to_string(),
            source.network.map_or(unknown.clone(), str::to_string),
            source.checkpoint.map_or(unknown, str::to_string),
        ];
        line.extend(heads.iter().map(|head| {
            let fits = |it: &&&Value| {
                let other_source = Source::of(it);
                let checkpoint = other_source.checkpoint.is_none() || other_source.checkpoint == source.checkpoint;
                it[other] == *head && other_source.citation == source.citation && checkpoint
            };
            its.iter()
                .find(fits)
                .map_or(String::new(), |it| format!("{:.2}", it["value"].as_f64().unwrap()))
        }));
        grid.push(line);
        let note = format!(
            "- {}, {}: {}",
            line_text(cited, "text"),
            source.dataset,
            line_text(cited, "note")
        );
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    format!("{}\n{}\n", show(&grid), notes.join("\n"))
}

fn line_text<'a>(citation: &'a Value, key: &str) -> &'a str {
    citation[key].as_str().unwrap()
}

/// As tables call it.
fn shown_name(name: &str) -> String {
    match name {
        "natural" => "Natural".into(),
        "standard" => "Standard".into(),
        "dynamic" => "Dynamic".into(),
        "cw" => "CW∞".into(),
        pgd if pgd.starts_with("pgd") => format!("PGD-{}", &pgd[3..]),
        other => other.to_uppercase(),
    }
}

#[derive(PartialEq)]
struct Source<'a> {
    citation: &'a str,
    dataset: &'a str,
    network: Option<&'a str>,
    checkpoint: Option<&'a str>,
}

impl<'a> Source<'a> {
    fn of(number: &'a Value) -> Self {
        Self {
            citation: number["citation"].as_str().unwrap(),
            dataset: number["dataset"].as_str().unwrap(),
            network: number["network"].as_str(),
            checkpoint: number["checkpoint"].as_str(),
        }
    }
}
