//! Rampart with the methods it ships with.

fn main() -> std::process::ExitCode {
    harness::main(harness::Methods::builtin())
}
