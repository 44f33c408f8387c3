//! The `tomodelta` program: parses flags, runs a command, prints the error as one sentence, sets the exit code.

mod cli;
mod commands;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "see the function")]
    // SAFETY: nothing has run before that could have started a thread.
    unsafe {
        tomodelta::gpu::look_for_no_compositor();
    }
    tomodelta::allocator::tune(u64::MAX);
    tomodelta::io::hdf5::silence_guarded_panics();
    if let Err(error) = tomodelta::stop::listen() {
        eprintln!("signals end the program at once: {error}");
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version are no errors
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match commands::run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {}", in_words(&error));
            let code = error
                .downcast_ref::<tomodelta::Error>()
                .map_or(1, tomodelta::Error::exit_code);
            ExitCode::from(code)
        }
    }
}

/// An error with its causes, but for those that its text ends with already.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
