//! What `up` prints: how to get in, then a line for each verdict and violation.

use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope, host};
use attestation::verdict::Verdict;
use pristine_collector::events::{Event, VerdictEvent};
use pristine_collector::violations::view::ViolationView;
use serde::Serialize;
use serde_json::{Value, json};

use super::left_out::Added;
use crate::exit::Failure;
use crate::output::{self, Colour, Output, plain};
use crate::violation;

/// Everything needed to get in.
#[derive(Serialize)]
pub struct Ready {
    /// Always `ready`.
    pub event: &'static str,
    /// The people's door.
    pub ops: String,
    /// The agents' door.
    pub agents: String,
    /// The joining door.
    pub join: String,
    /// Who signs in.
    pub user: String,
    /// With what; told once.
    pub password: Option<String>,
    /// A token for the API.
    pub token: String,
    /// With what the webhook is signed, where there is one.
    pub webhook_secret: Option<String>,
    /// The attested root.
    pub root: String,
    /// The node's id.
    pub node: String,
    /// The image in force.
    pub image: ImageTold,
    /// The rules that were added to its scope.
    pub added: Vec<Added>,
    /// Where something may be mounted.
    pub mounts: Vec<ImagePath>,
}

/// The image in force.
#[derive(Serialize)]
pub struct ImageTold {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its epoch.
    pub epoch: u64,
    /// SHA-256 of its statement's payload.
    pub sha256: String,
    /// Its manifest's file.
    pub file: String,
}

/// Tells how to get in.
pub fn ready(ready: &Ready, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.record(ready);
    }
    let mut rows = vec![
        vec![
            "image".to_owned(),
            plain(&format!(
                "{} {} (epoch {})",
                ready.image.name, ready.image.version, ready.image.epoch
            )),
        ],
        vec!["page".to_owned(), ready.ops.clone()],
        vec!["agents".to_owned(), ready.agents.clone()],
        vec!["join".to_owned(), ready.join.clone()],
        vec!["user".to_owned(), plain(&ready.user)],
    ];
    let mut row = |what: &str, text: String| rows.push(vec![what.to_owned(), text]);
    match &ready.password {
        Some(password) => row("password", format!("{password}   (shown only now)")),
        None => row("password", "as shown at the first start".to_owned()),
    }
    row("token", format!("{}   (for the API)", ready.token));
    if let Some(secret) = &ready.webhook_secret {
        row("webhook secret", secret.clone());
    }
    output.line(format_args!(
        "\npristine is up: {} is attested\n{}\n",
        plain(&ready.root),
        output::table(&rows)
    ))?;
    output.note("Ctrl-C ends it; started again it goes on with the same keys, image and history.");
    Ok(())
}

/// Tells what the image leaves out: by its scope, by rules that were added, and under mounts.
pub fn left_out(
    scope: &Scope,
    is_host: bool,
    added: &[Added],
    mounts: &[ImagePath],
    output: Output,
) -> Result<(), Failure> {
    let mut lines = Vec::new();
    if scope.rules().len() > added.len() {
        let number = |expect| {
            scope
                .rules()
                .iter()
                .filter(|rule| rule.expect == expect)
                .count()
        };
        let ignored = number(Expect::Ignored).saturating_sub(added.len());
        let name = if is_host { "scope `host`" } else { "scope" };
        lines.push(format!(
            "{name}: sealed, but for {} rules (own to each machine), {} (may grow) and {ignored} (not attested){}",
            number(Expect::Local),
            number(Expect::Growing),
            if is_host && !output.is_verbose() { "; `pristine up --help` says more, -v lists them" } else { "" },
        ));
        if is_host && output.is_verbose() {
            lines.extend(host::rules().iter().map(|one| {
                format!(
                    "  {:<8}{}  ({})",
                    word(one.rule.expect),
                    one.rule.r#match,
                    one.reason
                )
            }));
        }
    }
    lines.extend(
        added
            .iter()
            .map(|one| format!("left out: {}  ({})", one.r#match, plain(&one.reason))),
    );
    lines.extend(
        mounts
            .iter()
            .map(|mount| format!("mount expected: {mount}")),
    );
    lines.into_iter().try_for_each(|line| remark(line, output))
}

/// A line for people on standard output; with JSON there only objects are.
pub fn remark(line: String, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        output.note(line);
        return Ok(());
    }
    if output.is_quiet() {
        Ok(())
    } else {
        output.line(line)
    }
}

fn word(expect: Expect) -> &'static str {
    match expect {
        Expect::Sealed => "sealed",
        Expect::Local => "local",
        Expect::Growing => "growing",
        Expect::Ignored => "ignored",
    }
}

/// One line for a verdict or a violation; nothing for other events.
pub fn event(event: &Event, output: Output) -> Result<(), Failure> {
    match event {
        Event::Node(_) | Event::Session(_) | Event::Change(_) => Ok(()),
        Event::Verdict(VerdictEvent { verdict: None, .. }) => Ok(()),
        Event::Verdict(told) => verdict_line(told, output),
        Event::Violation(told) if output.is_json() => output.record(&with_event(told)),
        Event::Violation(told) => output.line(violation_text(told, output)),
    }
}

/// One line for a verdict.
pub fn verdict_line(told: &VerdictEvent, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.record(&json!({
            "event": "verdict", "node": told.node, "name": told.name, "verdict": told.verdict, "was": told.was,
            "reasons": told.reasons, "at": told.at, "sequence": told.sequence,
        }));
    }
    let Some(verdict) = told.verdict else {
        return Ok(());
    };
    let colour = match verdict {
        Verdict::Pristine => Colour::Good,
        Verdict::Incomplete => Colour::Unsure,
        _ => Colour::Bad,
    };
    let reasons = if told.reasons.is_empty() {
        String::new()
    } else {
        format!("  {}", plain(&told.reasons.join(", ")))
    };
    output.line(format_args!(
        "{}  {}  {}{reasons}",
        told.at,
        output.paint(colour, verdict.as_str()),
        plain(&told.name)
    ))
}

fn with_event(told: &ViolationView) -> Value {
    let mut object = serde_json::to_value(told).unwrap_or_default();
    if let Some(fields) = object.as_object_mut() {
        fields.insert("event".to_owned(), "violation".into());
    }
    object
}

fn violation_text(told: &ViolationView, output: Output) -> String {
    let object = serde_json::to_value(told).unwrap_or_default();
    let step = if told.resolved.is_some() {
        output.paint(Colour::Good, "resolved")
    } else {
        output.paint(Colour::Bad, "violation")
    };
    let mut parts = vec![
        told.resolved.unwrap_or(told.updated).to_string(),
        step,
        client_word(&object, "severity"),
        client_word(&object, "kind"),
    ];
    parts.extend(told.path.as_deref().map(plain));
    parts.push(violation::fields(&object));
    let actor = violation::actor(&object);
    if !actor.is_empty() && told.resolved.is_none() {
        parts.push(format!("by {actor}"));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("  ")
}

fn client_word(object: &Value, name: &str) -> String {
    crate::client::text_of(object, &format!("/{name}"))
}
