//! `pristine image export`: an image for other tools.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use attestation::entry::{Entry, Kind, Line};
use attestation::path::ImagePath;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::file::ImageFile;
use super::show::another_manifest;
use crate::exit::{Failure, Status};
use crate::output::Output;

/// Arguments of `image export`.
#[derive(Args, Debug)]
pub struct Export {
    /// The manifest.
    file: PathBuf,
    /// For whom.
    #[arg(long = "as", value_enum, value_name = "FORMAT")]
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// For `mtree -p ROOT -f SPEC` (NetBSD's) and `bsdtar -tvf SPEC`; without extended attributes and inode flags.
    Mtree,
    /// One document: every entry with its fields.
    Json,
    /// For `sha256sum -c`, called in the root.
    Sha256sum,
}

/// Writes the whole image to standard output.
pub fn run(arguments: &Export, output: Output) -> Result<Status, Failure> {
    let image = ImageFile::open(&arguments.file)?;
    let contents = image.contents()?;
    if let Some(reason) = image
        .says
        .as_ref()
        .and_then(|says| image.mismatch(says, &contents))
    {
        return Err(another_manifest(&image, &reason));
    }
    let mut lines = image.lines()?;
    let mut lossy = 0_u64;
    let mut parents = Parents::default();
    let mut failure = None;
    output.stream(|out| {
        let mut first = true;
        match arguments.target {
            Target::Mtree => out.write_all(b"#mtree\n")?,
            Target::Json => write!(out, "{{\"tree\":\"{}\",\"entries\":[", contents.facts.tree)?,
            Target::Sha256sum => {}
        }
        loop {
            let line = match lines.advance() {
                Ok(Some((_path, line))) => line,
                Ok(None) => break,
                Err(broken) => {
                    failure = Some(broken);
                    return Ok(());
                }
            };
            match arguments.target {
                Target::Mtree => {
                    parents.add_missing(out, &line.path())?;
                    lossy += u64::from(write_mtree(out, &line)?);
                }
                Target::Json => {
                    out.write_all(if first { b"\n" } else { b",\n" })?;
                    serde_json::to_writer(&mut *out, &fields(&line.entry()))?;
                }
                Target::Sha256sum => write_checksum(out, &line.entry())?,
            }
            first = false;
        }
        if arguments.target == Target::Json {
            out.write_all(b"\n]}\n")
        } else {
            Ok(())
        }
    })?;
    if let Some(broken) = failure {
        return Err(broken);
    }
    if lossy > 0 {
        let entries = if lossy == 1 {
            "1 entry".to_owned()
        } else {
            format!("{lossy} entries")
        };
        output.note(format_args!(
            "{entries} lost extended attributes or inode flags, which this format cannot hold"
        ));
    }
    Ok(Status::Clean)
}

/// NetBSD's mtree wants every directory on the way to an entry to be there before it; a scope can leave one out.
#[derive(Default)]
struct Parents {
    /// The directory written last, and those above it: an ordered walk needs no more.
    open: Vec<ImagePath>,
}

impl Parents {
    fn add_missing(&mut self, out: &mut dyn Write, path: &ImagePath) -> io::Result<()> {
        self.open.retain(|open| path.starts_with(open));
        let mut missing = Vec::new();
        let mut next = path.parent();
        while let Some(parent) = next {
            if self.open.contains(&parent) {
                break;
            }
            next = parent.parent();
            missing.push(parent);
        }
        for parent in missing.into_iter().rev() {
            writeln!(out, "{parent} type=dir")?;
            self.open.push(parent);
        }
        self.open.push(path.clone());
        Ok(())
    }
}

/// The line without what other tools refuse; tells whether something was left out.
fn write_mtree(out: &mut dyn Write, line: &Line) -> io::Result<bool> {
    let mut lost = false;
    for (index, word) in line.as_str().split(' ').enumerate() {
        if word.starts_with("xattr.") || word.starts_with("flags=") {
            lost = true;
            continue;
        }
        if index > 0 {
            out.write_all(b" ")?;
        }
        out.write_all(word.as_bytes())?;
    }
    out.write_all(b"\n")?;
    Ok(lost)
}

/// A file as `sha256sum` writes it: raw names, and the three bytes that it escapes escaped its way.
fn write_checksum(out: &mut dyn Write, entry: &Entry) -> io::Result<()> {
    let Kind::File {
        sha256: Some(digest),
        ..
    } = &entry.kind
    else {
        return Ok(());
    };
    let raw = entry.path.as_bytes();
    let needs_escape = raw.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r'));
    if needs_escape {
        out.write_all(b"\\")?;
    }
    write!(out, "{digest}  ./")?;
    for byte in raw {
        match byte {
            b'\\' => out.write_all(b"\\\\")?,
            b'\n' => out.write_all(b"\\n")?,
            b'\r' => out.write_all(b"\\r")?,
            other => out.write_all(&[*other])?,
        }
    }
    out.write_all(b"\n")
}

/// An entry as an object, by the names of the keywords; numbers stay numbers.
fn fields(entry: &Entry) -> Value {
    let mut line = Vec::new();
    entry.write_line(&mut line);
    let text = String::from_utf8_lossy(&line).into_owned();
    let mut object = Map::new();
    let mut attributes: BTreeMap<String, Value> = BTreeMap::new();
    for (index, word) in text.split(' ').enumerate() {
        if index == 0 {
            object.insert("path".to_owned(), word.into());
            continue;
        }
        let Some((name, value)) = word.split_once('=') else {
            continue;
        };
        if let Some(attribute) = name.strip_prefix("xattr.") {
            attributes.insert(attribute.to_owned(), value.into());
            continue;
        }
        let value = match name {
            "uid" | "gid" | "size" => value
                .parse::<u64>()
                .map_or_else(|_| value.into(), Value::from),
            _ => value.into(),
        };
        object.insert(name.to_owned(), value);
    }
    if !attributes.is_empty() {
        object.insert(
            "xattr".to_owned(),
            attributes.into_iter().collect::<Map<_, _>>().into(),
        );
    }
    Value::Object(object)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn file(path: &str, rest: &str) -> Line {
        Line::parse(&format!(
            "{path} type=file mode=0644 uid=0 gid=0 {rest}size=0 sha256digest={HASH}"
        ))
        .unwrap()
    }

    #[test]
    fn checksums_escape_as_coreutils_does() {
        let mut out = Vec::new();
        write_checksum(&mut out, &file("./a\\012b\\134c", "").entry()).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("\\{HASH}  ./a\\nb\\\\c\n")
        );
    }

    #[test]
    fn flags_are_left_out_and_counted() {
        let mut out = Vec::new();
        assert!(write_mtree(&mut out, &file("./a", "flags=schg ")).unwrap());
        assert!(!String::from_utf8(out).unwrap().contains("flags"));
    }

    #[test]
    fn missing_parents_are_added_once() {
        let mut out = Vec::new();
        let mut parents = Parents::default();
        for path in ["./a/b/c", "./a/b/d", "./e"] {
            parents
                .add_missing(&mut out, &ImagePath::parse(path).unwrap())
                .unwrap();
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            ". type=dir\n./a type=dir\n./a/b type=dir\n"
        );
    }
}
