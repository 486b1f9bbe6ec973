//! `edge`: wiring only. The rooms of the program are the crates beside this one.
#![forbid(unsafe_code)]

#[macro_use]
mod output;

mod admin;
mod app;
mod cli;
mod config;
mod doctor;
mod dump;
mod events;
mod explain;
mod failure;
mod flows;
mod logging;
mod metrics;
mod routes;
mod status;
mod tree;
mod validate;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Cli, Command, Explain};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            // Nothing is left to be told where the terminal itself is gone.
            let _ = error.print();
            return if wrong {
                ExitCode::from(Failure::WRONG_INPUT)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => {
            logging::init(args.log_format);
            runtime()?.block_on(app::run(&args))
        }
        Command::Validate(args) => validate::run(&args),
        Command::Explain(Explain::Request(args)) => explain::request::run(&args),
        Command::Explain(Explain::Config(args)) => explain::config::run(&args),
        Command::Explain(Explain::Packets(args)) => explain::packets::run(&args),
        Command::Explain(Explain::Reasons(args)) => explain::reasons::run(&args),
        Command::Routes(args) => routes::run(&args),
        Command::Status(args) => runtime()?
            .block_on(status::run(&args))
            .map_err(Failure::CannotBeDone),
        Command::Events(args) => runtime()?
            .block_on(events::follow(&args))
            .map_err(Failure::CannotBeDone),
        Command::Capture(args) => runtime()?
            .block_on(events::capture(&args))
            .map_err(Failure::CannotBeDone),
        Command::Doctor(args) => runtime()?.block_on(doctor::run(&args)),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "edge", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// The runtime of everything but requests, which have one for each worker.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::CannotBeDone(error.into()))
}
