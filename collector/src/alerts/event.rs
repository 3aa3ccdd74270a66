//! A step of a violation as a CloudEvents 1.0 event in structured JSON.

use attestation::time::Timestamp;
use serde::Serialize;

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
    data: &'a ViolationView,
}

/// The body of a delivery, made once and stored: a second delivery is the same bytes.
#[must_use]
pub fn event_body(violation: &ViolationView, step: Step, step_id: &str, at: Timestamp) -> Vec<u8> {
    let event = CloudEvent {
        specversion: "1.0",
        id: step_id,
        source: format!("/nodes/{}", violation.node),
        r#type: format!("dev.pristine.violation.{}", step.as_str()),
        subject: &violation.id,
        time: at,
        datacontenttype: "application/json",
        data: violation,
    };
    serde_json::to_vec(&event).unwrap_or_default()
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
}
