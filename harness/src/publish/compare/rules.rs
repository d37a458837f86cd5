//! The rules of a comparison, as the command line states them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::comparison::Rules;
use super::read::Stored;
use crate::exit::Stop;

/// Reads each tolerance, `POINTS` or `ATTACK=POINTS`; an attack must be one of the two sides'.
pub(crate) fn rules(
    tolerances: &[String],
    false_alarms: f64,
    strict: bool,
    run: &Stored,
    baseline: &Stored,
) -> Result<Rules> {
    let mut rules = Rules {
        points: None,
        by_attack: BTreeMap::new(),
        false_alarms,
        strict,
    };
    if !(false_alarms > 0.0 && false_alarms < 1.0) {
        return Err(Stop::usage(format!(
            "--false-alarms {}: must be between 0 and 1",
            false_alarms
        )));
    }
    let names = run.cells.keys().chain(baseline.cells.keys());
    let attacks: BTreeSet<String> = names.map(|name| name.attack.to_lowercase()).collect();
    for tolerance in tolerances {
        let (attack, points) = match tolerance.rsplit_once('=') {
            Some((attack, points)) => (Some(attack.trim().to_lowercase()), points),
            None => (None, tolerance.as_str()),
        };
        let points: f64 = points
            .trim()
            .parse()
            .ok()
            .filter(|points: &f64| points.is_finite() && *points >= 0.0)
            .ok_or_else(|| {
                Stop::usage(format!(
                    "--tolerance {tolerance}: `{points}` is not a number of points, such as 1.5"
                ))
            })?;
        match attack {
            None => rules.points = Some(points),
            Some(attack) if attacks.contains(&attack) => {
                rules.by_attack.insert(attack, points);
            }
            Some(attack) => {
                let hint = suggest::hint(&attack, attacks.iter().map(String::as_str));
                return Err(Stop::usage(format!(
                    "--tolerance {tolerance}: no cell has an attack `{attack}`; {hint}"
                )));
            }
        }
    }
    Ok(rules)
}
