//! `pristine image diff`: what changed between two images.

use std::path::PathBuf;

use attestation::entry::Line;
use attestation::path::ImagePath;
use clap::Args;
use serde::Serialize;

use super::file::{ImageFile, Lines};
use super::show::Shown;
use crate::exit::{Failure, Status};
use crate::output::Output;

/// Arguments of `image diff`.
#[derive(Args, Debug)]
pub struct Diff {
    /// The older image.
    a: PathBuf,
    /// The newer image.
    b: PathBuf,
}

#[derive(Serialize)]
struct Differences {
    from: Shown,
    to: Shown,
    differences: Vec<Change>,
}

/// One entry that is not the same on both sides.
#[derive(Serialize)]
pub struct Change {
    /// Where.
    pub path: ImagePath,
    /// The entry on the first side.
    pub expected: Option<Line>,
    /// The entry on the second side.
    pub found: Option<Line>,
    /// Names of what differs.
    pub fields: Vec<String>,
}

impl Change {
    /// A change from one line to the other.
    pub fn new(path: ImagePath, expected: Option<Line>, found: Option<Line>) -> Self {
        let (before, after) = (
            expected.as_ref().map(Line::entry),
            found.as_ref().map(Line::entry),
        );
        let fields = attestation::entry::fields(before.as_ref(), after.as_ref());
        Self {
            path,
            expected,
            found,
            fields,
        }
    }

    /// One line for people: `+` added, `-` removed, `~` changed.
    pub fn text(&self) -> String {
        let mark = match (&self.expected, &self.found) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        format!("{mark} {}  {}", self.path, self.fields.join(" "))
    }
}

/// Compares entry by entry; exit 1 where they differ.
pub fn run(arguments: &Diff, output: Output) -> Result<Status, Failure> {
    let (a, b) = (
        ImageFile::open(&arguments.a)?,
        ImageFile::open(&arguments.b)?,
    );
    let (from, to) = (Shown::of(&a)?, Shown::of(&b)?);
    let differences = compare(a.lines()?, b.lines()?)?;
    let status = if differences.is_empty() {
        Status::Clean
    } else {
        Status::NotSo
    };
    let all = Differences {
        from,
        to,
        differences,
    };
    if output.is_json() {
        output.document(&all)?;
        return Ok(status);
    }
    output.line(format_args!(
        "from  {}  {}",
        all.from.title(),
        all.from.commit()
    ))?;
    output.line(format_args!(
        "to    {}  {}",
        all.to.title(),
        all.to.commit()
    ))?;
    output.stream(|out| {
        all.differences
            .iter()
            .try_for_each(|change| writeln!(out, "{}", change.text()))
    })?;
    output.note(match all.differences.len() {
        0 => "no entry differs".to_owned(),
        1 => "1 entry differs".to_owned(),
        number => format!("{number} entries differ"),
    });
    Ok(status)
}

/// Both manifests are in the same order, so one pass over each is enough.
fn compare(mut a: Lines<'_>, mut b: Lines<'_>) -> Result<Vec<Change>, Failure> {
    let mut differences = Vec::new();
    let (mut left, mut right) = (a.advance()?, b.advance()?);
    loop {
        match (left, right) {
            (None, None) => return Ok(differences),
            (Some((path, line)), None) => {
                differences.push(Change::new(path, Some(line), None));
                (left, right) = (a.advance()?, None);
            }
            (None, Some((path, line))) => {
                differences.push(Change::new(path, None, Some(line)));
                (left, right) = (None, b.advance()?);
            }
            (Some(one), Some(other)) => match one.0.cmp(&other.0) {
                std::cmp::Ordering::Less => {
                    differences.push(Change::new(one.0, Some(one.1), None));
                    (left, right) = (a.advance()?, Some(other));
                }
                std::cmp::Ordering::Greater => {
                    differences.push(Change::new(other.0, None, Some(other.1)));
                    (left, right) = (Some(one), b.advance()?);
                }
                std::cmp::Ordering::Equal => {
                    if one.1 != other.1 {
                        differences.push(Change::new(one.0, Some(one.1), Some(other.1)));
                    }
                    (left, right) = (a.advance()?, b.advance()?);
                }
            },
        }
    }
}
