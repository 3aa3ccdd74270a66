//! How a command ends: the exit codes of the contract, and the one shape of an error message (what, why, what to do).

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;
use std::process::ExitCode;

/// How a command that ran to its end came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Status {
    /// Done, and what was asked is so.
    Clean,
    /// Done, and what was asked is not so: drift found, a signature that does not verify.
    NotSo,
    /// The result is printed, but it is not whole: something could not be read.
    NotWhole,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(match status {
            Status::Clean => 0,
            Status::NotSo => 1,
            Status::NotWhole => 2,
        })
    }
}

/// Why a command did not run to its end, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Done, and what was asked is not so.
    NotSo,
    /// Could not be done.
    NotDone,
    /// The command line asks for something that makes no sense.
    Usage,
    /// The caller may not do this.
    Permission,
    /// A configuration, scope or keyring file is wrong.
    Configuration,
    /// Whoever read our output has gone: nobody is left to be told.
    Unheard,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(match code {
            Code::NotSo => 1,
            Code::NotDone | Code::Unheard => 2,
            Code::Usage => 64,
            Code::Permission => 77,
            Code::Configuration => 78,
        })
    }
}

/// What went wrong, why, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    what: String,
    why: Option<String>,
    remedy: Option<String>,
}

impl Failure {
    /// Something that could not be done; `what` is a sentence without a full stop.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            code: Code::NotDone,
            what: what.into(),
            why: None,
            remedy: None,
        }
    }

    /// A command line that makes no sense.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(what).code(Code::Usage)
    }

    /// A failed system call; a refusal by the system becomes the permission code.
    pub fn io(what: impl Into<String>, error: &io::Error) -> Self {
        let failure = Self::new(what).why(error.to_string());
        match error.kind() {
            io::ErrorKind::PermissionDenied => failure.code(Code::Permission),
            _ => failure,
        }
    }

    /// Nobody reads our output any more.
    pub fn unheard() -> Self {
        Self::new("standard output was closed").code(Code::Unheard)
    }

    /// The reason in words.
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// The reason as an error with all its causes.
    pub fn because(self, error: &(dyn Error + 'static)) -> Self {
        let (chain, refused) = chain(error);
        let failure = self.why(chain);
        if refused && failure.code == Code::NotDone {
            failure.code(Code::Permission)
        } else {
            failure
        }
    }

    /// What to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Another exit code.
    pub const fn code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        if let Some(why) = &self.why {
            write!(formatter, ": {why}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(formatter, "\n  {remedy}")?;
        }
        Ok(())
    }
}

/// The error and its causes in one line, and whether the system refused it somewhere on the way.
fn chain(error: &(dyn Error + 'static)) -> (String, bool) {
    let mut text = error.to_string();
    let mut refused = is_refusal(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let shown = cause.to_string();
        if !text.ends_with(&shown) {
            // Writing to a string cannot fail.
            let _written = write!(text, ": {shown}");
        }
        refused |= is_refusal(cause);
        next = cause.source();
    }
    (text, refused)
}

fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|found| found.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let failure = Failure::new("cannot read KEY")
            .why("no such file")
            .remedy("make one with `pristine key generate`");
        assert_eq!(
            failure.to_string(),
            "cannot read KEY: no such file\n  make one with `pristine key generate`"
        );
    }

    #[test]
    fn a_refusal_by_the_system_is_a_permission_failure() {
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(Failure::io("cannot write", &refused).code, Code::Permission);
        assert_eq!(
            Failure::new("cannot write").because(&refused).code,
            Code::Permission
        );
    }
}
