//! Text as people may safely read it: hostile bytes stand out, paths break at `/`, times carry their age, digests their first digits.
//!
//! Everything that came from a node, a publisher or a browser is printed through this module; maud escapes the HTML, and what would
//! hide or reorder text (controls, bidirectional marks, zero-width characters) is written as an escape in its own colour.

use attestation::digest::Digest;
use attestation::time::Timestamp;
use maud::{Markup, html};

use crate::access::Reach;

/// Above this a path is shortened in its middle, and shown whole on focus.
const LONG_PATH: usize = 72;
const DIGEST_DIGITS: usize = 12;

/// A part of a text, ordinary or an escape.
#[derive(Debug, PartialEq, Eq)]
enum Run<'a> {
    Plain(&'a str),
    Escape(&'a str),
}

/// Splits text in the mtree encoding at its `\ooo` escapes.
fn mtree_runs(shown: &str) -> Vec<Run<'_>> {
    let bytes = shown.as_bytes();
    let mut runs = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        let escape = bytes[at] == b'\\'
            && bytes
                .get(at + 1..at + 4)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
        if !escape {
            at += 1;
            continue;
        }
        if start < at {
            runs.push(Run::Plain(&shown[start..at]));
        }
        runs.push(Run::Escape(&shown[at..at + 4]));
        at += 4;
        start = at;
    }
    if start < shown.len() {
        runs.push(Run::Plain(&shown[start..]));
    }
    runs
}

/// What an escape stands for, for the title.
fn meaning(escape: &str) -> String {
    let byte = u8::from_str_radix(&escape[1..], 8).unwrap_or(b'?');
    let name = match byte {
        b'\n' => "newline",
        b'\r' => "carriage return",
        b'\t' => "tab",
        b' ' => "space",
        0x1b => "escape",
        0x21..0x7f => return format!("the character {}", char::from(byte)),
        0x00..0x20 | 0x7f => "control character",
        0x80.. => "not ASCII",
    };
    format!("byte 0x{byte:02x}, {name}")
}

/// Text in the mtree encoding, its escapes visibly apart.
#[must_use]
pub fn encoded(shown: &str) -> Markup {
    html! {
        @for run in mtree_runs(shown) {
            @match run {
                Run::Plain(text) => (plain(text)),
                Run::Escape(text) => span.esc title=(meaning(text)) { (text) },
            }
        }
    }
}

/// Whether a character could hide or reorder what stands around it.
pub(crate) fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Ordinary text of foreign origin: what hides or reorders is escaped, visibly.
#[must_use]
pub fn plain(text: &str) -> Markup {
    html! {
        @for part in text.split_inclusive(hides) {
            @match part.chars().next_back().filter(|c| hides(*c)) {
                Some(odd) => { (part[..part.len() - odd.len_utf8()]) span.esc title="a character that would not show" { (odd.escape_default()) } }
                None => (part),
            }
        }
    }
}

/// Which nodes somebody reaches, in words.
#[must_use]
pub fn nodes_of(reach: &Reach) -> Markup {
    html! {
        @if reach.is_all() { "all nodes" } @else {
            "the nodes of "
            @for (at, group) in reach.groups().enumerate() { @if at > 0 { ", " } b { (plain(group)) } }
        }
    }
}

/// A path as people write it: from `/`, in the mtree encoding.
#[must_use]
pub fn absolute(shown: &str) -> String {
    match shown.strip_prefix('.') {
        Some("") => "/".to_owned(),
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        _ => shown.to_owned(),
    }
}

fn breaking(path: &str) -> Markup {
    html! {
        @for part in path.split_inclusive('/') { (encoded(part)) @if part.ends_with('/') { wbr; } }
    }
}

/// A path: breaks at `/`, long ones shortened in the middle and whole on focus.
#[must_use]
pub fn path(shown: &str) -> Markup {
    let whole = absolute(shown);
    if whole.len() <= LONG_PATH {
        return html! { span.path title=(shown) { (breaking(&whole)) } };
    }
    html! {
        span.path.long tabindex="0" title=(shown) {
            span.short { (breaking(&shortened(&whole))) }
            span.whole { (breaking(&whole)) }
        }
    }
}

/// The first directories and the name, and `…` for what stands between.
fn shortened(whole: &str) -> String {
    let parts: Vec<&str> = whole.split('/').collect();
    let name = parts.last().copied().unwrap_or_default();
    let mut head = String::new();
    for part in &parts[..parts.len().saturating_sub(1)] {
        if head.len() + part.len() + name.len() + 4 > LONG_PATH {
            break;
        }
        head.push_str(part);
        head.push('/');
    }
    if name.len() <= LONG_PATH {
        return format!("{head}…/{name}");
    }
    // Cut at whole escapes and characters: an encoded name is ASCII, but nothing here may rely on it.
    let cut = |count: usize| {
        name.char_indices()
            .nth(count)
            .map_or(name.len(), |(at, _)| at)
    };
    let tail: String = name
        .chars()
        .rev()
        .take(24)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    format!("{head}…/{}…{tail}", &name[..cut(24)])
}

/// An address: breaks at `/`.
#[must_use]
pub fn place(text: &str) -> Markup {
    html! { @for part in text.split_inclusive('/') { (plain(part)) @if part.ends_with('/') { wbr; } } }
}

/// A path with a button that copies it in the encoding that every command takes.
#[must_use]
pub fn path_to_copy(shown: &str) -> Markup {
    html! { (path(shown)) (copy(shown, "path")) }
}

/// A button that copies a value whole.
#[must_use]
pub fn copy(value: &str, what: &str) -> Markup {
    html! { button.copy type="button" data-copy=(value) aria-label={ "Copy " (what) } { "copy" } }
}

/// The first twelve digits, and a button for all of them.
#[must_use]
pub fn digest(digest: &Digest) -> Markup {
    hex(&digest.to_string())
}

/// The same for anything already in hexadecimal digits.
#[must_use]
pub fn hex(whole: &str) -> Markup {
    html! { span.keep { (digits(whole)) @if whole.chars().nth(DIGEST_DIGITS).is_some() { (copy(whole, "digest")) } } }
}

/// The first twelve digits alone.
#[must_use]
pub fn digits(whole: &str) -> Markup {
    let end = whole
        .char_indices()
        .nth(DIGEST_DIGITS)
        .map_or(whole.len(), |(at, _)| at);
    html! { span.digest title=(whole) { (plain(&whole[..end])) } }
}

/// `12 s`, `3 min`, `6 h`, `4 days`.
#[must_use]
pub fn span(micros: i64) -> String {
    let seconds = micros.max(0) / 1_000_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A delay, fine enough for what happens within a second.
#[must_use]
pub fn delay(micros: i64) -> String {
    match micros {
        ..0 => format!("{} before", span(-micros)),
        0..1_000 => "under 1 ms".to_owned(),
        1_000..1_000_000 => format!("{} ms", micros / 1_000),
        1_000_000..10_000_000 => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
        _ => span(micros),
    }
}

/// `2026-11-24 22:59:16 UTC`, to the second.
#[must_use]
pub fn utc(at: Timestamp) -> String {
    let text = at.to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {} UTC", time.split('.').next().unwrap_or_default())
}

fn exact(at: Timestamp) -> String {
    at.to_string().replace('T', " ").replace('Z', " UTC")
}

/// "3 min ago", the exact time in the title.
#[must_use]
pub fn age(at: Timestamp, now: Timestamp) -> Markup {
    let text = format!(
        "{} ago",
        span(now.as_micros().saturating_sub(at.as_micros()))
    );
    html! { time.age datetime=(at) title=(exact(at)) { (text) } }
}

/// The exact time, to the second, with all digits in the title.
#[must_use]
pub fn moment(at: Timestamp) -> Markup {
    html! { time datetime=(at) title=(exact(at)) { (utc(at)) } }
}

/// `140,213`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 node`, `250 nodes`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{} {many}", count(number))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_apart_and_markup_stays_text() {
        let shown = encoded("./a\\012b<script>").into_string();
        assert_eq!(
            shown,
            "./a<span class=\"esc\" title=\"byte 0x0a, newline\">\\012</span>b&lt;script&gt;"
        );
        assert_eq!(mtree_runs("\\01"), [Run::Plain("\\01")]);
    }

    #[test]
    fn characters_that_hide_or_reorder_are_written_out() {
        let shown = plain("evil\u{202e}txt.exe\u{1b}[2J").into_string();
        assert!(
            shown.contains("\\u{202e}") && shown.contains("\\u{1b}"),
            "{shown}"
        );
        assert!(!shown.contains('\u{202e}') && !shown.contains('\u{1b}'));
        assert_eq!(
            plain("Jürgen Müller <j@m.de>").into_string(),
            "Jürgen Müller &lt;j@m.de&gt;"
        );
    }

    #[test]
    fn paths_break_at_slashes_and_keep_their_encoding_for_the_clipboard() {
        let shown = path_to_copy("./etc/ssh/sshd_config").into_string();
        assert!(
            shown.contains("/<wbr>etc/<wbr>ssh/<wbr>sshd_config"),
            "{shown}"
        );
        assert!(shown.contains("data-copy=\"./etc/ssh/sshd_config\""));
        assert_eq!(absolute("."), "/");
    }

    #[test]
    fn a_long_path_keeps_its_name_and_hides_nothing() {
        let long = format!("./usr/lib/{}/name.so", "deep/".repeat(30));
        let shown = path(&long).into_string();
        assert!(
            shown.contains("…/<wbr>name.so") && shown.contains("class=\"whole\""),
            "{shown}"
        );
        let odd = format!("./{}", "é".repeat(200));
        assert!(path(&odd).into_string().contains('…'));
    }

    #[test]
    fn ages_and_delays_read_as_people_say_them() {
        assert_eq!(span(59_999_999), "59 s");
        assert_eq!(span(3 * 60_000_000), "3 min");
        assert_eq!(span(6 * 3_600_000_000), "6 h");
        assert_eq!(delay(12_400), "12 ms");
        assert_eq!(delay(1_250_000), "1.2 s");
        assert_eq!(count(140_213), "140,213");
        assert_eq!(count(7), "7");
        let at = Timestamp::from_micros(0);
        let shown = age(at, Timestamp::from_micros(180_000_000)).into_string();
        assert!(
            shown.contains(">3 min ago<") && shown.contains("1970-01-01 00:00:00.000000 UTC"),
            "{shown}"
        );
    }

    #[test]
    fn a_digest_shows_twelve_digits_and_copies_whole() {
        let shown = hex(&"ab".repeat(32)).into_string();
        assert!(shown.contains(">abababababab<") && shown.contains(&"ab".repeat(32)));
    }
}
