//! The binary.
fn main() -> std::process::ExitCode {
    rejoin::cli::main()
}
