//! Square Attack, a random search that sees only logits: Andriushchenko, Croce, Flammarion and Hein 2020,
//! arXiv:1912.00049, as in fra31/auto-attack (a392200).
//!
//! L∞: x′ ← Π(x′ + 2ε·r) inside a random square of side s, r = ±1 for each channel; kept if the margin z_y − M falls
//! or is at most 0. s = round(√(p·H·W)); p is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries.
//! It starts at clip(x + ε·r) with r = ±1 for each channel and column.
//! L2: in each channel the change inside one window of odd side s ≥ 3 gets a new direction, its old one plus a random
//! pattern of two opposite hills, and takes over the length of the change inside a second window, which is set to zero,
//! and its share of what is left of the radius; then the whole is scaled to length ε and cut to `[0, 1]`. It starts at a
//! chessboard of patterns.
//!
//! Images `[B, C, H, W]` in `[0, 1]`; logits z, M = max_{k≠y} z_k. One query is one forward pass of one image. Only
//! examples that are classified correctly are attacked, and they leave at the first success. The result is the image
//! that broke an example and the clean image of a robust one.
//!
//! As in the authors' code, a window never touches the last row or column unless it fills the image. Deviation: every
//! example draws its own squares, where the authors' batch shares one, so that results do not depend on the batch.

mod pattern;

use candle_core::{Result, Tensor};
use models::Classifier;
use random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::pattern::{Window, hills};
use crate::ball::{Ball, l2_norms};
use crate::host::placed;
use crate::losses::margin;
use crate::rows::select_rows;
use crate::survivors::{Draws, Examples, Survivors, choose, numbers, wrong};
use crate::{
    Attack, Batch, BatchNorm, Cost, Description, Invalid, Method, Norm, Perturbed, Probe, Queries, Setting, Threat,
};

/// Square Attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Square {
    /// Proposals of one try, each a query; 5000.
    #[serde(default = "default_queries")]
    pub queries: u64,
    /// Independent tries; 1.
    #[serde(default = "default_restarts")]
    pub restarts: u64,
    /// p at first, the share of the image that a square covers; 0.8.
    #[serde(default = "default_p_init")]
    pub p_init: f64,
    /// Whether the schedule of p, made for 10,000 queries, is stretched to the number there are.
    #[serde(default)]
    pub rescale_schedule: bool,
}

/// Queries after which p is halved.
const HALVINGS: [u64; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
/// Queries for which the schedule was made.
const SCHEDULE: f64 = 10_000.0;
/// Keeps quotients of norms finite.
const TINY: f64 = 1e-12;

fn default_queries() -> u64 {
    5000
}

fn default_restarts() -> u64 {
    1
}

fn default_p_init() -> f64 {
    0.8
}

impl Default for Square {
    fn default() -> Self {
        Self {
            queries: default_queries(),
            restarts: default_restarts(),
            p_init: default_p_init(),
            rescale_schedule: false,
        }
    }
}

impl Method for Square {
    const NAME: &'static str = "square";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "random search with squares, by queries alone";
    const SOURCE: &'static str = "Andriushchenko et al. 2020, arXiv:1912.00049";
    const EXAMPLE: &'static str = r#"{"queries": 40}"#;

    fn resolve(&mut self, _: &Setting) -> std::result::Result<(), Invalid> {
        crate::positive("queries", self.queries)?;
        crate::positive("restarts", self.restarts)?;
        if self.p_init > 0.0 && self.p_init <= 1.0 {
            return Ok(());
        }
        let message = format!(
            "p_init is {}; it must be a share above 0 and up to 1, usually 0.8",
            self.p_init
        );
        Err(Invalid::new("p_init", message))
    }
}

impl Attack for Square {
    fn perturb(
        &self,
        classifier: &dyn Classifier,
        batch: &Batch,
        threat: &Threat,
        random: &Stream,
    ) -> Result<Perturbed> {
        let mut queries = Queries::start(batch.ids.len());
        let found = crate::survivors::perturb(classifier, batch, |probe, examples, survivors| {
            for (row, queries) in queries.iter_mut().enumerate() {
                queries.until_success = survivors.broken[row].then_some(0);
            }
            self.take(probe, examples, threat, random, survivors, &mut queries)
        })?;
        Ok(Perturbed {
            queries: Some(queries),
            ..found
        })
    }

    fn describe(&self) -> Description {
        Description {
            steps: Some(self.queries),
            step_size: None,
            restarts: Some(self.restarts),
            loss: Some("margin".to_string()),
            start: Some("stripes".to_string()),
            batch_norm: Some(BatchNorm::Eval.to_string()),
        }
    }

    fn by_queries(&self) -> bool {
        true
    }

    fn ceiling(&self, _: usize) -> Option<Cost> {
        Some(Cost {
            forwards: self.restarts * (self.queries + 1) + 1,
            backwards: 0,
        })
    }
}

impl Square {
    /// Attacks the survivors, removes those that it breaks and counts the queries of each.
    pub(crate) fn take(
        &self,
        probe: &mut Probe<'_>,
        examples: &Examples,
        threat: &Threat,
        random: &Stream,
        survivors: &mut Survivors,
        queries: &mut [Queries],
    ) -> Result<()> {
        let (starts, moves) = (random.of(Purpose::AttackStart), random.of(Purpose::AttackMove));
        for restart in 0..self.restarts {
            self.search(
                probe,
                examples,
                threat,
                &starts.at(restart),
                &moves.at(restart),
                survivors,
                queries,
            )?;
        }
        Ok(())
    }

    /// One try. `starts` is asked once, `moves` once for each query, counted from 0.
    #[expect(clippy::too_many_arguments, reason = "each is an input of the method")]
    pub(crate) fn search(
        &self,
        probe: &mut Probe<'_>,
        examples: &Examples,
        threat: &Threat,
        starts: &dyn Draws,
        moves: &dyn Draws,
        survivors: &mut Survivors,
        queries: &mut [Queries],
    ) -> Result<()> {
        let rows = survivors.rows();
        if rows.is_empty() {
            return Ok(());
        }
        let part = examples.select(&rows)?;
        let mut search = Search::begin(probe, &part.batch, rows, threat, starts, queries)?;
        search.leave(survivors, queries)?;
        for query in 0..self.queries {
            if search.rows.is_empty() {
                break;
            }
            search.propose(probe, self.side_share(query), query, moves, queries)?;
            search.leave(survivors, queries)?;
        }
        Ok(())
    }

    /// p at a query, counted from 0.
    pub(crate) fn side_share(&self, query: u64) -> f64 {
        let query = if self.rescale_schedule {
            (query as f64 / self.queries as f64 * SCHEDULE) as u64
        } else {
            query
        };
        let halvings = HALVINGS.iter().filter(|&&after| query > after).count();
        self.p_init / f64::from(1u32 << halvings)
    }
}

/// The unbroken examples, with the best image of each.
struct Search {
    /// Their places in the whole batch.
    rows: Vec<usize>,
    batch: Batch,
    ball: Ball,
    threat: Threat,
    best: Tensor,
    margins: Vec<f64>,
    /// Whether the network is wrong about the best image; a margin of 0 can be either.
    wrong: Vec<bool>,
}

impl Search {
    fn begin(
        probe: &mut Probe<'_>,
        batch: &Batch,
        rows: Vec<usize>,
        threat: &Threat,
        starts: &dyn Draws,
        queries: &mut [Queries],
    ) -> Result<Self> {
        let ball = Ball::new(threat, &batch.images)?;
        let best = match threat.norm {
            Norm::Linf => stripes(&ball, batch, starts)?,
            Norm::L2 => chessboard(&ball, batch, starts)?,
        };
        let (margins, wrong) = ask(probe, &best, &batch.labels)?;
        for &row in &rows {
            queries[row].asked += 1;
        }
        Ok(Self {
            rows,
            batch: batch.clone(),
            ball,
            threat: *threat,
            best,
            margins,
            wrong,
        })
    }

    fn propose(
        &mut self,
        probe: &mut Probe<'_>,
        share: f64,
        query: u64,
        moves: &dyn Draws,
        queries: &mut [Queries],
    ) -> Result<()> {
        let proposed = match self.threat.norm {
            Norm::Linf => self.square(share, query, moves)?,
            Norm::L2 => self.windows(share, query, moves)?,
        };
        let (margins, wrong) = ask(probe, &proposed, &self.batch.labels)?;
        let better: Vec<bool> = margins
            .iter()
            .zip(&self.margins)
            .map(|(new, old)| new < old || *new <= 0.0)
            .collect();
        self.best = choose(&better, &proposed, &self.best)?;
        for (row, better) in better.into_iter().enumerate() {
            queries[self.rows[row]].asked += 1;
            if better {
                self.margins[row] = margins[row];
                self.wrong[row] = wrong[row];
            }
        }
        Ok(())
    }

    /// Examples with a margin of at most 0 leave the search. They are broken only if the network misclassifies them.
    fn leave(&mut self, survivors: &mut Survivors, queries: &mut [Queries]) -> Result<()> {
        let leaves: Vec<bool> = self.margins.iter().map(|margin| *margin <= 0.0).collect();
        if !leaves.contains(&true) {
            return Ok(());
        }
        let broken: Vec<bool> = leaves.iter().zip(&self.wrong).map(|(a, b)| *a && *b).collect();
        for (&row, _) in self.rows.iter().zip(&broken).filter(|(_, broken)| **broken) {
            queries[row].until_success.get_or_insert(queries[row].asked);
        }
        survivors.take(&self.rows, &broken, &self.best)?;
        let stay: Vec<usize> = (0..leaves.len()).filter(|&row| !leaves[row]).collect();
        self.rows = stay.iter().map(|&row| self.rows[row]).collect();
        if stay.is_empty() {
            return Ok(());
        }
        self.batch = self.batch.select(&stay)?;
        self.ball = Ball::new(&self.threat, &self.batch.images)?;
        self.best = select_rows(&self.best, &stay)?;
        self.margins = stay.iter().map(|&row| self.margins[row]).collect();
        self.wrong = stay.iter().map(|&row| self.wrong[row]).collect();
        Ok(())
    }

    /// L∞: the best images with 2ε added or taken in a square.
    fn square(&self, share: f64, query: u64, moves: &dyn Draws) -> Result<Tensor> {
        let (_, channels, height, width) = self.best.dims4()?;
        let side = ((share * (height * width) as f64).sqrt().round_ties_even() as usize).clamp(1, height.min(width));
        let twice = 2.0 * self.threat.epsilon.value();
        // Row, column, then one sign for each channel.
        let draws = moves.uniform(query, &self.batch.ids, 2 + channels);
        let mut change = vec![0.0; self.best.elem_count()];
        let images = change.chunks_mut(channels * height * width);
        for (image, draws) in images.zip(draws.chunks(2 + channels)) {
            let window = Window::at(draws[0], draws[1], side, height, width);
            for (plane, draw) in image.chunks_mut(height * width).zip(&draws[2..]) {
                window.each(width, |i, _, _| plane[i] = twice * sign(*draw));
            }
        }
        self.ball
            .project(&(&self.best + placed(change, self.best.shape(), &self.best)?)?)
    }

    /// L2: the best changes with one window renewed and another set to zero.
    fn windows(&self, share: f64, query: u64, moves: &dyn Draws) -> Result<Tensor> {
        let (examples, channels, height, width) = self.best.dims4()?;
        let side = ((share * (height * width) as f64).sqrt().round_ties_even() as usize).max(3) | 1;
        let side = side.min(height.min(width));
        // Two windows, the pattern's direction, then one sign for each channel.
        let draws = moves.uniform(query, &self.batch.ids, 5 + channels);
        let plane = height * width;
        let mut new = vec![0.0; examples * plane];
        let mut wiped = vec![0.0; examples * plane];
        let mut pattern = vec![0.0; examples * channels * plane];
        for (row, draws) in draws.chunks(5 + channels).enumerate() {
            let hills = hills(side, draws[4] > 0.5);
            let first = Window::at(draws[0], draws[1], side, height, width);
            let second = Window::at(draws[2], draws[3], side, height, width);
            first.each(width, |i, _, _| new[row * plane + i] = 1.0);
            second.each(width, |i, _, _| wiped[row * plane + i] = 1.0);
            for channel in 0..channels {
                let image = &mut pattern[(row * channels + channel) * plane..][..plane];
                first.each(width, |i, y, x| {
                    image[i] = sign(draws[5 + channel]) * hills[y * side + x]
                });
            }
        }
        let mask = |values: Vec<f64>| placed(values, (examples, 1, height, width), &self.best);
        let pattern = placed(pattern, self.best.shape(), &self.best)?;
        let (new, wiped) = (mask(new)?, mask(wiped)?);

        let change = (&self.best - self.ball.centre())?;
        let inside = change.broadcast_mul(&new)?;
        let direction = (pattern + inside.broadcast_div(&(channel_norms(&inside)? + TINY)?)?)?;
        let spent = l2_norms(&change)?.sqr()?;
        let spare = ((self.ball.radii().sqr()? - spent)?.maximum(0.0)? / channels as f64)?;
        let taken = channel_norms(&change.broadcast_mul(&new.maximum(&wiped)?)?)?.sqr()?;
        let length = taken.broadcast_add(&spare)?.sqrt()?;
        let renewed = direction
            .broadcast_div(&(channel_norms(&direction)? + TINY)?)?
            .broadcast_mul(&length)?;
        let kept = (1.0 - new.maximum(&wiped)?)?;
        let change = (change.broadcast_mul(&kept)? + renewed)?;
        scaled(&self.ball, &change)
    }
}

/// The margins z_y − M of images, and whether the network is wrong about them.
fn ask(probe: &mut Probe<'_>, images: &Tensor, labels: &Tensor) -> Result<(Vec<f64>, Vec<bool>)> {
    let logits = probe.logits(images)?;
    let margins = numbers(&margin(&logits, labels)?.neg()?)?;
    Ok((margins, wrong(&logits, labels)?))
}

/// clip(x + ε·r), r = ±1 for each channel and column.
fn stripes(ball: &Ball, batch: &Batch, starts: &dyn Draws) -> Result<Tensor> {
    let (examples, channels, _, width) = batch.images.dims4()?;
    let draws = starts.uniform(0, &batch.ids, channels * width);
    let signs: Vec<f64> = draws.into_iter().map(sign).collect();
    let signs = placed(signs, (examples, channels, 1, width), &batch.images)?;
    let change = signs.broadcast_mul(ball.radii())?;
    ball.centre().broadcast_add(&change)?.clamp(0.0, 1.0)
}

/// The L2 start: tiles a fifth of the image high, each with a pattern of its own.
fn chessboard(ball: &Ball, batch: &Batch, starts: &dyn Draws) -> Result<Tensor> {
    let (_, channels, height, width) = batch.images.dims4()?;
    let side = (height / 5).max(1).min(width);
    let margin = height.saturating_sub(side * 5) / 2;
    let corners: Vec<(usize, usize)> = (0..height / side)
        .flat_map(|row| (0..width / side).map(move |column| (margin + row * side, margin + column * side)))
        .collect();
    // For each tile the pattern's direction, then one sign for each channel.
    let draws = starts.uniform(0, &batch.ids, corners.len() * (1 + channels));
    let mut change = vec![0.0; batch.images.elem_count()];
    let images = change.chunks_mut(channels * height * width);
    for (image, draws) in images.zip(draws.chunks(corners.len() * (1 + channels))) {
        for (&(top, left), draws) in corners.iter().zip(draws.chunks(1 + channels)) {
            let hills = hills(side, draws[0] > 0.5);
            for (plane, draw) in image.chunks_mut(height * width).zip(&draws[1..]) {
                for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
                    if top + y < height && left + x < width {
                        plane[(top + y) * width + left + x] += sign(*draw) * hills[y * side + x];
                    }
                }
            }
        }
    }
    scaled(ball, &placed(change, batch.images.shape(), &batch.images)?)
}

/// clip(x + ε·change/‖change‖₂).
fn scaled(ball: &Ball, change: &Tensor) -> Result<Tensor> {
    let units = change.broadcast_div(&(l2_norms(change)? + TINY)?)?;
    (ball.centre() + units.broadcast_mul(ball.radii())?)?.clamp(0.0, 1.0)
}

/// ‖v‖₂ of each channel of each image, `[B, C, 1, 1]`.
fn channel_norms(values: &Tensor) -> Result<Tensor> {
    values.sqr()?.sum_keepdim((2, 3))?.sqrt()
}

fn sign(draw: f32) -> f64 {
    if draw < 0.5 { -1.0 } else { 1.0 }
}

#[cfg(test)]
mod tests;
