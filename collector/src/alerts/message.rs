//! What is told, before any channel's own form: a headline, facts, a link. Names and contents are hostile text: what would hide,
//! reorder or break a line is written out here, once; markup is each channel's own concern.

use attestation::statement::Actor;
use attestation::time::Timestamp;

use crate::violations::view::{Kind, Severity, Step, ViolationView};
use crate::web::text;

/// Characters of a headline: a mail's subject and a phone's notification show less.
const HEADLINE: usize = 160;
/// Characters of one fact.
const FACT: usize = 400;
/// Nodes that are named; the others are counted.
pub(super) const NAMED: u32 = 10;

/// On how many nodes the same was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// In this message.
    pub count: u64,
    /// In messages before it, within the same window.
    pub told: u64,
    /// Names of some.
    pub named: Vec<String>,
}

impl Nodes {
    /// One alone.
    pub fn one(name: &str) -> Self {
        Self {
            count: 1,
            told: 0,
            named: vec![name.to_owned()],
        }
    }

    fn place(&self) -> String {
        let total = self.count.saturating_add(self.told);
        match self.named.as_slice() {
            [only] if total <= 1 => only.clone(),
            _ => text::counted(total, "node", "nodes"),
        }
    }

    /// The names, and how many more there are.
    pub(super) fn listed(&self) -> String {
        let more = self
            .count
            .saturating_sub(u64::try_from(self.named.len()).unwrap_or(u64::MAX));
        let names = self.named.join(", ");
        match (more, self.told) {
            (0, 0) => names,
            (more, 0) => format!("{names} and {more} more"),
            (0, told) => format!("{names}; {told} told before"),
            (more, told) => format!("{names} and {more} more; {told} told before"),
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The same at a second delivery.
    pub id: String,
    /// One line.
    pub headline: String,
    /// Names and values, one line each.
    pub facts: Vec<(&'static str, String)>,
    /// Our own address of it.
    pub link: String,
    /// Of the violation, or of the test.
    pub at: Timestamp,
}

impl Message {
    /// A step of a violation, on one or many nodes. `pages` is where the pages begin.
    pub fn of(id: &str, violation: &ViolationView, step: Step, nodes: &Nodes, pages: &str) -> Self {
        Self {
            id: id.to_owned(),
            headline: headline(violation, step, nodes),
            facts: facts(violation, step, nodes),
            link: format!("{pages}/violations/{}", violation.id),
            at: violation.updated,
        }
    }

    /// Somebody tries a channel.
    pub fn test(id: &str, channel: &str, by: &str, pages: &str, at: Timestamp) -> Self {
        Self {
            id: id.to_owned(),
            headline: quiet(&format!("test: the channel {channel} works"), HEADLINE),
            facts: vec![
                ("Asked for by", quiet(by, FACT)),
                ("What to do", "nothing: this is a test message".to_owned()),
            ],
            link: format!("{pages}/alerts"),
            at,
        }
    }

    /// The facts as lines of `name: value`.
    pub fn lines(&self) -> Vec<String> {
        self.facts
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect()
    }
}

/// Text of foreign origin on one line: what would hide, reorder or break is written out, what is too long is cut.
pub fn quiet(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut length = 0;
    for c in text.chars() {
        let written = if text::hides(c) {
            c.escape_unicode().to_string()
        } else {
            c.to_string()
        };
        let more = written.chars().count();
        if length + more > limit {
            shown.push('…');
            break;
        }
        length += more;
        shown.push_str(&written);
    }
    shown
}

/// A path as people write it: from `/`, in the mtree encoding.
fn path_of(violation: &ViolationView) -> String {
    violation
        .path
        .as_deref()
        .map(text::absolute)
        .unwrap_or_default()
}

fn headline(violation: &ViolationView, step: Step, nodes: &Nodes) -> String {
    let word = match step {
        Step::Opened => violation.severity.as_str(),
        Step::Updated if violation.acknowledged.is_some() => "acknowledged",
        Step::Updated => "updated",
        Step::Resolved => "resolved",
    };
    let place = quiet(&nodes.place(), 60);
    // The path is shortened, never what stands after it.
    let what = quiet(&what(violation), HEADLINE - 60);
    format!("{word}: {place}: {what}")
}

/// What is so, in a few words.
fn what(violation: &ViolationView) -> String {
    let path = path_of(violation);
    let short = quiet(&path, 70);
    match violation.kind {
        Kind::Difference => format!(
            "{short} is not as the image says ({})",
            violation.fields.join(", ")
        ),
        Kind::Many => format!(
            "{} are not as the image says",
            text::counted(violation.count.unwrap_or_default(), "path", "paths")
        ),
        Kind::Mount => format!("something is mounted at {short}"),
        Kind::Touched => format!("{short} was changed and put back"),
        Kind::Gap => "was not watched for a time".to_owned(),
        Kind::Silence => "says nothing".to_owned(),
        Kind::Fork => "two speak with this node’s key".to_owned(),
        Kind::Replay => "sent another node’s statement".to_owned(),
        Kind::Rewind => "statements are lost".to_owned(),
        Kind::Unexplained => "its differences do not explain its tree".to_owned(),
        Kind::Rollback => "runs an image older than all allowed ones".to_owned(),
        Kind::UnknownImage => "runs an image that is not allowed".to_owned(),
        Kind::Downgrade => "shows less assurance than it was enrolled with".to_owned(),
        Kind::Flood => "sends more than its budget".to_owned(),
    }
}

fn facts(violation: &ViolationView, step: Step, nodes: &Nodes) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Severity", violation.severity.to_string()),
        (
            if nodes.count + nodes.told > 1 {
                "Nodes"
            } else {
                "Node"
            },
            nodes.listed(),
        ),
    ];
    let mut add = |name: &'static str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.push((name, value));
        }
    };
    add("Path", Some(path_of(violation)));
    add("Expected", violation.expected.clone());
    add("Found", violation.found.clone());
    add(
        "Mounted",
        violation
            .mount
            .as_ref()
            .map(|mount| format!("{} ({})", mount.source, mount.r#type)),
    );
    add("By", violation.actor.as_ref().map(who));
    add(
        "Image",
        violation
            .image
            .as_ref()
            .map(|image| format!("{} {} {}", image.name, image.version, image.commit)),
    );
    add("Seen", Some(text::utc(violation.detected)));
    if step == Step::Resolved {
        add("Ended", violation.resolution.clone());
    }
    add(
        "Acknowledged",
        violation
            .acknowledged
            .as_ref()
            .map(|seen| format!("by {}: {}", seen.by, seen.reason)),
    );
    facts
        .into_iter()
        .map(|(name, value)| (name, quiet(&value, FACT)))
        .collect()
}

/// Who did it, as far as it is known.
fn who(actor: &Actor) -> String {
    let mut parts = Vec::new();
    if let Some(user) = &actor.user {
        parts.push(user.clone());
    } else if let Some(uid) = actor.uid {
        parts.push(format!("uid {uid}"));
    }
    if let Some(exe) = &actor.exe {
        parts.push(format!("with {}", text::absolute(exe)));
    }
    if let Some(session) = actor.session {
        parts.push(format!("in login session {session}"));
    }
    if let Some(unit) = &actor.unit {
        parts.push(format!("in {unit}"));
    }
    parts.push(format!("process {}", actor.pid));
    parts.join(", ")
}

/// The severity's word, for what has no violation.
pub(super) const TEST_SEVERITY: Severity = Severity::Low;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::sample;

    #[test]
    fn a_lone_change_names_its_node_and_many_are_counted() {
        let violation = sample::violation();
        let one = Message::of(
            "m",
            &violation,
            Step::Opened,
            &Nodes::one("web-17"),
            "https://c.example",
        );
        assert_eq!(
            one.headline,
            "critical: web-17: /usr/bin/ping is not as the image says (mode)"
        );
        assert!(one.link.starts_with("https://c.example/violations/018b"));
        assert!(one.facts.iter().any(|(name, value)| *name == "By"
            && value == "mallory, with /usr/bin/chmod, in login session 7, in ssh.service, process 4242"));
        let many = Nodes {
            count: 500,
            told: 0,
            named: vec!["a".to_owned(), "b".to_owned()],
        };
        let many = Message::of("m", &violation, Step::Opened, &many, "");
        assert!(
            many.headline.starts_with("critical: 500 nodes: "),
            "{}",
            many.headline
        );
        assert!(
            many.facts
                .contains(&("Nodes", "a, b and 498 more".to_owned()))
        );
        let more = Nodes {
            count: 1,
            told: 499,
            named: vec!["z".to_owned()],
        };
        assert!(headline(&violation, Step::Resolved, &more).starts_with("resolved: 500 nodes"));
        assert_eq!(more.listed(), "z; 499 told before");
    }

    #[test]
    fn what_hides_or_breaks_is_written_out_and_length_is_bounded() {
        assert_eq!(
            quiet("a\u{202e}b\nc\r\u{7}", 100),
            "a\\u{202e}b\\u{a}c\\u{d}\\u{7}"
        );
        assert_eq!(quiet("aaaa", 3), "aaa…");
        let mut violation = sample::violation();
        violation.path = Some(format!("./{}", "x".repeat(5_000)));
        violation.fields = vec!["y".repeat(500)];
        let message = Message::of(
            "m",
            &violation,
            Step::Opened,
            &Nodes::one(&"n".repeat(300)),
            "",
        );
        assert!(message.headline.chars().count() <= 240);
        assert!(
            message
                .facts
                .iter()
                .all(|(_, value)| value.chars().count() <= FACT + 1)
        );
    }
}
