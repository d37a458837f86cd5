//! The flags of a run, with the letters that mark them.

use std::collections::HashMap;

use paper_tables::ReportFlag;
use results::{Flag, RaisedFlag};

/// Every flag of a run once, in the order of its letters.
pub(super) struct Warnings(pub(super) Vec<Raisings>);

pub(super) struct Raisings {
    flag: Flag,
    pub(super) shown: ReportFlag,
    cells: Vec<String>,
}

impl Warnings {
    pub(super) fn of(flags: &[RaisedFlag]) -> Self {
        let letters = results::letters(flags);
        let mut warnings: Vec<Raisings> = Vec::new();
        for raised in flags {
            let at = warnings
                .iter()
                .position(|known| known.flag == raised.flag)
                .unwrap_or_else(|| {
                    warnings.push(Raisings {
                        flag: raised.flag,
                        shown: ReportFlag {
                            mark: mark(&letters, raised.flag),
                            name: raised.flag.to_string(),
                            text: raised.flag.explanation().to_string(),
                            places: Vec::new(),
                        },
                        cells: Vec::new(),
                    });
                    warnings.len() - 1
                });
            let RaisedFlag {
                dataset,
                network,
                defense,
                seed,
                checkpoint,
                attack,
                detail,
                ..
            } = raised;
            warnings[at].shown.places.push(format!(
                "{dataset}, {network}, {defense}, seed {seed}, {checkpoint}, {attack}: {detail}"
            ));
            warnings[at].cells.push(raised.cell.clone());
        }
        warnings.sort_by_key(|raisings| raisings.flag);
        Self(warnings)
    }

    pub(super) fn mark(&self, flag: Flag) -> String {
        let known = self.0.iter().find(|known| known.flag == flag);
        known.map_or_else(|| flag.to_string(), |known| known.shown.mark.clone())
    }

    /// The marks of every cell that has some.
    pub(super) fn by_cell(&self) -> HashMap<&str, Vec<String>> {
        let mut marks: HashMap<&str, Vec<String>> = HashMap::new();
        for Raisings { shown, cells, .. } in &self.0 {
            for cell in cells {
                marks.entry(cell).or_default().push(shown.mark.clone());
            }
        }
        marks
    }
}

/// The letter by which the run's tables mark a flag too.
fn mark(letters: &[Flag], flag: Flag) -> String {
    let found = letters.iter().zip('a'..='z').find(|(known, _)| **known == flag);
    found.map_or_else(|| flag.to_string(), |(_, letter)| letter.to_string())
}
