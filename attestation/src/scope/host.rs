//! The built-in scope `host`: what changes on an idle Debian server is left out rule by rule, each with its reason.

use std::sync::LazyLock;

use crate::scope::{Expect, Rule, Scope};

/// A rule of the built-in scope, with why it is there.
#[derive(Clone, Debug)]
pub struct HostRule {
    /// The rule.
    pub rule: Rule,
    /// Why, in one sentence.
    pub reason: &'static str,
}

/// The rules in their order.
pub fn rules() -> &'static [HostRule] {
    static RULES: LazyLock<Vec<HostRule>> = LazyLock::new(|| {
        let rule = |(glob, expect, reason): &(&str, Expect, &'static str)| HostRule {
            rule: Rule {
                r#match: (*glob).to_owned(),
                expect: *expect,
                time: false,
            },
            reason,
        };
        TABLE.iter().map(rule).collect()
    });
    &RULES
}

/// The scope.
pub fn scope() -> Scope {
    match Scope::new(rules().iter().map(|host| host.rule.clone()).collect()) {
        Ok(scope) => scope,
        Err(_) => unreachable!("the built-in rules are compiled in a test"),
    }
}

const TABLE: &[(&str, Expect, &str)] = &[(
    "proc/**",
    Expect::Ignored,
    "the kernel's own view of processes",
)];
