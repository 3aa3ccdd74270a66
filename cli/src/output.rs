//! Where results and remarks go: results on standard output as text or JSON, everything else on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one document, or one object a line for streams.
    Json,
}

/// A colour of a word in a text result.
#[derive(Clone, Copy, Debug)]
pub enum Colour {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Not known.
    Unsure,
}

/// The two streams, and how much is said on them.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
    quiet: bool,
    verbose: bool,
    colour: bool,
    progress: bool,
}

impl Output {
    /// Looks once at the terminal and at `NO_COLOR`.
    pub fn new(format: Format, quiet: bool, verbose: bool) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            format,
            quiet,
            verbose,
            colour: !no_colour && io::stdout().is_terminal(),
            progress: !quiet && io::stderr().is_terminal(),
        }
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether more than the usual is asked for.
    pub const fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Whether remarks are wanted at all.
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether a moving bar can be drawn on standard error.
    pub const fn draws_progress(&self) -> bool {
        self.progress
    }

    /// One JSON document, indented, for a command that answers once.
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new("cannot write the result as JSON").because(&error))?;
        self.line(text)
    }

    /// One JSON object on one line, for a stream.
    pub fn record(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new("cannot write the result as JSON").because(&error))?;
        self.line(text)
    }

    /// One line of a result.
    pub fn line(&self, text: impl Display) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .map_err(|error| unwritten(&error))
    }

    /// A result of many bytes, buffered: `write` gets the stream.
    pub fn stream(
        &self,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut stdout = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
        write(&mut stdout)
            .and_then(|()| stdout.flush())
            .map_err(|error| unwritten(&error))
    }

    /// A remark that `-q` silences.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            say(&text);
        }
    }

    /// A remark that only `-v` asks for.
    pub fn detail(&self, text: impl Display) {
        if self.verbose && !self.quiet {
            say(&text);
        }
    }

    /// A remark that is always made.
    pub fn warn(&self, text: impl Display) {
        say(&format_args!("warning: {text}"));
    }

    /// Whether log lines on standard error may be coloured: it is a terminal, and nobody asked for none.
    pub fn logs_in_colour(&self) -> bool {
        std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && io::stderr().is_terminal()
    }

    /// A word in colour, where the terminal shows colours.
    pub fn paint(&self, colour: Colour, word: &str) -> String {
        if !self.colour {
            return word.to_owned();
        }
        let code = match colour {
            Colour::Good => 32,
            Colour::Bad => 31,
            Colour::Unsure => 33,
        };
        format!("\u{1b}[{code}m{word}\u{1b}[0m")
    }
}

/// Rows with their columns aligned, the first row being the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}", width = *width))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Text from elsewhere made harmless for a terminal: names and command lines can hold escape sequences.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let hostile = character.is_control()
                || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let shown: Vec<char> = if hostile { character.escape_unicode().collect() } else { vec![character] };
            shown
        })
        .collect()
}

/// A count of bytes for people.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A count with separators for people.
pub fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

fn say(text: &dyn Display) {
    // Nothing can be told when standard error itself is gone.
    let _written = writeln!(io::stderr().lock(), "{text}");
}

fn unwritten(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::unheard();
    }
    Failure::io("cannot write to standard output", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["ID".to_owned(), "NAME".to_owned()],
            vec!["1234".to_owned(), "a".to_owned()],
        ];
        assert_eq!(table(&rows), "ID    NAME\n1234  a");
    }

    #[test]
    fn escape_sequences_and_direction_marks_are_shown_not_obeyed() {
        assert_eq!(plain("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(plain("größe"), "größe");
    }
}
