//! What is left to compute in a run, and what it will cost.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use attacks::Cost;
use comfy_table::{CellAlignment, Table, presets};
use plan::Cell;
use plan::Plan;
use rayon::prelude::*;
use serde_json::Value;
use storage::cell_folder::{self, State};
use storage::leases;

use crate::compute::cost::{Clock, Counter};
use crate::compute::data::{AllData, data_key};
use crate::units::{duration, thousands};

/// A cell, its state on disk, and its cost.
struct Line {
    cell: Cell,
    state: &'static str,
    /// Why it failed or is damaged, else empty.
    reason: String,
    cost: Cost,
    /// An estimate for this machine.
    seconds: f64,
}

/// The cells of a plan with their states and costs.
pub(crate) struct Forecast<'a> {
    plan: &'a Plan,
    lines: Vec<Line>,
}

impl<'a> Forecast<'a> {
    /// Looks at the run's folder and counts the passes of every cell.
    pub(crate) fn of(plan: &'a Plan, cells: Vec<Cell>, data: &AllData, root: &Path) -> Result<Self> {
        let begun = leases::begun(root)?;
        let (mut counter, mut clock) = (Counter::default(), Clock::default());
        let state = |cell: &Cell| match cell_folder::cell_state(plan, root, *cell) {
            State::New if begun.contains(&plan.cell_name(*cell)) => State::Begun,
            state => state,
        };
        let states: Vec<State> = cells.par_iter().map(state).collect();
        let mut lines = Vec::new();
        for (cell, state) in cells.into_iter().zip(states) {
            let (cost, seconds) = cost(plan, cell, data, &mut counter, &mut clock)?;
            let (state, reason) = describe(&state);
            lines.push(Line {
                cell,
                state,
                reason,
                cost,
                seconds,
            });
        }
        Ok(Self { plan, lines })
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let items = self.lines.iter().map(|line| {
            let mut item = self.plan.describe(line.cell);
            item["state"] = line.state.into();
            item["reason"] = line.reason.as_str().into();
            item["forwards"] = line.cost.forwards.into();
            item["backwards"] = line.cost.backwards.into();
            item["estimated_seconds"] = line.seconds.into();
            item
        });
        items.collect()
    }

    /// For readers: a table, and the sum over the cells that are left.
    pub(crate) fn print(&self, out: &mut dyn Write) -> Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["cell", "name", "state", "forward", "backward", "about"]);
        for column in 3..6 {
            let column = table.column_mut(column).expect("six columns");
            column.set_cell_alignment(CellAlignment::Right);
        }
        let (mut left, mut seconds_left, mut left_cells) = (Cost::default(), 0.0, 0);
        for line in &self.lines {
            if line.state != "done" {
                left += line.cost;
                seconds_left += line.seconds;
                left_cells += 1;
            }
            let state = if line.reason.is_empty() {
                line.state.to_string()
            } else {
                format!("{}: {}", line.state, line.reason)
            };
            table.add_row([
                line.cell.kind(),
                self.plan.identity(line.cell).1,
                &state,
                &thousands(line.cost.forwards),
                &thousands(line.cost.backwards),
                &duration(line.seconds),
            ]);
        }
        writeln!(out, "{}", table.trim_fmt())?;
        writeln!(
            out,
            "{} cells, {left_cells} to compute: {} forward and {} backward passes, about {} on this machine",
            self.lines.len(),
            thousands(left.forwards),
            thousands(left.backwards),
            duration(seconds_left),
        )?;
        Ok(())
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
