//! Violations and their authors as sentences.

use attestation::scope::Expect;
use attestation::statement::{Actor, Confidence};
use maud::{Markup, html};

use super::{text, value};
use crate::violations::view::{Kind, ViolationView};

/// The node's name, or its id where it has none.
#[must_use]
pub fn node_name(violation: &ViolationView) -> &str {
    if violation.node_name.is_empty() {
        &violation.node
    } else {
        &violation.node_name
    }
}

/// What is wrong, where: the first line of a violation.
#[must_use]
pub fn what(violation: &ViolationView) -> Markup {
    let on = html! { (text::plain(node_name(violation))) };
    told(violation, &on)
}

/// The same for several nodes at once.
#[must_use]
pub fn what_on(violation: &ViolationView, nodes: u64) -> Markup {
    if nodes == 1 {
        what(violation)
    } else {
        told(
            violation,
            &html! { (text::counted(nodes, "node", "nodes")) },
        )
    }
}

fn told(violation: &ViolationView, on: &Markup) -> Markup {
    let path = violation
        .path
        .as_deref()
        .map(text::path)
        .unwrap_or_default();
    let count = violation.count.unwrap_or(0);
    match violation.kind {
        Kind::Difference => difference(violation, &path, on),
        Kind::Many => {
            html! { (text::count(count)) " paths on " (on) " are not what the image says." }
        }
        Kind::Mount => match &violation.mount {
            Some(mount) => {
                html! { code { (text::plain(&mount.source)) } " (" (text::plain(&mount.r#type)) ") is mounted over " (path) " on " (on) "." }
            }
            None => html! { "Something is mounted over " (path) " on " (on) "." },
        },
        Kind::Touched => html! { (path) " on " (on) " was changed and put back." },
        Kind::Gap => html! { (on) " was not watched for a while." },
        Kind::Silence => {
            html! { (on) " is silent: nothing fresh came from it for three intervals." }
        }
        Kind::Fork => html! { "Two machines speak as " (on) ": its key or its disk was copied." },
        Kind::Replay => html! { (on) " sent another node’s statement." },
        Kind::Rewind => html! { (on) " lost a part of its own history and went on." },
        Kind::Unexplained => {
            html! { "What " (on) " tells does not add up to the tree that it signed." }
        }
        Kind::Rollback => html! { (on) " is an older image than it may be." },
        Kind::UnknownImage => html! { (on) " is an image that nobody assigned to it." },
        Kind::Downgrade => html! { (on) " shows less assurance than it was enrolled with." },
        Kind::Flood => html! { (on) " sends more than its budget." },
    }
}

fn difference(violation: &ViolationView, path: &Markup, on: &Markup) -> Markup {
    let has = |name: &str| violation.fields.iter().any(|field| field == name);
    let pinned = matches!(violation.expect, Some(Expect::Local | Expect::Growing));
    if has("unreadable") {
        html! { (path) " on " (on) " could not be read." }
    } else if has("added") {
        let why = if pinned {
            " and was not pinned there."
        } else {
            " and not in the image."
        };
        html! { (path) " is on " (on) (why) }
    } else if has("removed") {
        html! { (path) " is missing on " (on) "." }
    } else {
        let whose = if pinned {
            "is not as it was pinned: "
        } else {
            "is not what the image says: "
        };
        html! { (path) " on " (on) " " (whose) (fields(&violation.fields)) "." }
    }
}

/// `content, size`: the fields in words.
#[must_use]
pub fn fields(fields: &[String]) -> Markup {
    let words: Vec<String> = fields
        .iter()
        .map(|field| {
            if field == "sha256digest" {
                "content".to_owned()
            } else {
                value::label(field)
            }
        })
        .collect();
    html! { @for (at, word) in words.iter().enumerate() { @if at > 0 { ", " } (text::encoded(word)) } }
}

/// Who did it, short: the login user, the program, the unit or the container.
#[must_use]
pub fn who(actor: Option<&Actor>) -> Markup {
    let Some(actor) = actor else {
        return html! { span.none { "not known" } };
    };
    if actor.exe.is_none() && actor.user.is_none() && actor.auid.or(actor.uid).is_none() {
        return html! { "process " (actor.pid) ", gone since" };
    }
    html! {
        (user(actor))
        @if let Some(exe) = &actor.exe { " with " code { (text::encoded(base(exe))) } }
        @if let Some(unit) = &actor.unit { " in " code { (text::plain(unit)) } }
        @else if let Some(container) = &actor.container { " in container " code { (text::plain(&container.chars().take(12).collect::<String>())) } }
    }
}

/// The login user where there was a login, else the real one.
#[must_use]
pub fn user(actor: &Actor) -> Markup {
    match (&actor.user, actor.auid.or(actor.uid)) {
        (Some(name), _) => text::plain(name),
        (None, Some(0)) => html! { "root" },
        (None, Some(id)) => html! { "user " (id) },
        (None, None) => html! { "not known" },
    }
}

/// The last part of an executable's path.
#[must_use]
pub fn base(exe: &str) -> &str {
    exe.rsplit('/')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or(exe)
}

/// The chain of processes, first to last.
#[must_use]
pub fn chain(actor: &Actor) -> Markup {
    let own = (actor.pid, actor.exe.as_deref());
    let line: Vec<(u32, Option<&str>)> = actor
        .ancestors
        .iter()
        .rev()
        .map(|parent| (parent.pid, parent.exe.as_deref()))
        .chain([own])
        .collect();
    let last = line.len() - 1;
    html! {
        ol.chain aria-label="Processes, from the first parent to the one that made the change" {
            @for (at, (pid, exe)) in line.iter().enumerate() {
                li title={ (exe.unwrap_or("executable not known")) ", process " (pid) } {
                    @let name = exe.map_or_else(|| html! { "process " (pid) }, |exe| text::encoded(base(exe)));
                    @if at == last { b { (name) } } @else { (name) }
                }
            }
        }
    }
}

/// How sure we are, in words.
#[must_use]
pub fn confidence(actor: &Actor) -> &'static str {
    match actor.confidence {
        Confidence::High => "sure: the process was followed from its start",
        Confidence::Medium => "fairly sure: part of it was seen as it happened",
        Confidence::Low => "not sure: read from the process table when the event was read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::sample;

    #[test]
    fn a_difference_is_told_with_its_path_node_and_fields() {
        let told = what(&sample::violation()).into_string();
        assert!(
            told.contains("ping") && told.contains(" on web-17 is not what the image says: mode."),
            "{told}"
        );
        let mut added = sample::violation();
        added.fields = vec!["added".to_owned()];
        assert!(
            what_on(&added, 12)
                .into_string()
                .ends_with(" is on 12 nodes and not in the image.")
        );
    }

    #[test]
    fn hostile_names_stay_text() {
        let mut violation = sample::violation();
        violation.node_name = "<img src=x>\u{202e}".to_owned();
        violation.path = Some("./a\\012<b>".to_owned());
        let told = what(&violation).into_string();
        assert!(
            told.contains("&lt;img src=x&gt;")
                && told.contains("\\u{202e}")
                && told.contains("\\012</span>&lt;b&gt;"),
            "{told}"
        );
    }

    #[test]
    fn the_chain_ends_with_the_process_that_did_it() {
        let shown = chain(&sample::actor()).into_string();
        let (sshd, bash, chmod) = (
            shown.find(">sshd<"),
            shown.find(">bash<"),
            shown.find("<b>chmod</b>"),
        );
        assert!(sshd < bash && bash < chmod && sshd.is_some(), "{shown}");
        assert!(
            who(Some(&sample::actor()))
                .into_string()
                .starts_with("mallory with <code>chmod</code> in <code>ssh.service")
        );
    }
}
