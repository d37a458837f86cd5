//! Memory handed out from a line, and taken back.

/// Hands out pieces of a line that is as long as it has to be.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// Free pieces before the end: start and length, in order.
    free: Vec<(u64, u64)>,
    end: u64,
}

/// A piece: its start and how many bytes were asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Buffer {
    pub(crate) start: u64,
    pub(crate) bytes: usize,
}

impl Arena {
    /// Of every start. What tensor cores and vector loads ask for, and a whole number of any type.
    pub(crate) const ALIGNMENT: u64 = 256;

    /// The length of the line so far.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    fn length(bytes: usize) -> u64 {
        (bytes as u64).max(1).next_multiple_of(Self::ALIGNMENT)
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Buffer {
        let wanted = Self::length(bytes);
        let fits = |&(_, length): &(u64, u64)| length >= wanted;
        // The smallest piece that fits.
        let best = (0..self.free.len())
            .filter(|&at| fits(&self.free[at]))
            .min_by_key(|&at| self.free[at].1);
        let start = match best {
            Some(at) => {
                let (start, length) = self.free[at];
                if length == wanted {
                    self.free.remove(at);
                } else {
                    self.free[at] = (start + wanted, length - wanted)
                }
                start
            }
            None => {
                let start = self.end;
                self.end += wanted;
                start
            }
        };
        Buffer { start, bytes }
    }

    pub(crate) fn give(&mut self, buffer: Buffer) {
        let (start, length) = (buffer.start, Self::length(buffer.bytes));
        let at = self.free.partition_point(|&(other, _)| other < start);
        self.free.insert(at, (start, length));
        if at + 1 < self.free.len() && self.free[at].0 + self.free[at].1 == self.free[at + 1].0 {
            self.free[at].1 += self.free[at + 1].1;
            self.free.remove(at + 1);
        }
        if at > 0 && self.free[at - 1].0 + self.free[at - 1].1 == self.free[at].0 {
            self.free[at - 1].1 += self.free[at].1;
            self.free.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use random::Stream;

    #[test]
    fn pieces_in_use_never_overlap_and_all_comes_back() {
        let random = Stream::new(1);
        let mut arena = Arena::default();
        let mut held: Vec<Buffer> = Vec::new();
        let mut most = 0;
        for round in 0..2000 {
            if !held.is_empty() && random.at(0).below(round, 2) == 0 {
                let which = random.at(1).below(round, held.len() as u64) as usize;
                arena.give(held.swap_remove(which));
                continue;
            }
            let new = arena.take(random.at(2).below(round, 5000) as usize);
            assert_eq!(new.start % Arena::ALIGNMENT, 0);
            for other in &held {
                let apart =
                    new.start + new.bytes as u64 <= other.start || other.start + other.bytes as u64 <= new.start;
                assert!(apart, "{new:?} and {other:?}");
            }
            held.push(new);
            most = most.max(held.iter().map(|buffer| Arena::length(buffer.bytes)).sum());
        }
        // Little is lost between the pieces.
        assert!(arena.end() < 2 * most, "{} for {most}", arena.end());
        held.into_iter().for_each(|buffer| arena.give(buffer));
        assert_eq!(arena.free, [(0, arena.end())]);
    }
}
