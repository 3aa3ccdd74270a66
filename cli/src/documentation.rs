//! `pristine documentation`: man pages and completions of the three programs, made from the programs themselves, for
//! whoever packages them. Hidden: on a machine with the packages they are there already.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::command::Cli;
use crate::exit::{Failure, Status};
use crate::output::Output;

/// Arguments of `documentation`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  pristine documentation ./documentation")]
pub struct Documentation {
    /// Where `man`, `bash`, `zsh` and `fish` are made; those of earlier calls are replaced.
    folder: PathBuf,
}

/// A program as its pages show it.
struct Program {
    command: Command,
    /// Of the manual: 1 for everybody's commands, 8 for those of who runs a machine.
    section: &'static str,
    /// What it reads and keeps where nobody says otherwise.
    files: &'static [(&'static str, &'static str)],
}

fn programs() -> [Program; 3] {
    [
        Program {
            command: Cli::command(),
            section: "1",
            files: &[
                (
                    "~/.config/pristine/keyring.json",
                    "the collector that `pristine login` signed in to, and its token",
                ),
                ("/var/lib/pristine/up", "the state of `pristine up`"),
            ],
        },
        Program {
            command: pristine_agent::command::Arguments::command(),
            section: "8",
            files: &[
                ("/etc/pristine/agent.toml", "the configuration"),
                (
                    "/etc/pristine/join-token",
                    "a join token that pristine-agent-enroll.service joins with, and wipes",
                ),
                (
                    "/var/lib/pristine/agent",
                    "key, identity, certificate, spool, index",
                ),
            ],
        },
        Program {
            command: pristine_collector::program::Program::command(),
            section: "8",
            files: &[
                ("/etc/pristine/collector.toml", "the configuration"),
                (
                    "/var/lib/pristine/collector",
                    "keys, authorities, store, manifests",
                ),
            ],
        },
    ]
}

/// Writes all of it.
pub fn run(arguments: &Documentation, output: Output) -> Result<Status, Failure> {
    let written = write_all(&arguments.folder).map_err(|error| {
        Failure::io(
            format!("cannot write to {}", arguments.folder.display()),
            &error,
        )
    })?;
    output.note(format_args!(
        "{written} files in {}",
        arguments.folder.display()
    ));
    Ok(Status::Clean)
}

fn write_all(folder: &Path) -> io::Result<usize> {
    let mut written = 0;
    let mut write = |kind: &str, name: String, content: &[u8]| {
        let folder = folder.join(kind);
        fs::create_dir_all(&folder)?;
        written += 1;
        fs::write(folder.join(name), content)
    };
    for program in programs() {
        let name = program.command.get_name().to_owned();
        for (kind, shell, file) in [
            ("bash", Shell::Bash, name.clone()),
            ("zsh", Shell::Zsh, format!("_{name}")),
            ("fish", Shell::Fish, format!("{name}.fish")),
        ] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program.command.clone(), &name, &mut script);
            write(kind, file, &script)?;
        }
        for (file, page) in pages(&program)? {
            write("man", file, &page)?;
        }
    }
    Ok(written)
}

/// The page of a program and of each of its commands, with their file names.
fn pages(program: &Program) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut top = program.command.clone().disable_help_subcommand(true);
    top.build();
    let mut pages = Vec::new();
    let mut waiting = vec![(top, None)];
    while let Some((command, above)) = waiting.pop() {
        let name = shown(&command);
        let below = command.get_subcommands().filter(|one| !one.is_hide_set());
        waiting.extend(below.map(|one| (one.clone(), Some(name.clone()))));
        let page = page(program, &command, above.as_deref())?;
        pages.push((format!("{name}.{}", program.section), page));
    }
    Ok(pages)
}

/// `pristine-image-build` of `pristine image build`.
fn shown(command: &Command) -> String {
    let name = command.get_display_name();
    name.unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(program: &Program, command: &Command, above: Option<&str>) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .section(program.section)
        .source(format!("Pristine {}", env!("CARGO_PKG_VERSION")))
        .manual("Pristine");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|one| !one.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.get_subcommands().any(|one| !one.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(help) = command.get_after_help() {
        examples(&mut page, &help.to_string())?;
    }
    match above {
        None => {
            if program.section == "8" {
                heading(&mut page, "EXIT STATUS")?;
                writeln!(page, "{EXIT_STATUS}")?;
            }
            heading(&mut page, "FILES")?;
            for (path, what) in program.files {
                writeln!(page, ".TP\n\\fI{}\\fR\n{}", escaped(path), escaped(what))?;
            }
        }
        Some(above) => {
            heading(&mut page, "SEE ALSO")?;
            writeln!(page, "\\fB{}\\fR({})", escaped(above), program.section)?;
        }
    }
    Ok(page)
}

/// What the help of `pristine` says of its own codes.
const EXIT_STATUS: &str = "0 done and clean; 1 done, and what was asked is not so; 2 could not be done; 64 usage; \
    77 permission; 78 configuration.";

fn heading(page: &mut Vec<u8>, text: &str) -> io::Result<()> {
    writeln!(page, ".SH \"{text}\"")
}

/// The text after a command's options: what is indented there is to be typed, line by line.
fn examples(page: &mut Vec<u8>, help: &str) -> io::Result<()> {
    heading(page, "EXAMPLES")?;
    for line in help.lines() {
        // Some commands have theirs in the same line.
        let line = line
            .strip_prefix("Example: ")
            .map_or_else(|| line.to_owned(), |typed| format!("  {typed}"));
        match line.strip_prefix("  ") {
            Some(typed) => writeln!(page, ".EX\n.RS 4\n{}\n.RE\n.EE", escaped(typed))?,
            None if matches!(line.as_str(), "" | "Example:" | "Examples:") => {}
            None => writeln!(page, ".PP\n{}", escaped(&line))?,
        }
    }
    Ok(())
}

/// Text that troff prints as it is.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    /// Each command that people see, by its words.
    fn commands(command: &Command, above: &str, found: &mut Vec<String>) {
        let name = format!("{above}{}", command.get_name());
        for below in command.get_subcommands() {
            if !below.is_hide_set() && below.get_name() != "help" {
                commands(below, &format!("{name}-"), found);
            }
        }
        found.push(name);
    }

    #[test]
    fn every_command_has_a_page_and_no_hidden_one() {
        for program in programs() {
            let pages = pages(&program).unwrap();
            let mut wanted = Vec::new();
            commands(&program.command, "", &mut wanted);
            let mut made: Vec<&str> = pages.iter().map(|(file, _)| file.as_str()).collect();
            let mut wanted: Vec<String> = wanted
                .into_iter()
                .map(|name| format!("{name}.{}", program.section))
                .collect();
            made.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(made, wanted);
            for (file, page) in &pages {
                let page = String::from_utf8_lossy(page);
                assert!(page.starts_with(".ie") || page.contains(".TH"), "{file}");
                assert!(
                    page.contains("EXAMPLES") || page.contains("SUBCOMMANDS"),
                    "{file} has neither examples nor commands"
                );
            }
        }
    }

    #[test]
    fn a_line_that_troff_would_take_for_its_own_is_not() {
        assert_eq!(escaped(".hidden --all \\x"), "\\&.hidden \\-\\-all \\ex");
        let mut page = Vec::new();
        examples(&mut page, "Example: pristine-agent run").unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(
            page.contains(".EX\n.RS 4\npristine\\-agent run\n"),
            "{page}"
        );
    }

    #[test]
    fn there_is_completion_for_each_shell() {
        let scratch = tempfile::tempdir().unwrap();
        write_all(scratch.path()).unwrap();
        for file in [
            "bash/pristine-agent",
            "zsh/_pristine-collector",
            "fish/pristine.fish",
            "man/pristine-image-build.1",
            "man/pristine-agent-enroll.8",
        ] {
            let length = fs::metadata(scratch.path().join(file)).unwrap().len();
            assert!(length > 100, "{file}");
        }
    }
}
