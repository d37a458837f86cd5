//! A pickle as plain values.
//!
//! Source of the opcodes: Python's `pickletools`. The machine keeps every value once and passes numbers of
//! values around, so a reference costs nothing and values may refer to each other in any way without a
//! loop here. It makes at most one value per opcode, and what it copies is counted: memory is bounded by the
//! pickle's length.

mod input;
mod machine;
mod opcodes;
mod rebuild;
mod value;

use self::machine::Machine;
pub(super) use self::value::{Id, Pickle, Value};

/// Reads one pickle; returns what follows it.
pub(super) fn parse(bytes: &[u8]) -> Result<(Pickle, &[u8]), String> {
    let mut machine = Machine::new(bytes);
    loop {
        let at = machine.input.at;
        let located = |problem: String| {
            if problem.starts_with("its pickle names") {
                problem
            } else {
                format!("the pickle is damaged or foreign at byte {at}: {problem}")
            }
        };
        if let Some(root) = machine.step().map_err(located)? {
            let rest = &bytes[machine.input.at..];
            let values = machine.values;
            return Ok((Pickle { values, root }, rest));
        }
    }
}
