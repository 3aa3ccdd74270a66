//! Which paths are attested, and what is expected of each (FORMATS.md section 6).
//!
//! A scope is an ordered list of rules, of which the last that matches wins; it is compiled once and then followed
//! component by component ([`ScopeState`]), so that a decision is linear in the path whatever the rules are.

mod glob;
pub mod host;
mod rule;
mod state;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::path::ImagePath;
use crate::scope::glob::Glob;

pub use glob::GlobError;
pub use rule::{Decision, Expect, Rule};
pub use state::ScopeState;

/// The most rules of a scope.
pub const MAX_RULES: usize = 1_000;

/// Compiled rules. The built-in first rule, `** sealed`, is always there and never listed.
#[derive(Clone, Debug)]
pub struct Scope {
    rules: Vec<Rule>,
    globs: Vec<Glob>,
}

/// Why rules are not a scope.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// Above 1,000 rules.
    #[error("a scope has at most {MAX_RULES} rules, not {0}")]
    TooMany(usize),
    /// A rule whose glob is refused.
    #[error("rule {number}, `{glob}`")]
    Glob {
        /// Counted from 1.
        number: usize,
        /// The glob, made printable.
        glob: String,
        /// What is wrong with it.
        #[source]
        source: GlobError,
    },
    /// Not a JSON array of rules.
    #[error("a scope is a JSON array of rules {{match, expect, time}}")]
    Json(#[from] serde_json::Error),
}

impl Scope {
    /// Compiles rules.
    pub fn new(rules: Vec<Rule>) -> Result<Self, ScopeError> {
        if rules.len() > MAX_RULES {
            return Err(ScopeError::TooMany(rules.len()));
        }
        let compile = |(index, rule): (usize, &Rule)| {
            Glob::parse(&rule.r#match).map_err(|source| ScopeError::Glob {
                number: index + 1,
                glob: rule.r#match.escape_debug().take(glob::MAX_GLOB).collect(),
                source,
            })
        };
        let globs = rules
            .iter()
            .enumerate()
            .map(compile)
            .collect::<Result<_, _>>()?;
        Ok(Scope { rules, globs })
    }

    /// The scope without a rule: everything is sealed.
    pub fn sealed_all() -> Self {
        Scope {
            rules: Vec::new(),
            globs: Vec::new(),
        }
    }

    /// Reads a scope file.
    pub fn from_json(json: &[u8]) -> Result<Self, ScopeError> {
        Self::new(serde_json::from_slice(json)?)
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// SHA-256 of the canonical JSON of the rules.
    pub fn digest(&self) -> Digest {
        Digest::of(&rule::canonical(&self.rules))
    }

    /// What is expected of a path.
    pub fn decide(&self, path: &ImagePath) -> Decision {
        path.components()
            .fold(self.start(), |state, name| state.child(name))
            .decision()
    }

    /// Where a walk begins: at the root.
    pub fn start(&self) -> ScopeState<'_> {
        ScopeState::start(self)
    }

    /// The paths that a rule names literally: a file system mounted there is attested too.
    pub fn literal_mounts(&self) -> Vec<ImagePath> {
        let literal = |glob: &Glob| {
            glob.literal()
                .and_then(|raw| ImagePath::from_bytes(raw).ok())
        };
        let mut paths: Vec<ImagePath> = self.globs.iter().filter_map(literal).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::sealed_all()
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Scope {}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.rules.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refuse = |error: ScopeError| match &error {
            ScopeError::Glob { source, .. } => D::Error::custom(format_args!("{error}: {source}")),
            _ => D::Error::custom(&error),
        };
        Scope::new(Vec::deserialize(deserializer)?).map_err(refuse)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn scope(rules: &[(&str, Expect)]) -> Scope {
        let rule = |(glob, expect): &(&str, Expect)| Rule {
            r#match: (*glob).to_owned(),
            expect: *expect,
            time: false,
        };
        Scope::new(rules.iter().map(rule).collect()).unwrap()
    }

    fn expected(scope: &Scope, path: &str) -> Expect {
        scope.decide(&path.parse().unwrap()).expect
    }

    #[test]
    fn depth() {
        use Expect::*;
        for (glob, yes, no) in [
            ("**", &[".", "./a", "./a/b"][..], &[][..]),
            ("*", &["./a", "./a/b", "./.x"], &["."]),
            ("**/**", &["./a", "./a/b"], &["."]),
            (
                "**/x",
                &["./x", "./a/x", "./a/b/x", "./x/below"],
                &[".", "./ax", "./a"],
            ),
            (
                "a/**/b",
                &["./a/b", "./a/x/b", "./a/x/y/b", "./a/b/c"],
                &["./a", "./b", "./a/x", "./ab"],
            ),
            ("a/**", &["./a/b", "./a/b/c"], &[".", "./a", "./b"]),
            ("a/**/**", &["./a/b", "./a/b/c"], &["./a"]),
            (
                "a/**/b/**/c",
                &["./a/b/c", "./a/x/b/y/z/c", "./a/b/b/c"],
                &["./a/b", "./a/c"],
            ),
            ("**/a/**", &["./a/x", "./b/a/x"], &["./a", "./b/a", "./b/c"]),
            ("a/*/c", &["./a/b/c", "./a/b/c/d"], &["./a/c", "./a/b"]),
            ("*/*", &["./a/b", "./a/b/c"], &["./a"]),
        ] {
            let scope = scope(&[(glob, Ignored)]);
            for path in yes {
                assert_eq!(expected(&scope, path), Ignored, "{glob} {path}");
            }
            for path in no {
                assert_eq!(expected(&scope, path), Sealed, "{glob} {path}");
            }
        }
    }

    #[test]
    fn the_last_match_wins_also_from_above() {
        use Expect::*;
        let later_parent = scope(&[("var/lib/x", Local), ("var", Ignored)]);
        assert_eq!(expected(&later_parent, "./var/lib/x/y"), Ignored);
        let later_all = scope(&[("var", Ignored), ("**", Growing), ("etc", Local)]);
        assert_eq!(expected(&later_all, "."), Growing);
        assert_eq!(expected(&later_all, "./var/x"), Growing);
        assert_eq!(expected(&later_all, "./etc/x"), Local);
    }

    #[test]
    fn a_walk_knows_what_it_need_not_enter() {
        use Expect::*;
        let scope = scope(&[
            ("var", Ignored),
            ("var/cache/*", Ignored),
            ("var/lib/dpkg", Sealed),
        ]);
        let var = scope.start().child(b"var");
        assert!(!var.ignores_all_below());
        assert!(var.child(b"cache").ignores_all_below());
        assert!(!var.child(b"lib").ignores_all_below());
        assert!(var.child(b"lib").child(b"apt").ignores_all_below());
        assert!(!scope.start().child(b"usr").ignores_all_below());
    }

    #[test]
    fn limits() {
        let rule = Rule {
            r#match: "a".to_owned(),
            expect: Expect::Sealed,
            time: false,
        };
        assert!(Scope::new(vec![rule.clone(); MAX_RULES]).is_ok());
        assert!(matches!(
            Scope::new(vec![rule; MAX_RULES + 1]),
            Err(ScopeError::TooMany(1_001))
        ));
    }

    #[test]
    fn scope_files() {
        let read = |json: &str| Scope::from_json(json.as_bytes());
        let rule = read(r#"[{"match":"a","expect":"growing"}]"#)
            .unwrap()
            .rules()[0]
            .clone();
        assert_eq!(
            rule,
            Rule {
                r#match: "a".to_owned(),
                expect: Expect::Growing,
                time: false
            }
        );
        for wrong in [
            "",
            "{}",
            "null",
            r#"["a"]"#,
            r#"[["a","sealed",false]]"#,
            r#"[{"match":"a"}]"#,
            r#"[{"expect":"sealed"}]"#,
            r#"[{"match":"a","expect":"Sealed"}]"#,
            r#"[{"match":"a","expect":"sealed","time":null}]"#,
            r#"[{"match":"a","expect":"sealed","time":0}]"#,
            r#"[{"match":"a","expect":"sealed","reason":"x"}]"#,
            r#"[{"match":"a","expect":"sealed","match":"b"}]"#,
            r#"[{"match":"a","expect":"sealed"}] x"#,
            r#"[{"match":"a?","expect":"sealed"}]"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn literal_paths() {
        use Expect::*;
        let scope = scope(&[
            ("srv/a\\040b", Sealed),
            ("srv/*", Local),
            ("boot", Sealed),
            ("boot", Local),
        ]);
        let shown: Vec<String> = scope
            .literal_mounts()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["./boot", "./srv/a\\040b"]);
    }
}
