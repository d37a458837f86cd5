use std::io::Write;

use anyhow::Result;
use attacks::Cost;
use comfy_table::{CellAlignment, Table, presets};
use plan::{Cell, Methods, Plan};
use rayon::prelude::*;
use serde_json::json;

use super::{read_matrix, resolve, select};
use crate::claims;
use crate::cli::PlanArgs;
use crate::cost::{Clock, Counter};
use crate::exit::Exit;
use crate::folder::{self, State};
use crate::run::{AllData, data_key};

/// Lists cells, how each stands, and what is left to compute.
pub(crate) fn main(args: &PlanArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let matrix = read_matrix(&args.matrix)?;
    let (plan, data) = resolve(&matrix, &args.matrix, methods, args.data.data_dir.as_deref())?;
    let cells = plan.needed(&select(&plan, &args.select)?);
    let root = args.select.out.join(&plan.name);
    let begun = claims::begun(&root)?;
    let (mut counter, mut clock) = (Counter::default(), Clock::default());
    let stands = |cell: &Cell| match folder::cell_state(&plan, &root, *cell) {
        State::New if begun.contains(&plan.folder_name(*cell)) => State::Begun,
        state => state,
    };
    let states: Vec<State> = cells.par_iter().map(stands).collect();
    let mut lines = Vec::new();
    for (cell, state) in cells.into_iter().zip(states) {
        let (cost, seconds) = cost(&plan, cell, &data, &mut counter, &mut clock)?;
        let (state, reason) = describe(&state);
        lines.push((cell, state, reason, cost, seconds));
    }
    if args.json {
        let items = lines.iter().map(|(cell, state, reason, cost, seconds)| {
            let (key, slug) = plan.identity(*cell);
            let needs: Vec<&str> = plan.parents(*cell).iter().map(|it| plan.identity(*it).0).collect();
            json!({
                "needs": needs,
                "kind": kind(*cell), "key": key, "name": slug, "state": state, "reason": reason,
                "forwards": cost.forwards, "backwards": cost.backwards, "estimated_seconds": seconds,
            })
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&items.collect::<Vec<_>>())?)?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["cell", "name", "state", "forward", "backward", "about"]);
    for column in 3..6 {
        table
            .column_mut(column)
            .expect("six columns")
            .set_cell_alignment(CellAlignment::Right);
    }
    let (mut left, mut seconds_left, mut left_cells) = (Cost::default(), 0.0, 0);
    for (cell, state, reason, cost, seconds) in &lines {
        if *state != "done" {
            left += *cost;
            seconds_left += seconds;
            left_cells += 1;
        }
        let state = if reason.is_empty() {
            (*state).to_string()
        } else {
            format!("{state}: {reason}")
        };
        let (forwards, backwards) = (thousands(cost.forwards), thousands(cost.backwards));
        table.add_row([
            kind(*cell),
            plan.identity(*cell).1,
            &state,
            &forwards,
            &backwards,
            &duration(*seconds),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    writeln!(
        out,
        "{} cells, {left_cells} to compute: {} forward and {} backward passes, about {} on this machine",
        lines.len(),
        thousands(left.forwards),
        thousands(left.backwards),
        duration(seconds_left),
    )?;
    Ok(Exit::Success)
}

fn kind(cell: Cell) -> &'static str {
    match cell {
        Cell::Training(_) => "train",
        Cell::Evaluation(_) => "attack",
    }
}

fn cost(plan: &Plan, cell: Cell, data: &AllData, counter: &mut Counter, clock: &mut Clock) -> Result<(Cost, f64)> {
    let (training, cost) = match cell {
        Cell::Training(i) => {
            let training = &plan.trainings[i];
            (
                training,
                counter.training(training, &data[&data_key(&training.dataset)])?,
            )
        }
        Cell::Evaluation(i) => {
            let evaluation = &plan.evaluations[i];
            let training = plan.target(evaluation);
            (
                training,
                counter.evaluation(evaluation, training, &data[&data_key(&evaluation.dataset)])?,
            )
        }
    };
    Ok((cost, clock.estimate(training, cost)?))
}

fn describe(state: &State) -> (&'static str, String) {
    match state {
        State::New => ("new", String::new()),
        State::Begun => ("begun", String::new()),
        State::Done => ("done", String::new()),
        State::Failed(failed) => ("failed", failed.error.clone()),
        State::Damaged(reason) => ("damaged", reason.clone()),
    }
}

pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A length of time, for people.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "< 1 s".into(),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86400.0),
    }
}
