//! Candle's own threads, next to ours.

/// Keeps Candle's element-wise operations on the calling thread. Call it first thing in `main`: once
/// the process has a second thread it does nothing.
///
/// Candle 0.11 gives operations of 65,536 numbers and more to a pool whose threads wait by spinning.
/// Where several networks are at work at once, or the machine is shared, that wait costs more than the
/// operation. Our own operations do not use that pool. A user who sets `CANDLE_NUM_THREADS` decides otherwise.
#[expect(unsafe_code, reason = "Candle reads the setting from the environment alone")]
pub fn keep_candle_on_one_thread() {
    const SETTING: &str = "CANDLE_NUM_THREADS";
    // Where the threads cannot be counted, Candle keeps its ways.
    let threads = std::fs::read_dir("/proc/self/task").map_or(2, Iterator::count);
    if threads == 1 && std::env::var_os(SETTING).is_none() {
        // SAFETY: this is the only thread, so no other reads the environment.
        unsafe { std::env::set_var(SETTING, "1") };
    }
}
