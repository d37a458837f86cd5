//! Panics as errors, so that a bug in one cell does not end the others.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// A panic that was caught.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panicked at {place}: {message}; this is a bug of the program")]
pub(crate) struct Panicked {
    /// The panic's message.
    pub(crate) message: String,
    /// File, line and column, the same on every machine.
    place: String,
}

/// Runs `work`. A panic in it, or in threads that it waits for, is an error.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(place) = info.location() {
                remember(Panicked {
                    message: text(info.payload()),
                    place: format!("{}:{}:{}", portable(place.file()), place.line(), place.column()),
                });
            }
            before(info);
        }));
    });
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| recall(text(&*payload)))
}

/// The value that a lock protects, even if a thread panicked while it held the lock.
pub(crate) fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The latest panics. They are found by their message, because rayon hands a panic on to the thread that waits.
static LATEST: Mutex<VecDeque<Panicked>> = Mutex::new(VecDeque::new());

fn remember(panic: Panicked) {
    const KEPT: usize = 64;
    let mut latest = locked(&LATEST);
    latest.truncate(KEPT - 1);
    latest.push_front(panic);
}

fn recall(message: String) -> Panicked {
    let latest = locked(&LATEST);
    let found = latest.iter().find(|panic| panic.message == message).cloned();
    found.unwrap_or_else(|| Panicked {
        message,
        place: "an unknown place".into(),
    })
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_string()
}

/// A source file's path without the folders in which this machine keeps its crates: `candle-core-0.11.1/src/tensor.rs`.
fn portable(file: &str) -> &str {
    if !file.starts_with(['/', '\\']) && !file.contains(':') {
        return file;
    }
    let crate_name = file.rfind("/src/").and_then(|end| file[..end].rfind('/'));
    crate_name.map_or(file, |slash| &file[slash + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_says_where_it_was() {
        assert_eq!(caught(|| 7), Ok(7));
        let line = line!() + 1;
        let panic = caught(|| panic!("seven of {}", 9)).unwrap_err();
        assert_eq!(panic.message, "seven of 9");
        assert!(panic.place.contains(&format!("src/panics.rs:{line}:")), "{panic}");
        // In a thread of rayon's pool, not the current one.
        let line = line!() + 1;
        let work = || -> ((), ()) { rayon::join(|| (), || assert!(rayon::current_num_threads() == 0, "eight")) };
        let panic = caught(work).unwrap_err();
        assert_eq!(panic.message, "eight");
        assert!(panic.place.contains(&format!("src/panics.rs:{line}:")), "{panic}");
    }

    #[test]
    fn places_are_the_same_on_every_machine() {
        for (file, expected) in [
            ("harness/src/run.rs", "harness/src/run.rs"),
            (
                "/home/a/.cargo/registry/src/index-1/rayon-1.12.0/src/join/mod.rs",
                "rayon-1.12.0/src/join/mod.rs",
            ),
            ("/rustc/0a1b/library/core/src/option.rs", "core/src/option.rs"),
            ("/elsewhere", "/elsewhere"),
        ] {
            assert_eq!(portable(file), expected);
        }
    }

    #[test]
    fn a_lock_outlives_a_panic() {
        let value = Mutex::new(7);
        let panic = caught(|| {
            let _held = locked(&value);
            panic!("while held");
        });
        assert!(panic.is_err() && value.is_poisoned());
        assert_eq!(*locked(&value), 7);
    }
}
