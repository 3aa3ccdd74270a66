//! Expected and found, attribute by attribute, with what differs marked inside the value.

use attestation::entry::{Entry, InodeFlags, Kind, Line, XattrValue};

use super::{acl, capability, text};

/// A part of a value, and whether it differs from the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// As shown; in the mtree encoding where it came as bytes.
    pub text: String,
    /// Whether the other side has something else here.
    pub differs: bool,
}

/// One line of a value: an ACL entry, a capability, or the whole of a plain value.
pub type Item = Vec<Piece>;

/// One attribute on both sides. `None` is an attribute that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The attribute in words.
    pub label: String,
    /// As the image has it.
    pub expected: Option<Vec<Item>>,
    /// As it was found.
    pub found: Option<Vec<Item>>,
    /// Whether the value is a digest, which shows its first digits only.
    pub digest: bool,
}

/// What is compared how.
enum Value {
    /// Characters at one place mean the same thing (mode bits).
    Places(String),
    /// Free text: what stands between a common beginning and a common end differs.
    Text(String),
    /// Lines that are there or not.
    Lines(Vec<String>),
    /// A digest: differs as a whole.
    Digest(String),
}

const ACCESS_LIST: &str = "xattr.system.posix_acl_access";

/// The names of what differs between two entry lines, as `fields[]` has them.
#[must_use]
pub fn fields(expected: Option<&str>, found: Option<&str>) -> Vec<String> {
    let entry = |line: Option<&str>| {
        line.and_then(|line| Line::parse(line).ok())
            .map(|line| line.entry())
    };
    attestation::entry::fields(entry(expected).as_ref(), entry(found).as_ref())
}

/// The attributes that differ, by the names of `fields[]`. An entry added or removed shows all it has.
#[must_use]
pub fn compare(fields: &[String], expected: Option<&str>, found: Option<&str>) -> Vec<Compared> {
    let parse = |line: Option<&str>| {
        line.and_then(|line| Line::parse(line).ok())
            .map(|line| line.entry())
    };
    let (expected, found) = (parse(expected), parse(found));
    let whole = expected.is_none() || found.is_none() || fields.iter().any(|field| field == "type");
    let names: Vec<String> = if whole {
        let mut names: Vec<String> = Vec::new();
        for entry in [&expected, &found].into_iter().flatten() {
            for name in attributes(entry) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    } else {
        fields.to_vec()
    };
    let both = expected.is_some() && found.is_some();
    let differing = |name: &str| -> Option<Compared> {
        let side = |entry: Option<&Entry>| {
            let entry = entry?;
            // Without a list of its own a file has the one that its mode says.
            value(entry, name).or_else(|| {
                (both && name == ACCESS_LIST).then(|| Value::Lines(acl::of_mode(entry.mode)))
            })
        };
        let (a, b) = (side(expected.as_ref()), side(found.as_ref()));
        if a.is_none() && b.is_none() {
            return None;
        }
        let digest = matches!(a.as_ref().or(b.as_ref()), Some(Value::Digest(_)));
        let (expected, found) = mark(a, b, both);
        Some(Compared {
            label: label(name),
            expected,
            found,
            digest,
        })
    };
    names.iter().filter_map(|name| differing(name)).collect()
}

fn attributes(entry: &Entry) -> Vec<String> {
    let own = [
        "type",
        "mode",
        "uid",
        "gid",
        "time",
        "flags",
        "size",
        "sha256digest",
        "link",
        "device",
    ];
    let extended = entry.xattrs.iter().map(|xattr| {
        format!(
            "xattr.{}",
            attestation::path::encode_component_bytes(&xattr.name)
        )
    });
    own.into_iter()
        .map(str::to_owned)
        .chain(extended)
        .filter(|name| value(entry, name).is_some())
        .collect()
}

/// An attribute's name in words.
#[must_use]
pub fn label(field: &str) -> String {
    match field {
        "type" => "type".to_owned(),
        "mode" => "mode".to_owned(),
        "uid" => "owner".to_owned(),
        "gid" => "group".to_owned(),
        "time" => "modified".to_owned(),
        "flags" => "flags".to_owned(),
        "size" => "size".to_owned(),
        "sha256digest" => "content (SHA-256)".to_owned(),
        "link" => "link target".to_owned(),
        "device" => "device".to_owned(),
        "added" => "not in the image".to_owned(),
        "removed" => "missing".to_owned(),
        "unreadable" => "could not be read".to_owned(),
        "mount" => "something is mounted here".to_owned(),
        "xattr.security.capability" => "capabilities".to_owned(),
        ACCESS_LIST => "access list".to_owned(),
        "xattr.system.posix_acl_default" => "default access list".to_owned(),
        "xattr.security.selinux" => "SELinux label".to_owned(),
        "xattr.security.ima" => "IMA signature".to_owned(),
        other => other
            .strip_prefix("xattr.")
            .map_or_else(|| other.to_owned(), |name| format!("attribute {name}")),
    }
}

fn value(entry: &Entry, name: &str) -> Option<Value> {
    Some(match (name, &entry.kind) {
        ("type", kind) => Value::Text(kind_in_words(kind).to_owned()),
        ("mode", _) => Value::Places(mode(entry.mode)),
        ("uid", _) => Value::Text(id(entry.uid)),
        ("gid", _) => Value::Text(id(entry.gid)),
        ("time", _) => {
            let time = entry.time.as_ref()?;
            Value::Text(format!("{}.{:09}", time.seconds, time.nanos))
        }
        ("flags", _) => Value::Lines(flags(&entry.flags)?),
        ("size", Kind::File { size, .. }) => Value::Text(text::counted(*size, "byte", "bytes")),
        (
            "sha256digest",
            Kind::File {
                sha256: Some(digest),
                ..
            },
        ) => Value::Digest(digest.to_string()),
        ("link", Kind::Link { target }) => {
            Value::Text(attestation::path::encode_component_bytes(target))
        }
        ("device", Kind::Char { major, minor } | Kind::Block { major, minor }) => {
            Value::Text(format!("{major}, {minor}"))
        }
        _ => {
            let wanted = name.strip_prefix("xattr.")?;
            let xattr = entry
                .xattrs
                .iter()
                .find(|xattr| attestation::path::encode_component_bytes(&xattr.name) == wanted)?;
            xattr_value(wanted, &xattr.value)
        }
    })
}

fn xattr_value(name: &str, value: &XattrValue) -> Value {
    let bytes = match value {
        XattrValue::Hashed(digest) => return Value::Digest(digest.to_string()),
        XattrValue::Plain(bytes) => bytes,
    };
    let decoded = match name {
        "security.capability" => capability::decode(bytes),
        "system.posix_acl_access" | "system.posix_acl_default" => acl::decode(bytes),
        _ => None,
    };
    if let Some(lines) = decoded {
        return Value::Lines(lines);
    }
    // A label's closing NUL is no part of what people read.
    let shown = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    Value::Text(if shown.is_empty() {
        "empty".to_owned()
    } else {
        attestation::path::encode_component_bytes(shown)
    })
}

fn kind_in_words(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "regular file",
        Kind::Dir => "directory",
        Kind::Link { .. } => "symbolic link",
        Kind::Char { .. } => "character device",
        Kind::Block { .. } => "block device",
        Kind::Fifo => "named pipe",
        Kind::Socket => "socket",
    }
}

/// `4755 rwsr-xr-x`.
#[must_use]
pub fn mode(mode: u16) -> String {
    let bit = |mask: u16, letter: char| if mode & mask != 0 { letter } else { '-' };
    let exec = |mask: u16, special: u16, both: char, alone: char| match (
        mode & mask != 0,
        mode & special != 0,
    ) {
        (true, true) => both,
        (false, true) => alone,
        (true, false) => 'x',
        (false, false) => '-',
    };
    let letters: String = [
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        exec(0o100, 0o4000, 's', 'S'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        exec(0o010, 0o2000, 's', 'S'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        exec(0o001, 0o1000, 't', 'T'),
    ]
    .iter()
    .collect();
    format!("{mode:04o} {letters}")
}

fn id(number: u32) -> String {
    if number == 0 {
        "0 (root)".to_owned()
    } else {
        number.to_string()
    }
}

fn flags(flags: &InodeFlags) -> Option<Vec<String>> {
    let named = [
        (flags.immutable, "immutable"),
        (flags.append_only, "append only"),
    ];
    let lines: Vec<String> = named
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| (*name).to_owned())
        .collect();
    (!lines.is_empty()).then_some(lines)
}

type Sides = (Option<Vec<Item>>, Option<Vec<Item>>);

/// `both`: there is an entry on both sides, so that an attribute of one side only differs.
fn mark(a: Option<Value>, b: Option<Value>, both: bool) -> Sides {
    match (a, b) {
        (Some(Value::Places(a)), Some(Value::Places(b))) => {
            let (a, b) = places(&a, &b);
            (Some(vec![a]), Some(vec![b]))
        }
        (Some(Value::Text(a)), Some(Value::Text(b))) => {
            let (a, b) = middle(&a, &b);
            (Some(vec![a]), Some(vec![b]))
        }
        (Some(Value::Lines(a)), Some(Value::Lines(b))) => {
            (Some(lines(&a, &b)), Some(lines(&b, &a)))
        }
        (a, b) => {
            let same =
                matches!((&a, &b), (Some(Value::Digest(a)), Some(Value::Digest(b))) if a == b);
            let differs = !same && (both || (a.is_some() && b.is_some()));
            (whole(a, differs), whole(b, differs))
        }
    }
}

fn whole(value: Option<Value>, differs: bool) -> Option<Vec<Item>> {
    Some(match value? {
        Value::Places(text) | Value::Text(text) | Value::Digest(text) => {
            vec![vec![Piece { text, differs }]]
        }
        Value::Lines(lines) => lines
            .into_iter()
            .map(|text| vec![Piece { text, differs }])
            .collect(),
    })
}

fn lines(these: &[String], others: &[String]) -> Vec<Item> {
    these
        .iter()
        .map(|text| {
            vec![Piece {
                text: text.clone(),
                differs: !others.contains(text),
            }]
        })
        .collect()
}

fn places(a: &str, b: &str) -> (Item, Item) {
    let (mut left, mut right): (Item, Item) = (Vec::new(), Vec::new());
    for (x, y) in a.chars().zip(b.chars()) {
        push(&mut left, x, x != y);
        push(&mut right, y, x != y);
    }
    (left, right)
}

fn push(item: &mut Item, c: char, differs: bool) {
    match item.last_mut() {
        Some(piece) if piece.differs == differs => piece.text.push(c),
        _ => item.push(Piece {
            text: c.to_string(),
            differs,
        }),
    }
}

fn middle(a: &str, b: &str) -> (Item, Item) {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let shorter = a.len().min(b.len());
    let mut head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    // An escape is shown whole or not at all.
    if let Some(slash) = a[..head].iter().rposition(|c| *c == '\\')
        && head - slash < 4
    {
        head = slash;
    }
    let tail = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take(shorter - head)
        .take_while(|(x, y)| x == y)
        .count();
    // A tail may not begin inside an escape either: digits next to the difference go with it.
    let inside = a[a.len() - tail..]
        .iter()
        .take_while(|c| c.is_ascii_digit())
        .count();
    let numeric = a[head..a.len() - tail]
        .iter()
        .chain(&b[head..b.len() - tail])
        .any(|c| *c == '\\');
    let tail = if numeric { tail - inside } else { tail };
    (cut(&a, head, tail), cut(&b, head, tail))
}

fn cut(chars: &[char], head: usize, tail: usize) -> Item {
    let end = chars.len() - tail;
    [
        (&chars[..head], false),
        (&chars[head..end], true),
        (&chars[end..], false),
    ]
    .into_iter()
    .filter(|(part, _)| !part.is_empty())
    .map(|(part, differs)| Piece {
        text: part.iter().collect(),
        differs,
    })
    .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    fn line(mode: &str, rest: &str) -> String {
        format!(
            "./usr/bin/ping type=file mode={mode} uid=0 gid=0 size=3 sha256digest={}{rest}",
            "a".repeat(64)
        )
    }

    fn shown(side: Option<&Vec<Item>>) -> String {
        let item = |item: &Item| {
            item.iter()
                .map(|p| {
                    if p.differs {
                        format!("[{}]", p.text)
                    } else {
                        p.text.clone()
                    }
                })
                .collect::<String>()
        };
        side.map_or("-".to_owned(), |items| {
            items.iter().map(item).collect::<Vec<_>>().join(" | ")
        })
    }

    fn one(field: &str, expected: &str, found: &str) -> (String, String) {
        let rows = compare(&[field.to_owned()], Some(expected), Some(found));
        assert_eq!(rows.len(), 1, "{rows:?}");
        (
            shown(rows[0].expected.as_ref()),
            shown(rows[0].found.as_ref()),
        )
    }

    #[test]
    fn mode_bits_are_spelled_out_and_marked_where_they_differ() {
        assert_eq!(mode(0o755), "0755 rwxr-xr-x");
        assert_eq!(mode(0o4755), "4755 rwsr-xr-x");
        assert_eq!(mode(0o7000), "7000 --S--S--T");
        assert_eq!(mode(0o1777), "1777 rwxrwxrwt");
        let (expected, found) = one("mode", &line("0755", ""), &line("4755", ""));
        assert_eq!(
            (expected.as_str(), found.as_str()),
            ("[0]755 rw[x]r-xr-x", "[4]755 rw[s]r-xr-x")
        );
    }

    #[test]
    fn a_capability_that_is_new_is_marked_and_named() {
        // cap_net_raw=ep, then cap_net_raw and cap_setuid.
        let (expected, found) = one(
            "xattr.security.capability",
            &line(
                "0755",
                " xattr.security.capability=AQAAAgAgAAAAAAAAAAAAAAAAAAA=",
            ),
            &line(
                "0755",
                " xattr.security.capability=AQAAAoAgAAAAAAAAAAAAAAAAAAA=",
            ),
        );
        assert_eq!(
            (expected.as_str(), found.as_str()),
            ("cap_net_raw=ep", "[cap_setuid=ep] | cap_net_raw=ep")
        );
    }

    #[test]
    fn an_attribute_on_one_side_only_is_shown_there() {
        let rows = compare(
            &["xattr.user.note".to_owned()],
            Some(&line("0755", "")),
            Some(&line("0755", " xattr.user.note=aGkKCg==")),
        );
        assert_eq!(
            (
                rows[0].label.as_str(),
                shown(rows[0].expected.as_ref()).as_str()
            ),
            ("attribute user.note", "-")
        );
        assert_eq!(shown(rows[0].found.as_ref()), "[hi\\012\\012]");
    }

    #[test]
    fn a_new_access_list_is_compared_with_what_the_mode_said() {
        // user::rw-, user:33:rw-, group::r--, mask::rw-, other::---
        let list = " xattr.system.posix_acl_access=AgAAAAEABgD/////AgAGACEAAAAEAAQA/////xAABgD/////IAAAAP////8=";
        let (expected, found) = one(
            "xattr.system.posix_acl_access",
            &line("0640", ""),
            &line("0660", list),
        );
        assert_eq!(expected, "user::rw- | group::r-- | other::---");
        assert_eq!(
            found,
            "user::rw- | [user:33:rw-] | group::r-- | [mask::rw-] | other::---"
        );
    }

    #[test]
    fn an_added_file_shows_all_it_has() {
        let rows = compare(&["added".to_owned()], None, Some(&line("0644", "")));
        let labels: Vec<&str> = rows.iter().map(|row| row.label.as_str()).collect();
        assert_eq!(
            labels,
            [
                "type",
                "mode",
                "owner",
                "group",
                "size",
                "content (SHA-256)"
            ]
        );
        assert!(rows.iter().all(|row| row.expected.is_none()));
    }

    #[test]
    fn a_file_that_became_a_directory_tells_both() {
        let dir = "./usr/bin/ping type=dir mode=0755 uid=0 gid=0";
        let rows = compare(&["type".to_owned()], Some(&line("0755", "")), Some(dir));
        assert_eq!(shown(rows[0].expected.as_ref()), "[regular file]");
        assert!(
            rows.iter()
                .any(|row| row.label == "size" && row.found.is_none())
        );
    }

    #[test]
    fn link_targets_differ_in_their_middle_and_never_inside_an_escape() {
        let link = |to: &str| format!("./a type=link mode=0777 uid=0 gid=0 link={to}");
        assert_eq!(
            one("link", &link("/usr/bin/x"), &link("/usr/lib/x")),
            (
                "/usr/[b]i[n]/x".replace("[b]i[n]", "[bin]"),
                "/usr/[lib]/x".to_owned()
            )
        );
        assert_eq!(
            one("link", &link("a\\012b"), &link("a\\015b")),
            ("a[\\012]b".to_owned(), "a[\\015]b".to_owned())
        );
    }

    #[test]
    fn lines_that_cannot_be_read_show_nothing_rather_than_something_wrong() {
        assert_eq!(compare(&["mode".to_owned()], Some("garbage"), None), []);
    }
}
