//! A node's day, week or month as bands: what it was found to be, what was not seen, and what happened meanwhile. Plain functions
//! over values; what they are made from is read in [`read`].

mod read;

use attestation::time::Timestamp;
use maud::{Markup, html};

use super::{state, text};

pub(super) use self::read::read;

const DAY: i64 = 86_400_000_000;
/// Units across a band.
const WIDTH: i64 = 1_000;
/// What is shorter is drawn as wide as this, so that it can be seen.
const LEAST: i64 = 3;

/// How much time is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Day,
    Week,
    Month,
}

impl Span {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Day, "day", "A day"),
        (Self::Week, "week", "A week"),
        (Self::Month, "month", "30 days"),
    ];

    /// From an address; a day when it says nothing that is known.
    pub(super) fn parse(word: Option<&str>) -> Self {
        Self::ALL
            .iter()
            .find(|(_, name, _)| Some(*name) == word)
            .map_or(Self::Day, |(span, _, _)| *span)
    }

    const fn micros(self) -> i64 {
        match self {
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month => 30 * DAY,
        }
    }
}

/// The time that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Range {
    /// The span that ends then.
    pub(super) fn ending(to: Timestamp, span: Span) -> Self {
        Self {
            from: Timestamp::from_micros(to.as_micros().saturating_sub(span.micros())),
            to,
        }
    }

    /// Where a time stands across the band.
    fn at(self, time: Timestamp) -> i64 {
        let whole = self.to.micros_since(self.from).max(1);
        let part = time.micros_since(self.from).clamp(0, whole);
        part.saturating_mul(WIDTH) / whole
    }
}

/// One stretch of time, or a moment where it ends as it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) from: Timestamp,
    /// Until when; it lasts where there is none.
    pub(super) to: Option<Timestamp>,
    /// A state's word: its colour is this piece's.
    pub(super) word: String,
    /// What it was, in plain words.
    pub(super) says: String,
    pub(super) href: Option<String>,
}

/// One band.
#[derive(Clone, Debug)]
pub(super) struct Band {
    pub(super) name: &'static str,
    pub(super) pieces: Vec<Piece>,
    /// There were more, which are not here.
    pub(super) cut: bool,
}

/// What of `pieces` lies in the range and is not covered by `over`, and `over` itself, in order.
pub(super) fn overlay(pieces: Vec<Piece>, over: &[Piece], range: Range) -> Vec<Piece> {
    let end = |piece: &Piece| piece.to.unwrap_or(range.to).min(range.to);
    let mut shown: Vec<Piece> = over
        .iter()
        .filter(|piece| piece.from < range.to && end(piece) >= range.from)
        .cloned()
        .collect();
    for piece in pieces {
        let (mut from, to) = (piece.from.max(range.from), end(&piece));
        let mut covers: Vec<(Timestamp, Timestamp)> =
            over.iter().map(|over| (over.from, end(over))).collect();
        covers.sort_unstable();
        for (begins, ends) in covers {
            if ends <= from || begins >= to {
                continue;
            }
            if begins > from {
                shown.push(Piece {
                    from,
                    to: Some(begins),
                    ..piece.clone()
                });
            }
            from = from.max(ends);
        }
        if from < to {
            let lasts = piece.to.is_none_or(|to| to > range.to);
            shown.push(Piece {
                from,
                to: (!lasts).then_some(to),
                ..piece
            });
        }
    }
    shown.sort_by_key(|piece| piece.from);
    shown
}

/// The bands, the switch beside them, and the same as a table. `address` is the page's own.
pub(super) fn shown(
    bands: &[Band],
    span: Span,
    range: Range,
    address: &str,
    now: Timestamp,
) -> Markup {
    html! {
        h2 #time { "Over time" small {
            @for (at, (other, word, name)) in Span::ALL.iter().enumerate() {
                @if at > 0 { " · " }
                @if *other == span { b { (name) } } @else { a href={ (address) "?span=" (word) "#time" } { (name) } }
            }
        } }
        div.bands.sheet {
            @for band in bands {
                div.band-name { (band.name) }
                (drawn(band, range))
            }
            div.band-name { span.hidden { "Time" } }
            div.axis aria-hidden="true" { @for quarter in 0..=4 { (tick(range, span, quarter)) } }
        }
        details {
            summary { "The same as a table" }
            (listed(bands, range, now))
        }
    }
}

fn drawn(band: &Band, range: Range) -> Markup {
    let label = match band.pieces.len() {
        0 => format!("{}: nothing", band.name),
        many => format!(
            "{}: {}; the table below says the same",
            band.name,
            text::counted(many as u64, "stretch", "stretches")
        ),
    };
    html! {
        svg.band viewBox={ "0 0 " (WIDTH) " 16" } preserveAspectRatio="none" role="img" aria-label=(label) {
            @for piece in &band.pieces {
                @let from = range.at(piece.from).min(WIDTH - LEAST);
                @let to = range.at(piece.to.unwrap_or(range.to)).max(from + LEAST);
                rect class=(state::tone(&piece.word)) x=(from) y="1" width=(to - from) height="14" { title { (text::plain(&piece.says)) ", " (text::utc(piece.from)) } }
            }
        }
    }
}

fn tick(range: Range, span: Span, quarter: i64) -> Markup {
    let whole = range.to.micros_since(range.from);
    let at = Timestamp::from_micros(range.from.as_micros() + whole / 4 * quarter);
    let utc = text::utc(at);
    let (date, time) = utc.split_once(' ').unwrap_or((&utc, ""));
    let short = match span {
        Span::Day => time.get(..5).unwrap_or_default(),
        Span::Week | Span::Month => date.get(5..).unwrap_or_default(),
    };
    html! { time datetime=(at) { (short) } }
}

fn listed(bands: &[Band], range: Range, now: Timestamp) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "What" } th scope="col" { "From" } th scope="col" { "For" } th scope="col" { "" } } }
            tbody {
                @for band in bands {
                    @for piece in band.pieces.iter().rev() {
                        tr {
                            th scope="row" { (band.name) }
                            td { (text::moment(piece.from)) }
                            td.num { (length(piece, range, now)) }
                            td { (state::shape(&piece.word)) " " @match &piece.href { Some(href) => { a href=(href) { (text::plain(&piece.says)) } } None => { (text::plain(&piece.says)) } } }
                        }
                    }
                    @if band.cut { tr { th scope="row" { (band.name) } td colspan="3" { "There was more in this time; a shorter one shows it." } } }
                }
            }
        }
    }
}

fn length(piece: &Piece, range: Range, now: Timestamp) -> String {
    match piece.to {
        Some(to) if to == piece.from => String::new(),
        Some(to) => text::span(to.micros_since(piece.from)),
        None if range.to < now => "past the end".to_owned(),
        None => format!("{} so far", text::span(now.micros_since(piece.from))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn piece(word: &str, from: i64, to: Option<i64>) -> Piece {
        Piece {
            from: at(from),
            to: to.map(at),
            word: word.to_owned(),
            says: word.to_owned(),
            href: None,
        }
    }

    fn words(pieces: &[Piece]) -> Vec<(String, i64, Option<i64>)> {
        let seconds = |time: Timestamp| time.as_micros() / 1_000_000;
        pieces
            .iter()
            .map(|piece| {
                (
                    piece.word.clone(),
                    seconds(piece.from),
                    piece.to.map(seconds),
                )
            })
            .collect()
    }

    #[test]
    fn silence_lies_over_the_verdict_and_what_lasts_stays_open() {
        let range = Range {
            from: at(100),
            to: at(200),
        };
        let states = vec![piece("pristine", 0, Some(150)), piece("drifted", 150, None)];
        let silence = [piece("lost", 120, Some(130)), piece("lost", 190, None)];
        let shown = overlay(states, &silence, range);
        assert_eq!(
            words(&shown),
            [
                ("pristine".to_owned(), 100, Some(120)),
                ("lost".to_owned(), 120, Some(130)),
                ("pristine".to_owned(), 130, Some(150)),
                ("drifted".to_owned(), 150, Some(190)),
                ("lost".to_owned(), 190, None),
            ]
        );
    }

    #[test]
    fn what_ended_before_or_begins_after_is_not_there() {
        let range = Range {
            from: at(100),
            to: at(200),
        };
        let states = vec![piece("pristine", 0, Some(50)), piece("drifted", 250, None)];
        assert!(overlay(states, &[], range).is_empty());
    }

    #[test]
    fn a_moment_can_be_seen_and_nothing_leaves_the_band() {
        let range = Range {
            from: at(0),
            to: at(1_000_000),
        };
        let band = Band {
            name: "Violations",
            pieces: vec![piece("high", 1_000_000, Some(1_000_000))],
            cut: false,
        };
        let svg = drawn(&band, range).into_string();
        assert!(
            svg.contains(r#"x="997""#) && svg.contains(r#"width="3""#),
            "{svg}"
        );
    }

    #[test]
    fn a_span_is_what_the_address_says_or_a_day() {
        assert_eq!(Span::parse(Some("week")), Span::Week);
        assert_eq!(Span::parse(Some("<b>")), Span::Day);
        assert_eq!(Span::parse(None), Span::Day);
        let range = Range::ending(at(86_400), Span::Day);
        assert_eq!(range.from, at(0));
    }
}
