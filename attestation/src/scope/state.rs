//! Where a walk stands in a scope: one step a component, so that a directory's state serves all that is in it.

use crate::scope::glob::{Component, Glob};
use crate::scope::{Decision, Expect, Scope};

/// What the scope says of one path, and what the rules may still say of paths below it.
///
/// Only rules above the best one so far are followed: a lower one cannot win any more, for a rule covers what is below.
#[derive(Clone, Debug)]
pub struct ScopeState<'a> {
    scope: &'a Scope,
    /// The number of the last rule that matches, from 1; 0 is the built-in one.
    best: usize,
    /// Rules that may still match, from the last to the first, each with the components that may come next, rising.
    live: Vec<Live>,
}

/// The component of a glob that may match the next name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    rule: u16,
    next: u16,
}

impl<'a> ScopeState<'a> {
    pub(super) fn start(scope: &'a Scope) -> Self {
        let mut state = ScopeState {
            scope,
            best: 0,
            live: Vec::new(),
        };
        for (rule, glob) in scope.globs.iter().enumerate().rev() {
            if glob.matches_root() {
                state.best = rule + 1;
                break;
            }
            // A scope has at most 1,000 rules and a glob at most 1,024 bytes.
            state.follow(
                Live {
                    rule: u16::try_from(rule).unwrap_or(u16::MAX),
                    next: 0,
                },
                glob,
            );
        }
        state
    }

    /// The state of `name` in this directory.
    pub fn child(&self, name: &[u8]) -> ScopeState<'a> {
        let mut state = ScopeState {
            scope: self.scope,
            best: self.best,
            live: Vec::new(),
        };
        for live in &self.live {
            let rule = usize::from(live.rule) + 1;
            if state.best >= rule {
                break;
            }
            let glob = &self.scope.globs[usize::from(live.rule)];
            let component = &glob.components[usize::from(live.next)];
            if !component.matches(name) {
                continue;
            }
            if usize::from(live.next) + 1 == glob.components.len() {
                state.best = rule;
                state.live.retain(|other| other.rule != live.rule);
            } else if matches!(component, Component::AnyDepth) {
                state.follow(*live, glob);
            } else {
                state.follow(
                    Live {
                        next: live.next + 1,
                        ..*live
                    },
                    glob,
                );
            }
        }
        state
    }

    /// What is expected here.
    pub fn decision(&self) -> Decision {
        match self.best.checked_sub(1) {
            Some(rule) => {
                let rule = &self.scope.rules[rule];
                Decision {
                    expect: rule.expect,
                    time: rule.time,
                }
            }
            None => Decision::SEALED,
        }
    }

    /// Whether this is ignored and so is everything below: a walk need not go there.
    pub fn ignores_all_below(&self) -> bool {
        let ignored =
            |live: &Live| self.scope.rules[usize::from(live.rule)].expect == Expect::Ignored;
        self.decision().expect == Expect::Ignored && self.live.iter().all(ignored)
    }

    /// Whether nothing below this place is sealed, whatever its name: what is mounted over a directory like `/tmp` hides
    /// nothing that anybody attests.
    pub fn seals_nothing_below(&self) -> bool {
        // From the last rule to the first: the last that matches wins.
        for live in &self.live {
            if self.scope.rules[usize::from(live.rule)].expect == Expect::Sealed {
                return false;
            }
            let components = &self.scope.globs[usize::from(live.rule)].components;
            let rest = components.get(usize::from(live.next)..);
            if matches!(rest, Some([Component::AnyDepth])) {
                return true;
            }
        }
        self.decision().expect != Expect::Sealed
    }

    /// Adds a component that may come next; behind a `**`, which may be nothing, also the one after it.
    fn follow(&mut self, live: Live, glob: &Glob) {
        self.add(live);
        let next = usize::from(live.next);
        if matches!(glob.components[next], Component::AnyDepth) && next + 1 < glob.components.len()
        {
            self.add(Live {
                next: live.next + 1,
                ..live
            });
        }
    }

    /// Two steps ahead is as far as one component reaches, so that a repetition is among the last three.
    fn add(&mut self, live: Live) {
        if !self.live.iter().rev().take(3).any(|other| *other == live) {
            self.live.push(live);
        }
    }
}
