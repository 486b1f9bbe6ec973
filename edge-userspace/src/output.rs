//! Standard output that ends where its reader ends: `edge validate | head` is no accident.
//!
//! The macros take the place of the standard library's, which panic when nobody reads any more.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};
use std::process;

/// What a shell reports of a program that SIGPIPE (13) ended, as others end here.
const ENDED_BY_PIPE: i32 = 128 + 13;

/// Writes to standard output. Ends the program when it cannot be written to.
pub(crate) fn write(text: Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    if let Err(error) = output.write_fmt(text) {
        if error.kind() == ErrorKind::BrokenPipe {
            process::exit(ENDED_BY_PIPE);
        }
        eprintln!("error: cannot write to standard output: {error}");
        process::exit(1);
    }
}

macro_rules! print {
    ($($text:tt)*) => {
        $crate::output::write(format_args!($($text)*))
    };
}

macro_rules! println {
    () => {
        $crate::output::write(format_args!("\n"))
    };
    ($($text:tt)*) => {
        $crate::output::write(format_args!("{}\n", format_args!($($text)*)))
    };
}
