//! Is this node ready: what the kernel, the privileges, the collector and the service give, one finding a line, each that
//! is not as it should be with what to do about it. Everything is found by trying, nothing by version.

mod kernel;
mod network;
mod node;
mod service;

use std::path::Path;

use serde::Serialize;

use crate::config::{AgentSettings, ConfigError};
use crate::transport::Network;

/// How a finding bears on the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// The agent works, and sees or protects less; it says so in what it attests.
    Limit,
    /// The agent does not work.
    Fail,
    /// Nothing could be found out.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What; a stable word.
    pub name: String,
    /// How it is.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self::of(name, Grade::Ok, found, None)
    }

    fn limit(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::of(name, Grade::Limit, found, Some(remedy.into()))
    }

    fn fail(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::of(name, Grade::Fail, found, Some(remedy.into()))
    }

    fn unknown(name: &str, found: impl Into<String>) -> Self {
        Self::of(name, Grade::Unknown, found, None)
    }

    fn of(name: &str, grade: Grade, found: impl Into<String>, remedy: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            grade,
            found: found.into(),
            remedy,
        }
    }
}

/// All findings.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether nothing failed.
    pub ready: bool,
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
}

/// Looks at everything. A configuration that is refused is a finding; the rest is then looked at with the defaults.
pub async fn check(
    config: Option<&Path>,
    settings: Result<AgentSettings, ConfigError>,
    defaults: AgentSettings,
    network: &Network,
) -> Report {
    let mut findings = vec![node::configuration(config, settings.as_ref())];
    let settings = settings.unwrap_or(defaults);
    findings.extend(node::permissions(config));
    findings.push(node::privileges());
    findings.push(node::root(&settings.root));
    findings.push(node::state(&settings.state));
    findings.extend(kernel::watch(&settings.root));
    findings.extend(kernel::features(&settings.root));
    findings.push(kernel::login_uids());
    match node::identity(&settings) {
        Ok((held, finding)) => {
            findings.push(finding);
            findings.extend(Box::pin(network::look(&settings, held, network)).await);
        }
        Err(finding) => findings.push(finding),
    }
    findings.extend(service::look(&settings.state).await);
    Report {
        ready: findings.iter().all(|finding| finding.grade != Grade::Fail),
        findings,
    }
}

/// The report for people.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        let grade = match finding.grade {
            Grade::Ok => "ok",
            Grade::Limit => "limit",
            Grade::Fail => "FAIL",
            Grade::Unknown => "?",
        };
        let remedy = finding.remedy.as_ref();
        let remedy = remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
        let (name, found) = (&finding.name, &finding.found);
        out.push_str(&format!("{grade:<6}{name:<18}{found}{remedy}\n"));
    }
    let count = |grade| report.findings.iter().filter(|f| f.grade == grade).count();
    let (limits, fails) = (count(Grade::Limit), count(Grade::Fail));
    out.push_str(&match (report.ready, limits) {
        (true, 0) => "this node is ready\n".to_owned(),
        (true, _) => format!("this node is ready, with {limits} limits\n"),
        (false, _) => format!("this node is not ready: {fails} failed, {limits} limits\n"),
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_with_its_remedy() {
        let report = Report {
            ready: false,
            findings: vec![
                Finding::ok("watch", "rung A"),
                Finding::fail("identity", "none", "enrol"),
            ],
        };
        assert_eq!(
            text(&report),
            "ok    watch             rung A\nFAIL  identity          none; enrol\n\
             this node is not ready: 1 failed, 0 limits\n"
        );
    }
}
