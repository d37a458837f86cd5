//! Rampart with the methods it ships with.

fn main() -> std::process::ExitCode {
    harness::Harness::new().main()
}
