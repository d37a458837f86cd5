//! Auto-PGD's schedule: when an example's step size is halved.

/// The step sizes of all examples, and the losses that they depend on.
pub(super) struct Schedule {
    rho: f64,
    pub(super) step_sizes: Vec<f64>,
    pub(super) best: Vec<f64>,
    /// The loss after each step, for each example: `[N][B]`, zeros where none has been taken.
    history: Vec<Vec<f64>>,
    /// Steps between two checkpoints, and since the last one.
    interval: usize,
    since: usize,
    shrink: usize,
    least: usize,
    halved: Vec<bool>,
    best_at_last: Vec<f64>,
}

impl Schedule {
    pub(super) fn new(steps: u64, rho: f64, step_size: f64, losses: Vec<f64>) -> Self {
        let share = |part: f64| ((part * steps as f64) as usize).max(1);
        let examples = losses.len();
        Self {
            rho,
            step_sizes: vec![step_size; examples],
            best_at_last: losses.clone(),
            best: losses,
            history: vec![vec![0.0; examples]; steps as usize],
            interval: share(0.22),
            since: 0,
            shrink: share(0.03),
            least: share(0.06),
            halved: vec![true; examples],
        }
    }

    /// Records the losses after a step, counted from 0. Returns which examples have a new best point, and which go
    /// back to it with half the step size.
    pub(super) fn note(&mut self, step: usize, losses: &[f64]) -> (Vec<bool>, Vec<bool>) {
        let better: Vec<bool> = losses.iter().zip(&self.best).map(|(loss, best)| loss > best).collect();
        for (row, &better) in better.iter().enumerate() {
            if better {
                self.best[row] = losses[row];
            }
        }
        self.history[step].copy_from_slice(losses);
        self.since += 1;
        if self.since < self.interval {
            return (better, vec![false; losses.len()]);
        }
        for row in 0..losses.len() {
            let oscillates = self.rises(step, row) as f64 <= self.interval as f64 * self.rho;
            let stuck = !self.halved[row] && self.best_at_last[row] >= self.best[row];
            self.halved[row] = oscillates || stuck;
            if self.halved[row] {
                self.step_sizes[row] /= 2.0;
            }
        }
        self.best_at_last.clone_from(&self.best);
        self.since = 0;
        self.interval = self.interval.saturating_sub(self.shrink).max(self.least);
        (better, self.halved.clone())
    }

    /// The number of steps since the last checkpoint in which the loss rose.
    fn rises(&self, step: usize, row: usize) -> usize {
        let last = self.history.len() - 1;
        let rose = |back: usize| {
            let now = step - back;
            // Before the first loss the authors' index wraps around, to a 0 unless N is that short.
            let before = now.checked_sub(1).unwrap_or(last);
            self.history[now][row] > self.history[before][row]
        };
        (0..self.interval).filter(|&back| rose(back)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_those_of_the_paper() {
        // 22 steps of 100, then 3 fewer each time, at least 6.
        let mut schedule = Schedule::new(100, 0.75, 1.0, vec![0.0]);
        // Always rising: never halved.
        let mut checked = Vec::new();
        for step in 0..100 {
            schedule.note(step, &[1.0 + step as f64]);
            if schedule.since == 0 {
                checked.push(step + 1);
            }
        }
        assert_eq!(checked, [22, 41, 57, 70, 80, 87, 93, 99]);
        assert_eq!(schedule.step_sizes, [1.0]);
    }

    #[test]
    fn steps_are_halved_where_the_loss_does_not_rise() {
        // Four steps to the first checkpoint, one less to the next.
        let run = |losses: &[f64]| {
            let mut schedule = Schedule::new(20, 0.75, 8.0, vec![0.5]);
            let mut halved = Vec::new();
            for (step, loss) in losses.iter().enumerate() {
                if schedule.note(step, &[*loss]).1[0] {
                    halved.push(step + 1);
                }
            }
            (halved, schedule.step_sizes[0])
        };
        // The first of four counts as a rise from the 0 before it, so three rises are three quarters: halved.
        assert_eq!(run(&[1.0, 2.0, 3.0, 2.5]), (vec![4], 4.0));
        assert_eq!(run(&[1.0, 2.0, 3.0, 4.0]), (vec![], 8.0));
        // A negative loss does not count as a rise from 0.
        assert_eq!(run(&[-4.0, -3.0, -2.0, -1.0]), (vec![4], 4.0));
        // Rises from far below do not help if the best loss stays.
        assert_eq!(run(&[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0]), (vec![7], 4.0));
        assert_eq!(run(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), (vec![], 8.0));
    }

    #[test]
    fn one_step_is_its_own_history() {
        // The authors' index finds the loss itself before it: no rise.
        let mut schedule = Schedule::new(1, 0.75, 1.0, vec![0.0]);
        assert_eq!(schedule.note(0, &[1.0]), (vec![true], vec![true]));
    }
}
