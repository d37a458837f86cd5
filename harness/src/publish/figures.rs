//! The figures of a run, from its rows and its trainings' histories.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use paper_tables::{Chart, Epoch, Figure, History, Weight};
use plan::tables::Names;
use results::Row;

use super::example_images;
use super::run::FinishedRun;
use crate::compute::training;

/// Every curve of a run for which it has enough: over epochs, weights, radii and queries.
pub(crate) fn charts(run: &FinishedRun, rows: &[Row]) -> Result<Vec<Chart>> {
    let mut charts = paper_tables::learning_charts(&histories(run)?);
    charts.extend(paper_tables::weight_charts(rows, weights(run)));
    charts.extend(run.charts(rows)?);
    Ok(charts)
}

/// Every figure of a run for which it has enough.
pub(crate) fn all(run: &FinishedRun, rows: &[Row]) -> Result<Vec<Box<dyn Figure>>> {
    let mut figures: Vec<Box<dyn Figure>> = Vec::new();
    let mut add = |figure| figures.push(figure);
    for chart in charts(run, rows)? {
        add(Box::new(chart) as Box<dyn Figure>);
    }
    for bars in paper_tables::overfitting_bars(rows) {
        add(Box::new(bars));
    }
    for map in paper_tables::transfer_maps(rows) {
        add(Box::new(map));
    }
    for figure in example_images::of(run, rows)?.0 {
        add(Box::new(figure));
    }
    Ok(figures)
}

/// The histories of the trainings whose networks are evaluated, not of those that are only sources of transferred images.
fn histories(run: &FinishedRun) -> Result<Vec<History>> {
    let planned = run.planned();
    let evaluated: HashSet<Names<'_>> = planned.map(|(planned, _)| planned.training()).collect();
    let mut histories = Vec::new();
    for (trained, folder) in run
        .trainings()
        .filter(|(trained, _)| evaluated.contains(&trained.names()))
    {
        let Some(history) = training::history(folder)? else {
            continue;
        };
        let epoch = |stored: &training::Epoch| Epoch {
            epoch: stored.epoch,
            loss: stored.loss,
            natural: stored.selected.map(|accuracies| accuracies.natural),
            robust: stored.selected.map(|accuracies| accuracies.robust),
        };
        histories.push(History {
            dataset: trained.dataset.clone(),
            network: trained.network.clone(),
            defense: trained.defense.clone(),
            recipe: trained.recipe.clone(),
            epochs: history.iter().map(epoch).collect(),
        });
    }
    Ok(histories)
}

/// The weight of a row's training.
fn weights(run: &FinishedRun) -> impl Fn(&Row) -> Option<Weight> {
    let mut known = HashMap::new();
    for (it, _) in run.trainings() {
        if let Some(weight) = &it.weight {
            let weight = Weight {
                family: weight.family.clone(),
                label: it.method.to_uppercase(),
                symbol: weight.symbol.clone(),
                value: weight.value,
            };
            known.insert(it.names(), weight);
        }
    }
    move |row| {
        let names = (&*row.dataset, &*row.network, &*row.defense, &*row.recipe, row.seed);
        known.get(&names).cloned()
    }
}
