//! What is wrong with a configuration file, in words: the line, and for an unknown key the nearest right one.

/// Where in `text` the byte at `offset` is, as a line counted from 1.
#[must_use]
pub fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// Turns serde's "unknown field `a`, expected one of `b`, `c`" into a question; any other message stays as it is.
#[must_use]
pub fn reason(message: &str) -> String {
    unknown_key(message).unwrap_or_else(|| message.to_owned())
}

fn unknown_key(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, expected) = rest.split_once('`')?;
    let nearest = expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
        .min();
    match nearest {
        // Further away it is another word, not a slip.
        Some((edits, nearest)) if edits <= nearest.len().div_ceil(2) => {
            Some(format!("unknown key {key:?}; did you mean {nearest:?}?"))
        }
        _ => Some(format!("unknown key {key:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_counted_from_one() {
        assert_eq!(line_of("", 0), 1);
        assert_eq!(line_of("a\nb\n", 2), 2);
        assert_eq!(line_of("a\nb\n", 99), 3);
    }

    #[test]
    fn the_nearest_key_is_asked_for_unless_none_is_near() {
        let told = |key: &str| {
            reason(&format!(
                "unknown field `{key}`, expected one of `root`, `interval`, `rescan`"
            ))
        };
        assert_eq!(
            told("intervall"),
            "unknown key \"intervall\"; did you mean \"interval\"?"
        );
        assert_eq!(
            told("rsecan"),
            "unknown key \"rsecan\"; did you mean \"rescan\"?"
        );
        assert_eq!(told("zzzzzzzz"), "unknown key \"zzzzzzzz\"");
        assert_eq!(
            reason("unknown field `a`, there are no fields"),
            "unknown key \"a\""
        );
        assert_eq!(reason("invalid type: string"), "invalid type: string");
    }
}
