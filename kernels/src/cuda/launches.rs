//! Launches recorded once, to be played again and again.
//!
//! A program is written by calling the functions of `machine` with a [`Recorder`] in place of a card. Where memory will
//! be is not known then, so addresses count from the starts of numbered regions, which [`Launches::play`] is given.

use std::cell::RefCell;

use candle_core::Result;

use super::machine::{Address, Arg, Convolve, Grid, Machine, Pass};

/// A region of memory, by number.
pub(crate) type Region = usize;

/// Bits of an offset in a region: more than any card has memory.
const OFFSET_BITS: u32 = 44;

/// The place `offset` bytes behind the start of a region.
pub(crate) fn place(region: Region, offset: u64) -> Address {
    debug_assert!(offset >> OFFSET_BITS == 0);
    (region as u64 + 1) << OFFSET_BITS | offset
}

fn settle(address: Address, starts: &[Address]) -> Address {
    match address >> OFFSET_BITS {
        // Nowhere.
        0 => address,
        region => starts[region as usize - 1] + (address & ((1 << OFFSET_BITS) - 1)),
    }
}

#[derive(Debug, Clone)]
enum Command {
    Launch(&'static str, Grid, Vec<Arg>),
    Convolve(Convolve, Pass, [Address; 3], bool),
}

/// Launches and convolutions in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launches(Vec<Command>);

impl Launches {
    /// Runs everything on a machine; region r starts at `starts[r]`.
    pub(crate) fn play(&self, machine: &impl Machine, starts: &[Address]) -> Result<()> {
        let mut settled = Vec::new();
        for command in &self.0 {
            match command {
                Command::Launch(kernel, grid, args) => {
                    settled.clear();
                    settled.extend(args.iter().map(|arg| match *arg {
                        Arg::At(address) => Arg::At(settle(address, starts)),
                        other => other,
                    }));
                    machine.launch(kernel, *grid, &settled)?;
                }
                Command::Convolve(convolve, pass, at, accumulate) => {
                    machine.convolve(convolve, *pass, at.map(|address| settle(address, starts)), *accumulate)?;
                }
            }
        }
        Ok(())
    }

    /// How many launches and convolutions there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A machine that only records what it is to do.
#[derive(Debug, Default)]
pub(crate) struct Recorder(RefCell<Vec<Command>>);

impl Recorder {
    /// What was recorded since the last call.
    pub(crate) fn take(&self) -> Launches {
        Launches(self.0.take())
    }
}

impl Machine for Recorder {
    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        self.0.borrow_mut().push(Command::Launch(kernel, grid, args.to_vec()));
        Ok(())
    }

    fn convolve(&self, convolution: &Convolve, pass: Pass, at: [Address; 3], accumulate: bool) -> Result<()> {
        self.0
            .borrow_mut()
            .push(Command::Convolve(*convolution, pass, at, accumulate));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_from_their_regions() {
        let starts = [0x7f00_0000_0000, 4096];
        assert_eq!(settle(place(0, 0), &starts), 0x7f00_0000_0000);
        assert_eq!(settle(place(1, 12), &starts), 4108);
        assert_eq!(settle(0, &starts), 0);
    }
}
