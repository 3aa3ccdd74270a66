//! Strict JSON in, canonical JSON out.
//!
//! Two readers must never see two values in one text: a member named twice, an integer that a double cannot hold, or a
//! nesting that only some stacks survive are refused wherever they stand, also in members that a reader ignores.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;

/// The largest integer, up or down: what every JSON reader holds exactly.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
/// The deepest nesting of arrays and objects; our own formats need 8.
pub const MAX_DEPTH: usize = 64;

/// Why a text is not strict JSON, or a value has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text is not strict JSON, or not the value asked for.
    #[error("not strict JSON of the right shape")]
    Malformed(#[from] serde_json::Error),
    /// A number with a fraction or an exponent: our canonical form has integers only.
    #[error("number {0} is not an integer")]
    NotInteger(String),
    /// An integer beyond what every reader holds.
    #[error("integer {0} is beyond 2^53 - 1")]
    IntegerTooLarge(String),
    /// Nested too deep.
    #[error("nested deeper than {MAX_DEPTH}")]
    TooDeep,
}

/// Reads a value from strict JSON. Members that the type does not know are the type's business.
pub fn from_slice_strict<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    check_strict(text)?;
    Ok(serde_json::from_slice(text)?)
}

/// Refuses what is not strict JSON, without keeping any of it.
pub fn check_strict(text: &[u8]) -> Result<(), JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    Strict { depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(())
}

/// The canonical form of RFC 8785: members in the order of UTF-16 code units, no space, the shortest escapes; integers only.
pub fn canonical(value: &Value) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    write_canonical(value, 0, &mut out)?;
    Ok(out)
}

/// One value at a depth, visited for its faults alone.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        if number > MAX_INTEGER {
            return Err(E::custom(format_args!(
                "integer {number} is beyond 2^53 - 1"
            )));
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.visit_u64(number.unsigned_abs())
    }

    /// Integers too long for 64 bits arrive here too, so size is judged whether there was a point or not.
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^53 - 1 is the largest integer that a double holds exactly"
        )]
        let limit = MAX_INTEGER as f64;
        if number.abs() > limit {
            return Err(E::custom(format_args!(
                "number {number} is beyond 2^53 - 1"
            )));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while members.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!(
                    "member {name:?} stands twice"
                )));
            }
            names.insert(name);
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

fn write_canonical(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError::TooDeep);
    }
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_integer(number, out)?,
        Value::String(text) => write_string(text, out),
        Value::Array(members) => {
            out.push(b'[');
            for (at, member) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_canonical(member, depth + 1, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push(b'{');
            for (at, (name, member)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_canonical(member, depth + 1, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_integer(number: &serde_json::Number, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let magnitude = match (number.as_u64(), number.as_i64()) {
        (Some(positive), _) => positive,
        (None, Some(negative)) => negative.unsigned_abs(),
        (None, None) => return Err(JsonError::NotInteger(number.to_string())),
    };
    if magnitude > MAX_INTEGER {
        return Err(JsonError::IntegerTooLarge(number.to_string()));
    }
    out.extend_from_slice(number.to_string().as_bytes());
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            control @ 0..=0x1f => {
                let low = HEX[usize::from(control & 0x0f)];
                out.extend_from_slice(&[
                    b'\\',
                    b'u',
                    b'0',
                    b'0',
                    HEX[usize::from(control >> 4)],
                    low,
                ]);
            }
            plain => out.push(plain),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(text: &str) -> String {
        match from_slice_strict::<Value>(text.as_bytes()) {
            Err(JsonError::Malformed(error)) => error.to_string(),
            other => format!("{other:?} for {text}"),
        }
    }

    #[test]
    fn a_member_named_twice_is_refused_at_any_depth() {
        assert!(refused(r#"{"a":1,"a":1}"#).contains("stands twice"));
        assert!(refused(r#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#).contains("stands twice"));
        assert!(
            refused("{\"a\":1,\"\\u0061\":2}").contains("stands twice"),
            "an escape does not make it another name"
        );
        from_slice_strict::<Value>(br#"{"a":{"a":1},"b":{"a":1}}"#).unwrap();
    }

    #[test]
    fn integers_end_where_doubles_do() {
        for good in ["9007199254740991", "-9007199254740991", "0", "1.5", "[1,2]"] {
            from_slice_strict::<Value>(good.as_bytes()).unwrap();
        }
        for bad in [
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551615",
            "18446744073709551616",
            "123456789012345678901234567890",
            r#"{"unknown":{"deep":[9007199254740992]}}"#,
        ] {
            assert!(refused(bad).contains("beyond 2^53 - 1"), "{bad}");
        }
        assert!(
            from_slice_strict::<u64>(b"1.0").is_err(),
            "a float is no integer"
        );
        assert!(from_slice_strict::<u64>(b"1e3").is_err());
        assert!(from_slice_strict::<u64>(b"-0").is_err());
        assert!(from_slice_strict::<Value>(b"1e999").is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        from_slice_strict::<Value>(nested(MAX_DEPTH).as_bytes()).unwrap();
        assert!(refused(&nested(MAX_DEPTH + 1)).contains("nested deeper"));
        assert!(from_slice_strict::<Value>(nested(100_000).as_bytes()).is_err());
        let mut value = Value::Null;
        for _ in 0..=MAX_DEPTH {
            value = json!([value]);
        }
        assert!(matches!(canonical(&value), Err(JsonError::TooDeep)));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "nul",
            "01",
            "+1",
            "'a'",
            "1 2",
            "{} x",
            "NaN",
            "\"\\ud800\"",
            "\u{feff}1",
        ] {
            assert!(
                from_slice_strict::<Value>(bad.as_bytes()).is_err(),
                "{bad:?}"
            );
        }
        assert!(from_slice_strict::<Value>(b"\"\xff\"").is_err());
    }

    #[test]
    fn canonical_order_is_that_of_utf16() {
        // The example of RFC 8785, section 3.2.3: U+FB33 sorts after the surrogates of U+1F600.
        let value = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        let text = String::from_utf8(canonical(&value).unwrap()).unwrap();
        assert_eq!(
            text,
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
    }

    #[test]
    fn canonical_strings_have_the_shortest_escapes() {
        let value = json!("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\"\\/\u{7f}é");
        let text = String::from_utf8(canonical(&value).unwrap()).unwrap();
        assert_eq!(
            text,
            "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\u{7f}é\""
        );
    }

    #[test]
    fn canonical_numbers_are_integers() {
        assert_eq!(
            canonical(&json!([0, -1, 9_007_199_254_740_991_i64])).unwrap(),
            b"[0,-1,9007199254740991]"
        );
        assert!(matches!(
            canonical(&json!(1.5)),
            Err(JsonError::NotInteger(_))
        ));
        assert!(matches!(
            canonical(&json!(1.0)),
            Err(JsonError::NotInteger(_))
        ));
        assert!(matches!(
            canonical(&json!(9_007_199_254_740_992_u64)),
            Err(JsonError::IntegerTooLarge(_))
        ));
        assert!(matches!(
            canonical(&json!(i64::MIN)),
            Err(JsonError::IntegerTooLarge(_))
        ));
    }
}
