//! One rule of a scope, and its JSON.

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// What is expected of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// It must equal the image.
    Sealed,
    /// Each node has its own content: pinned when first seen, changes after that are violations.
    Local,
    /// Append-only: what was there before must still be there, unchanged.
    Growing,
    /// Not attested.
    Ignored,
}

impl Expect {
    /// Its word in rules and statements.
    pub const fn word(self) -> &'static str {
        match self {
            Expect::Sealed => "sealed",
            Expect::Local => "local",
            Expect::Growing => "growing",
            Expect::Ignored => "ignored",
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// What is expected of the paths that a glob matches, and of what lies below them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The glob, over the whole raw path.
    pub r#match: String,
    /// What is expected.
    pub expect: Expect,
    /// Whether modification times are recorded.
    pub time: bool,
}

/// What the rule that wins says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is expected.
    pub expect: Expect,
    /// Whether the modification time is recorded.
    pub time: bool,
}

impl Decision {
    /// What the built-in first rule says.
    pub const SEALED: Decision = Decision {
        expect: Expect::Sealed,
        time: false,
    };
}

/// The canonical JSON (RFC 8785) of rules: members sorted by name, no spaces. What is escaped in strings is the same there
/// and in `serde_json`.
pub(super) fn canonical(rules: &[Rule]) -> Vec<u8> {
    let mut json = b"[".to_vec();
    for (index, rule) in rules.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let (expect, time) = (rule.expect, rule.time);
        let glob = serde_json::Value::from(&*rule.r#match);
        json.extend_from_slice(
            format!(r#"{comma}{{"expect":"{expect}","match":{glob},"time":{time}}}"#).as_bytes(),
        );
    }
    json.push(b']');
    json
}

/// A rule is read from an object only, and an unknown or repeated member is refused: a scope that is not understood to the
/// last word must not decide what is attested.
impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RuleVisitor)
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = Rule;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a rule {match, expect, time}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Rule, A::Error> {
        let (mut glob, mut expect, mut time) = (None, None, None);
        while let Some(name) = members.next_key::<String>()? {
            let repeated = match &*name {
                "match" => glob.replace(members.next_value()?).is_some(),
                "expect" => expect.replace(members.next_value()?).is_some(),
                "time" => time.replace(members.next_value()?).is_some(),
                _ => {
                    return Err(de::Error::unknown_field(
                        &name,
                        &["match", "expect", "time"],
                    ));
                }
            };
            if repeated {
                return Err(de::Error::custom(format_args!(
                    "member `{name}` is there twice"
                )));
            }
        }
        Ok(Rule {
            r#match: glob.ok_or_else(|| de::Error::missing_field("match"))?,
            expect: expect.ok_or_else(|| de::Error::missing_field("expect"))?,
            time: time.unwrap_or(false),
        })
    }
}
