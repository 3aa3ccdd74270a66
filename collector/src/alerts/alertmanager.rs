//! Alertmanager's form (API v2). There an alert is what its labels say, and sending it again changes it: a change on many nodes is one
//! alert whose annotations count them, told at once and again as it grows; it ends with `endsAt` when no node has it any more.
//!
//! Alertmanager keeps alerts in memory and hands annotations to receivers that may take them for markup. So all that is open is sent
//! again from time to time, and in what we send no character begins markup: it is written as in mtree, in octal.

use std::collections::BTreeMap;

use attestation::digest::Digest;
use attestation::time::Timestamp;
use serde::Serialize;

use super::message::{Message, quiet};
use crate::violations::view::{Kind, ViolationView};

/// How long an alert stays without being sent again, in seconds: over a long stop of the collector, so that a restart of ours is no
/// all-clear.
const STAYS: i64 = 86_400;
/// Characters of a value.
const VALUE: usize = 1_000;

/// One alert as the API takes it.
#[derive(Debug, Serialize)]
pub struct Alert {
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
    #[serde(rename = "startsAt")]
    starts_at: Timestamp,
    #[serde(rename = "endsAt")]
    ends_at: Timestamp,
    #[serde(rename = "generatorURL")]
    link: String,
}

impl Alert {
    /// A change as it stands at `now`: open on some node since `since`, or over.
    pub fn of(
        violation: &ViolationView,
        change: &Digest,
        message: &Message,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let mut labels = BTreeMap::from([
            ("alertname", alert_name(violation.kind)),
            ("severity", violation.severity.to_string()),
            ("kind", violation.kind.as_str().to_owned()),
            ("change", change.to_string()[..16].to_owned()),
        ]);
        if let Some(path) = &violation.path {
            labels.insert("path", plain(path));
        }
        Self {
            labels,
            annotations: annotations(message),
            starts_at: since.unwrap_or(violation.opened),
            ends_at: match since {
                Some(_) => now.saturating_add_secs(STAYS),
                None => now,
            },
            link: message.link.clone(),
        }
    }

    /// Somebody tries the channel: an alert that ends within a minute.
    pub fn test(message: &Message, now: Timestamp) -> Self {
        Self {
            labels: BTreeMap::from([
                ("alertname", "PristineTest".to_owned()),
                ("severity", super::message::TEST_SEVERITY.to_string()),
            ]),
            annotations: annotations(message),
            starts_at: now,
            ends_at: now.saturating_add_secs(60),
            link: message.link.clone(),
        }
    }
}

/// What is posted.
pub fn body(alerts: &[Alert]) -> Vec<u8> {
    serde_json::to_vec(alerts).unwrap_or_default()
}

fn annotations(message: &Message) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("summary", plain(&message.headline)),
        (
            "description",
            message
                .lines()
                .iter()
                .map(|line| plain(line))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        ("message", message.id.clone()),
        ("link", message.link.clone()),
    ])
}

/// `difference` as `PristineDifference`.
fn alert_name(kind: Kind) -> String {
    let mut name = "Pristine".to_owned();
    for word in kind.as_str().split('-') {
        let mut chars = word.chars();
        name.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        name.push_str(chars.as_str());
    }
    name
}

/// What begins markup anywhere downstream, in octal, as a path has it.
fn plain(text: &str) -> String {
    quiet(text, VALUE)
        .chars()
        .map(|c| match c {
            '<' | '>' | '&' | '`' | '*' | '[' | ']' | '|' | '@' => {
                format!("\\{:03o}", u32::from(c))
            }
            other => other.to_string(),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::alerts::change::change_of;
    use crate::alerts::message::Nodes;
    use crate::alerts::tests::{hostile, hostile_violation};
    use crate::violations::view::Step;

    fn alert(violation: &ViolationView, nodes: &Nodes, since: Option<Timestamp>) -> Value {
        let message = Message::of("m", violation, Step::Opened, nodes, "https://c.example");
        let now = Timestamp::from_micros(1_700_000_100_000_000);
        let alert = Alert::of(violation, &change_of(violation), &message, since, now);
        serde_json::from_slice::<Value>(&body(&[alert])).unwrap()[0].take()
    }

    #[test]
    fn the_labels_are_the_changes_and_its_end_is_told() {
        let violation = crate::web::sample::violation();
        let open = alert(&violation, &Nodes::one("web-17"), Some(violation.opened));
        let many = Nodes {
            count: 9,
            told: 0,
            named: vec!["web-18".to_owned()],
        };
        let grown = alert(&violation, &many, Some(violation.opened));
        assert_eq!(open["labels"], grown["labels"], "one alert");
        assert_ne!(open["annotations"], grown["annotations"]);
        assert_eq!(open["labels"]["alertname"], "PristineDifference");
        assert_eq!(open["labels"]["severity"], "critical");
        assert_eq!(open["endsAt"], "2023-11-15T22:15:00.000000Z");
        let over = alert(&violation, &many, None);
        assert_eq!(over["labels"], open["labels"]);
        assert_eq!(over["endsAt"], "2023-11-14T22:15:00.000000Z");
    }

    #[test]
    fn kinds_have_names() {
        assert_eq!(alert_name(Kind::UnknownImage), "PristineUnknownImage");
        assert_eq!(alert_name(Kind::Gap), "PristineGap");
    }

    proptest! {
        #[test]
        fn no_name_yields_markup_downstream(name in hostile()) {
            let alert = alert(&hostile_violation(&name), &Nodes::one(&name), None);
            for part in ["labels", "annotations"] {
                for (name, value) in alert[part].as_object().unwrap() {
                    let value = value.as_str().unwrap();
                    prop_assert!(!value.contains(['<', '>', '&', '`', '*', '@']), "{name}: {value:?}");
                    prop_assert!(!value.chars().any(|c| c != '\n' && crate::web::text::hides(c)), "{value:?}");
                }
            }
        }
    }
}
