//! The way on from one page of a list: to what is older, or to the next page by its number.

use maud::{Markup, html};

/// Below a list that is read from the newest on: back to where it begins, where this page begins later, and on to what is older.
pub(super) fn older(newest: Option<&str>, older: Option<&str>) -> Markup {
    html! {
        @if newest.is_some() || older.is_some() {
            p.pages {
                @if let Some(newest) = newest { a href=(newest) { "Newest" } }
                @if let Some(older) = older { a href=(older) rel="next" { "Older" } }
            }
        }
    }
}

/// Below a list whose pages have numbers; `to` is a page's address.
pub(super) fn numbered(page: u64, more: bool, to: impl Fn(u64) -> String) -> Markup {
    html! {
        @if page > 1 || more {
            p.pages {
                @if page > 1 { a href=(to(page - 1)) rel="prev" { "Before" } }
                span { "Page " (page) }
                @if more { a href=(to(page + 1)) rel="next" { "Next" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_whole_has_no_way_on() {
        let to = |page: u64| format!("/l?page={page}");
        assert_eq!(older(None, None).into_string(), "");
        assert_eq!(numbered(1, false, to).into_string(), "");
    }

    #[test]
    fn ways_lead_only_to_where_there_is_something() {
        let last = older(Some("/l"), None).into_string();
        assert!(last.contains("Newest") && !last.contains("Older"), "{last}");
        let first = older(None, Some("/l?after=a&x")).into_string();
        assert!(
            first.contains("/l?after=a&amp;x\" rel=\"next\"") && !first.contains("Newest"),
            "{first}"
        );
        let second = numbered(2, true, |page| format!("/l?page={page}")).into_string();
        assert!(
            second.contains("page=1\" rel=\"prev\"") && second.contains("page=3\" rel=\"next\""),
            "{second}"
        );
    }
}
