//! Slack's form: blocks of plain text. Foreign text never stands in `mrkdwn`, so it cannot mention a channel, link, quote or format;
//! `&`, `<` and `>` are escaped there too, as Slack asks, and the short text for notifications is not parsed.

use serde_json::{Value, json};

use super::message::Message;

/// Slack takes 150 characters in a header.
const HEADER: usize = 150;
/// And 3,000 in a section.
const SECTION: usize = 2_900;

/// The body of a message to an incoming webhook.
pub fn body(message: &Message) -> Vec<u8> {
    let plain = |text: &str| json!({"type": "plain_text", "text": text, "emoji": false});
    let blocks = [
        json!({"type": "header", "text": plain(&bounded(&message.headline, HEADER))}),
        json!({"type": "section", "text": plain(&bounded(&message.lines().join("\n"), SECTION))}),
        // The only markup, and all of it is ours.
        json!({"type": "section", "text": {"type": "mrkdwn", "verbatim": true, "text": format!("<{}|Open>", address(&message.link))}}),
        json!({"type": "context", "elements": [plain(&format!("message {}", message.id))]}),
    ];
    let body: Value = json!({
        "text": defused(&message.headline),
        "mrkdwn": false,
        "parse": "none",
        "link_names": false,
        "unfurl_links": false,
        "unfurl_media": false,
        "blocks": blocks,
    });
    serde_json::to_vec(&body).unwrap_or_default()
}

/// Escaped as Slack asks, and not longer than it takes; no escape is cut in two.
fn bounded(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut length = 0;
    for c in text.chars() {
        let mut buffer = [0; 4];
        let written: &str = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            other => other.encode_utf8(&mut buffer),
        };
        if length + written.len() >= limit {
            shown.push('…');
            break;
        }
        length += written.len();
        shown.push_str(written);
    }
    shown
}

/// For notifications: no character that any client could take for markup.
fn defused(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| {
            if matches!(c, '`' | '*' | '_' | '~' | '@' | '#') {
                '·'
            } else {
                c
            }
        })
        .collect();
    bounded(&plain, SECTION)
}

/// Our own address; nothing in it ends the link.
fn address(link: &str) -> String {
    link.chars()
        .filter(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '|' | '&'))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alerts::message::{Message, Nodes};
    use crate::alerts::tests::{hostile, hostile_violation};
    use crate::violations::view::Step;
    use crate::web::text;

    /// Every text object of a body.
    fn texts(value: &Value, into: &mut Vec<(String, String)>) {
        match value {
            Value::Object(members) => {
                let member = |name: &str| members.get(name).and_then(Value::as_str);
                if let (Some(kind), Some(text)) = (member("type"), member("text")) {
                    into.push((kind.to_owned(), text.to_owned()));
                }
                members.values().for_each(|value| texts(value, into));
            }
            Value::Array(items) => items.iter().for_each(|value| texts(value, into)),
            _ => {}
        }
    }

    fn is_escaped(text: &str) -> bool {
        !text.contains(['<', '>'])
            && text.split('&').skip(1).all(|rest| {
                ["amp;", "lt;", "gt;"]
                    .iter()
                    .any(|entity| rest.starts_with(entity))
            })
    }

    fn check(message: &Message) {
        let body: Value = serde_json::from_slice(&body(message)).unwrap();
        let mut all = Vec::new();
        texts(&body, &mut all);
        let marked: Vec<&(String, String)> =
            all.iter().filter(|(kind, _)| kind == "mrkdwn").collect();
        assert_eq!(marked.len(), 1);
        assert_eq!(marked[0].1, "<https://c.example/violations/v1|Open>");
        for (_, text) in all.iter().filter(|(kind, _)| kind == "plain_text") {
            assert!(is_escaped(text), "{text:?}");
            assert!(
                !text.chars().any(|c| c != '\n' && text::hides(c)),
                "{text:?}"
            );
            assert!(text.len() <= 3_000 && !text.is_empty());
        }
        let short = body["text"].as_str().unwrap();
        assert!(
            is_escaped(short) && !short.contains(['`', '*', '_', '~', '@', '\n']),
            "{short:?}"
        );
        assert_eq!(body["mrkdwn"], false);
    }

    #[test]
    fn a_mention_is_text() {
        let violation =
            hostile_violation("<!channel> <@U012> <https://evil|x> `a` &amp; *b*\u{202e}\n");
        check(&Message::of(
            "m",
            &violation,
            Step::Opened,
            &Nodes::one("<!here>"),
            "https://c.example",
        ));
    }

    proptest! {
        #[test]
        fn no_name_yields_markup(name in hostile()) {
            let violation = hostile_violation(&name);
            check(&Message::of("m", &violation, Step::Opened, &Nodes::one(&name), "https://c.example"));
        }
    }
}
