//! The older text form (0.0.4), for programs that know no other: `promtool check metrics` is one. The same samples; counters carry
//! `_total` in their description, and units are not told apart.

use std::collections::HashMap;

/// Whether whoever asks names the older form and not OpenMetrics.
pub(super) fn wants_plain(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| {
        accept.contains("text/plain") && !accept.contains("application/openmetrics-text")
    })
}

/// OpenMetrics text in the older form.
pub(super) fn plain(openmetrics: &str) -> String {
    let kinds: HashMap<&str, &str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let name_of = |name: &str| match kinds.get(name) {
        Some(&"counter") => format!("{name}_total"),
        Some(&"info") => format!("{name}_info"),
        _ => name.to_owned(),
    };
    let mut text = String::new();
    for line in openmetrics.lines() {
        let line = if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            format!("# HELP {} {help}", name_of(name))
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let kind = if kind == "info" { "gauge" } else { kind };
            format!("# TYPE {} {kind}", name_of(name))
        } else if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        } else {
            line.to_owned()
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_info_carry_their_suffix_and_units_go() {
        let openmetrics = "# HELP a Counted.\n# TYPE a counter\na_total{x=\"1\"} 3\n# HELP b_seconds Took.\n# TYPE b_seconds histogram\n\
            # UNIT b_seconds seconds\nb_seconds_sum 1.0\n# HELP c Built.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        assert_eq!(
            plain(openmetrics),
            "# HELP a_total Counted.\n# TYPE a_total counter\na_total{x=\"1\"} 3\n# HELP b_seconds Took.\n# TYPE b_seconds histogram\n\
             b_seconds_sum 1.0\n# HELP c_info Built.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n"
        );
    }

    #[test]
    fn openmetrics_is_what_everybody_else_gets() {
        assert!(!wants_plain(None) && !wants_plain(Some("*/*")));
        assert!(!wants_plain(Some(
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        )));
        assert!(wants_plain(Some("text/plain;version=0.0.4")));
    }
}
