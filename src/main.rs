//! The program `minilm`: see `minilm --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
