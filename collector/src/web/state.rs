//! States: a word, a shape and a colour, always together.

use maud::{Markup, html};

/// The colour's class for a status, a verdict or a severity.
#[must_use]
pub fn tone(word: &str) -> &'static str {
    match word {
        "pristine" | "resolved" => "good",
        "stale" | "incomplete" | "medium" => "warn",
        "pending" | "suspended" | "stopped" | "retired" | "low" => "quiet",
        _ => "bad",
    }
}

/// The shape for a state, in its own colour.
#[must_use]
pub fn shape(word: &str) -> Markup {
    html! {
        svg viewBox="0 0 12 12" aria-hidden="true" focusable="false" {
            @match word {
                "pristine" | "resolved" => { circle cx="6" cy="6" r="5" fill="currentColor" {} }
                "drifted" | "open" | "critical" | "high" => { path d="M6 0.3 11.7 6 6 11.7 0.3 6Z" fill="currentColor" {} }
                "stale" | "incomplete" | "medium" => {
                    circle cx="6" cy="6" r="4.75" fill="none" stroke="currentColor" stroke-width="1.5" {}
                    path d="M6 1a5 5 0 0 1 0 10Z" fill="currentColor" {}
                }
                "pending" | "suspended" | "stopped" | "retired" | "low" => {
                    circle cx="6" cy="6" r="4.5" fill="none" stroke="currentColor" stroke-width="2" {}
                }
                _ => { path d="M1.5 1.5 10.5 10.5M10.5 1.5 1.5 10.5" fill="none" stroke="currentColor" stroke-width="2.6" stroke-linecap="round" {} }
            }
        }
    }
}

/// The mark and the word.
#[must_use]
pub fn state(word: &str) -> Markup {
    html! { span class={ "state " (tone(word)) } { (shape(word)) (word.replace('-', " ")) } }
}

/// A small word that stands beside something.
#[must_use]
pub fn tag(word: &str, tone: &str) -> Markup {
    html! { span class={ "tag " (tone) } { (word) } }
}

/// The states in the order in which they are counted: worst first, what is well last.
pub const ORDER: [&str; 13] = [
    "forked",
    "unexplained",
    "rollback",
    "unknown-image",
    "banned",
    "lost",
    "drifted",
    "stale",
    "incomplete",
    "pending",
    "suspended",
    "stopped",
    "pristine",
];

/// Where a state stands in [`ORDER`].
#[must_use]
pub fn rank(word: &str) -> usize {
    ORDER.iter().position(|state| *state == word).unwrap_or(4)
}

/// A bar of how many are in which state; each part leads to them. It is for the eye and the pointer: the list below it says the same, with
/// links that a keyboard reaches.
#[must_use]
pub fn bar(counts: &[(String, u64)]) -> Markup {
    const WIDTH: f64 = 1_000.0;
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    #[allow(clippy::cast_precision_loss, reason = "a width on a screen")]
    let share = |count: u64| {
        if total == 0 {
            0.0
        } else {
            count as f64 / total as f64 * WIDTH
        }
    };
    let mut at = 0.0;
    let parts: Vec<(&str, f64, f64)> = counts
        .iter()
        .map(|(word, count)| {
            let part = (word.as_str(), at, share(*count));
            at += share(*count);
            part
        })
        .collect();
    html! {
        svg.bar viewBox={ "0 0 " (WIDTH) " 12" } preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            @for (word, from, width) in parts {
                a href={ "/nodes?status=" (word) } tabindex="-1" { rect class=(tone(word)) x=(format!("{from:.2}")) y="0" width=(format!("{:.2}", (width - 2.0).max(1.5))) height="12" { title { (word) } } }
            }
        }
        ul.legend {
            @for (word, count) in counts {
                li { a href={ "/nodes?status=" (word) } { (state(word)) " " b { (super::text::count(*count)) } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_a_shape_and_a_colour() {
        for word in ORDER {
            let shown = state(word).into_string();
            assert!(
                shown.contains("<svg") && shown.contains(&word.replace('-', " ")),
                "{shown}"
            );
        }
        assert_eq!(tone("pristine"), "good");
        assert_eq!(tone("anything new"), "bad");
        assert_ne!(
            shape("pristine").into_string(),
            shape("pending").into_string()
        );
    }

    #[test]
    fn the_bar_gives_each_state_its_share() {
        let shown = bar(&[("drifted".to_owned(), 1), ("pristine".to_owned(), 3)]).into_string();
        assert!(
            shown.contains("width=\"248.00\"") && shown.contains("width=\"748.00\""),
            "{shown}"
        );
    }
}
