//! Where an image comes from: the git checkout that the build is called in, unless flags say otherwise.

use std::process::Command;

use attestation::statement::{Builder, Source};
use clap::Args;

use crate::output::Output;

/// Provenance given by hand.
#[derive(Args, Debug, Default)]
pub struct Given {
    /// Branch or tag that the image was built from.
    #[arg(long = "ref", value_name = "R")]
    pub reference: Option<String>,
    /// Repository that the image was built from.
    #[arg(long, value_name = "URL")]
    pub repository: Option<String>,
    /// Commit that the image was built from.
    #[arg(long, value_name = "SHA")]
    pub commit: Option<String>,
    /// Author of that commit.
    #[arg(long, value_name = "A")]
    pub author: Option<String>,
}

/// What is recorded: each flag wins over what git says, and what neither tells is empty ("as found").
pub fn source(given: &Given, output: Output) -> Source {
    // Flags that name another repository must not be completed from the checkout that happens to be here.
    let elsewhere = given.repository.is_some() || given.commit.is_some();
    let found = |arguments: &[&str]| if elsewhere { None } else { git(arguments) };
    let commit = found(&["rev-parse", "--verify", "HEAD"]);
    let in_checkout = commit.is_some();
    let repository = found(&["remote", "get-url", "origin"])
        .map(|url| without_credentials(&url))
        .or_else(|| {
            if in_checkout {
                found(&["rev-parse", "--show-toplevel"])
            } else {
                None
            }
        });
    let reference = found(&["symbolic-ref", "-q", "HEAD"]).or_else(|| {
        if in_checkout {
            found(&["describe", "--exact-match", "--tags"])
        } else {
            None
        }
    });
    let author = if in_checkout {
        found(&["log", "-1", "--format=%an <%ae>"])
    } else {
        None
    };
    if in_checkout && found(&["status", "--porcelain", "--untracked-files=no"]).is_some() {
        output.warn(
            "the git checkout has changes that are not committed; the image names its last commit",
        );
    }
    Source {
        repository: Some(given.repository.clone().or(repository).unwrap_or_default()),
        commit: Some(given.commit.clone().or(commit).unwrap_or_default()),
        r#ref: Some(given.reference.clone().or(reference).unwrap_or_default()),
        author: Some(given.author.clone().or(author).unwrap_or_default()),
    }
}

/// A tree that was found as it is: no commit is known.
pub fn none() -> Source {
    Source {
        repository: Some(String::new()),
        commit: Some(String::new()),
        r#ref: Some(String::new()),
        author: Some(String::new()),
    }
}

/// This program, and the command line it was given.
pub fn builder() -> Builder {
    let words: Vec<String> = std::env::args_os()
        .map(|word| quoted(&word.to_string_lossy()))
        .collect();
    Builder {
        name: "pristine".to_owned(),
        version: concat!(env!("CARGO_PKG_VERSION"), "+", env!("PRISTINE_COMMIT")).to_owned(),
        command: words.join(" "),
    }
}

/// One non-empty line that git answers, or nothing.
fn git(arguments: &[&str]) -> Option<String> {
    let answer = Command::new("git").args(arguments).output().ok()?;
    if !answer.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&answer.stdout)
        .lines()
        .next()?
        .trim()
        .to_owned();
    (!text.is_empty()).then_some(text)
}

/// A remote's URL without the user and password that some pipelines put in it: the statement is published.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let host_ends = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(host_ends);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_credentials, host)| host);
    format!("{scheme}://{host}{path}")
}

fn quoted(word: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_reach_a_statement() {
        assert_eq!(
            without_credentials("https://me:secret@example.org/r.git"),
            "https://example.org/r.git"
        );
        assert_eq!(
            without_credentials("https://example.org/a@b"),
            "https://example.org/a@b"
        );
        assert_eq!(
            without_credentials("git@example.org:r.git"),
            "git@example.org:r.git"
        );
    }

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("--epoch=3"), "--epoch=3");
        assert_eq!(quoted(""), "''");
    }
}
