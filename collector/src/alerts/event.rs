//! A step of a violation as a CloudEvents 1.0 event in structured JSON.

use attestation::time::Timestamp;
use serde::Serialize;

use super::message::{Message, Nodes};
use crate::violations::view::{Step, ViolationView};

/// The media type of a structured event.
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json";

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    r#type: String,
    subject: &'a str,
    time: Timestamp,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    One(&'a ViolationView),
    Many {
        #[serde(flatten)]
        violation: &'a ViolationView,
        /// The same change on all of them; the violation is the first one's.
        nodes: Told<'a>,
    },
    Test {
        message: &'a str,
    },
}

/// The nodes of a gathered event.
#[derive(Serialize)]
struct Told<'a> {
    /// In this event.
    count: u64,
    /// In events before it, within the same minute.
    told_before: u64,
    /// Names of some.
    names: &'a [String],
}

/// The body of a delivery, made once and stored: a second delivery is the same bytes.
#[must_use]
pub fn event_body(violation: &ViolationView, step: Step, step_id: &str, at: Timestamp) -> Vec<u8> {
    of_violation(violation, step, step_id, at, Data::One(violation))
}

/// The same for a change that was gathered from many nodes, where a webhook asks for that.
#[must_use]
pub fn gathered_body(
    violation: &ViolationView,
    step: Step,
    id: &str,
    at: Timestamp,
    nodes: &Nodes,
) -> Vec<u8> {
    let nodes = Told {
        count: nodes.count,
        told_before: nodes.told,
        names: &nodes.named,
    };
    of_violation(violation, step, id, at, Data::Many { violation, nodes })
}

fn of_violation(
    violation: &ViolationView,
    step: Step,
    id: &str,
    at: Timestamp,
    data: Data<'_>,
) -> Vec<u8> {
    write(&CloudEvent {
        specversion: "1.0",
        id,
        source: format!("/nodes/{}", violation.node),
        r#type: format!("dev.pristine.violation.{}", step.as_str()),
        subject: &violation.id,
        time: at,
        datacontenttype: "application/json",
        data,
    })
}

/// Somebody tries the channel.
#[must_use]
pub(super) fn test_body(message: &Message) -> Vec<u8> {
    write(&CloudEvent {
        specversion: "1.0",
        id: &message.id,
        source: "/alerts".to_owned(),
        r#type: "dev.pristine.alert.test".to_owned(),
        subject: "test",
        time: message.at,
        datacontenttype: "application/json",
        data: Data::Test {
            message: &message.headline,
        },
    })
}

fn write(event: &CloudEvent<'_>) -> Vec<u8> {
    serde_json::to_vec(event).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_what_cloudevents_asks_for_and_the_violation_as_the_api_gives_it() {
        let violation = crate::web::sample::violation();
        let body = event_body(
            &violation,
            Step::Opened,
            "0193-step",
            Timestamp::from_micros(1_700_000_000_000_000),
        );
        let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["id"], "0193-step");
        assert_eq!(event["type"], "dev.pristine.violation.opened");
        assert_eq!(event["subject"], violation.id.as_str());
        assert_eq!(event["time"], "2023-11-14T22:13:20.000000Z");
        assert_eq!(event["data"], serde_json::to_value(&violation).unwrap());
    }

    #[test]
    fn a_gathered_event_counts_nodes_beside_the_first_ones_violation() {
        let violation = crate::web::sample::violation();
        let nodes = Nodes {
            count: 500,
            told: 0,
            named: vec!["web-17".to_owned()],
        };
        let body = gathered_body(&violation, Step::Opened, "m", violation.opened, &nodes);
        let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(event["id"], "m");
        assert_eq!(event["data"]["kind"], "difference");
        assert_eq!(event["data"]["nodes"]["count"], 500);
        assert_eq!(event["data"]["nodes"]["names"][0], "web-17");
    }
}
