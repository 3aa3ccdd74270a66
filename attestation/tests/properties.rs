//! What holds for every input, tried on many: the forms survive a round trip, a tree depends on its entries alone, proofs
//! cannot be bent, and the scope decides as a slow reading of its definition does.
//!
//! `PROPTEST_CASES` asks for more cases than the default.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use attestation::digest::Digest;
use attestation::entry::{Entry, FileTime, InodeFlags, Kind, Line, Xattr, XattrValue};
use attestation::manifest::{ManifestReader, ManifestWriter};
use attestation::path::ImagePath;
use attestation::scope::{Expect, Rule, Scope};
use attestation::tree::{Presence, Tree};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(128),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no name has it", |byte| !matches!(byte, 0 | b'/'));
    vec(byte, 1..12).prop_filter("no component", |name| name != b"." && name != b"..")
}

fn path() -> impl Strategy<Value = ImagePath> {
    vec(name(), 0..5).prop_map(|names| ImagePath::from_bytes(names.join(&b'/')).unwrap())
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (any::<u64>(), option::of(any::<[u8; 32]>())).prop_map(|(size, sha256)| Kind::File {
            size,
            sha256: sha256.map(Digest::from_bytes)
        }),
        Just(Kind::Dir),
        vec(any::<u8>(), 1..20).prop_map(|target| Kind::Link { target }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Kind::Char { major, minor }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Kind::Block { major, minor }),
        Just(Kind::Fifo),
        Just(Kind::Socket),
    ]
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let fixed = select(vec![
        &b"security.capability"[..],
        b"security.selinux",
        b"system.posix_acl_access",
    ]);
    let user = vec(any::<u8>(), 1..8).prop_map(|name| [b"user.", &name[..]].concat());
    let name = prop_oneof![fixed.prop_map(<[u8]>::to_vec), user];
    let value = prop_oneof![
        vec(any::<u8>(), 0..40),
        (1_020_usize..1_030).prop_map(|length| vec![7; length])
    ];
    btree_map(name, value, 0..4).prop_map(|attributes| {
        attributes
            .into_iter()
            .map(|(name, value)| Xattr {
                name,
                value: XattrValue::of(&value),
            })
            .collect()
    })
}

prop_compose! {
    fn entry()(
        path in path(),
        kind in kind(),
        mode in 0_u16..0o10000,
        uid in any::<u32>(),
        gid in any::<u32>(),
        time in option::of((any::<i64>(), 0_u32..1_000_000_000)),
        flags in any::<(bool, bool)>(),
        xattrs in xattrs(),
    ) -> Entry {
        let flagged = matches!(kind, Kind::File { .. } | Kind::Dir);
        Entry {
            path,
            mode: if matches!(kind, Kind::Link { .. }) { 0o777 } else { mode },
            uid,
            gid,
            time: time.filter(|_| kind != Kind::Dir).map(|(seconds, nanos)| FileTime { seconds, nanos }),
            flags: InodeFlags { immutable: flagged && flags.0, append_only: flagged && flags.1 },
            kind,
            xattrs,
        }
    }
}

/// Entries of one tree, all read, in the order of a manifest.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    vec(entry(), 0..30).prop_map(|entries| {
        let read = |mut entry: Entry| {
            if let Kind::File { sha256, .. } = &mut entry.kind {
                sha256.get_or_insert(Digest::ZERO);
            }
            (entry.path.clone(), entry)
        };
        entries
            .into_iter()
            .map(read)
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect()
    })
}

fn leaves(entries: &[Entry]) -> Vec<(Digest, Digest)> {
    entries
        .iter()
        .map(|entry| (entry.path.key(), entry.line().unwrap().leaf()))
        .collect()
}

/// Keys of few distinct bits, so that they share long beginnings and meet each other.
fn key() -> impl Strategy<Value = Digest> {
    vec((0_usize..32, select(vec![1_u8, 128])), 0..3).prop_map(|changes| {
        let mut bytes = [0; 32];
        changes
            .into_iter()
            .for_each(|(index, mask)| bytes[index] ^= mask);
        Digest::from_bytes(bytes)
    })
}

fn changes() -> impl Strategy<Value = Vec<(Digest, Option<Digest>)>> {
    vec(
        (
            key(),
            option::weighted(0.7, any::<[u8; 32]>().prop_map(Digest::from_bytes)),
        ),
        0..40,
    )
}

fn apply(tree: &mut Tree, changes: &[(Digest, Option<Digest>)]) {
    for (key, leaf) in changes {
        match leaf {
            Some(leaf) => tree.insert(*key, *leaf),
            None => tree.remove(key),
        };
    }
}

/// A component of a glob, and names that it is tried on.
fn glob() -> impl Strategy<Value = String> {
    let component = select(vec![
        "a", "b", "ab", "*", "a*", "*b", "**", "**", "[ab]", "[!a]", "{a,b}", "{a*,b}c", "*{b,ab}",
        "\\141", "[a-c]*",
    ]);
    vec(component, 1..5).prop_map(|components| components.join("/"))
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let expect = select(vec![
        Expect::Sealed,
        Expect::Local,
        Expect::Growing,
        Expect::Ignored,
    ]);
    let rule = (glob(), expect, any::<bool>()).prop_map(|(r#match, expect, time)| Rule {
        r#match,
        expect,
        time,
    });
    vec(rule, 0..8)
}

fn tried_path() -> impl Strategy<Value = ImagePath> {
    let name = select(vec!["a", "b", "c", "ab", "abc", "ac", "bc", ".a"]);
    vec(name, 0..6).prop_map(|names| ImagePath::from_bytes(names.join("/")).unwrap())
}

/// Whether a glob matches the components, read word for word from the definition, braces expanded.
fn matches_by_definition(glob: &[&str], names: &[&[u8]], alone: bool) -> bool {
    match (glob, names) {
        (["**"], _) => alone || !names.is_empty(),
        (["**", rest @ ..], _) => {
            (0..=names.len()).any(|skipped| matches_by_definition(rest, &names[skipped..], false))
        }
        ([first, rest @ ..], [name, names @ ..]) => {
            expanded(first)
                .iter()
                .any(|first| component_matches(first.as_bytes(), name))
                && matches_by_definition(rest, names, false)
        }
        ([], []) => true,
        _ => false,
    }
}

fn expanded(component: &str) -> Vec<String> {
    let Some((before, rest)) = component.split_once('{') else {
        return vec![component.to_owned()];
    };
    let (parts, after) = rest.split_once('}').unwrap();
    parts
        .split(',')
        .flat_map(|part| expanded(&format!("{before}{part}{after}")))
        .collect()
}

fn component_matches(glob: &[u8], name: &[u8]) -> bool {
    match (glob, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            (0..=name.len()).any(|taken| component_matches(rest, &name[taken..]))
        }
        ([b'[', b'a', b'b', b']', rest @ ..], [byte, name @ ..]) => {
            b"ab".contains(byte) && component_matches(rest, name)
        }
        ([b'[', b'!', b'a', b']', rest @ ..], [byte, name @ ..]) => {
            *byte != b'a' && component_matches(rest, name)
        }
        ([b'[', b'a', b'-', b'c', b']', rest @ ..], [byte, name @ ..]) => {
            b"abc".contains(byte) && component_matches(rest, name)
        }
        ([b'\\', b'1', b'4', b'1', rest @ ..], [b'a', name @ ..]) => component_matches(rest, name),
        ([own, rest @ ..], [byte, name @ ..]) => {
            !b"*[\\".contains(own) && own == byte && component_matches(rest, name)
        }
        _ => false,
    }
}

fn decide_by_definition(rules: &[Rule], path: &ImagePath) -> (Expect, bool) {
    let names: Vec<_> = path.components().collect();
    let covers = |rule: &&Rule| {
        let glob: Vec<_> = rule.r#match.split('/').collect();
        (0..=names.len())
            .any(|depth| matches_by_definition(&glob, &names[..depth], glob.len() == 1))
    };
    rules
        .iter()
        .rev()
        .find(covers)
        .map_or((Expect::Sealed, false), |rule| (rule.expect, rule.time))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_path_survives_showing(path in path()) {
        let shown = path.to_string();
        prop_assert!(shown.bytes().all(|byte| (b'!'..=b'~').contains(&byte)));
        prop_assert_eq!(&ImagePath::parse(&shown).unwrap(), &path);
        let json = serde_json::to_string(&path).unwrap();
        prop_assert_eq!(serde_json::from_str::<ImagePath>(&json).unwrap(), path);
    }

    #[test]
    fn any_text_is_refused_or_the_one_form(text in "\\.(/[a-z.\\\\0-7#= ]{0,6}){0,3}") {
        if let Ok(path) = ImagePath::parse(&text) {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn paths_are_ordered_by_their_components(one in path(), other in path()) {
        prop_assert_eq!(one.cmp(&other), one.components().cmp(other.components()));
    }

    #[test]
    fn an_entry_survives_its_line(entry in entry()) {
        let line = entry.line().unwrap();
        prop_assert_eq!(&Line::parse(line.as_str()).unwrap(), &line);
        prop_assert_eq!(&line.entry(), &entry);
        prop_assert_eq!(line.path(), entry.path);
    }

    #[test]
    fn a_bent_line_is_refused_or_says_something_else(entry in entry(), place in any::<prop::sample::Index>(), byte in 32_u8..127) {
        let line = entry.line().unwrap();
        let mut bent = line.as_str().as_bytes().to_vec();
        let index = place.index(bent.len());
        bent[index] = byte;
        let bent = String::from_utf8(bent).unwrap();
        if let Ok(other) = Line::parse(&bent) {
            prop_assert_eq!(other.as_str(), &bent);
            prop_assert_eq!(other.entry() == entry, other == line);
            prop_assert_eq!(other.entry().line().unwrap(), other);
        }
    }

    #[test]
    fn a_tree_depends_on_its_entries_alone(entries in entries(), seed in any::<u64>()) {
        let sorted = leaves(&entries);
        let mut shuffled = sorted.clone();
        shuffled.sort_by_key(|(key, _)| Digest::of_parts(&[key.as_bytes(), &seed.to_be_bytes()]));
        let mut grown = Tree::new();
        shuffled.iter().for_each(|(key, leaf)| { grown.insert(*key, *leaf); });
        prop_assert_eq!(grown.root(), Tree::from_leaves(sorted).root());
    }

    #[test]
    fn changing_equals_making_anew(first in changes(), second in changes()) {
        let mut tree = Tree::new();
        apply(&mut tree, &first);
        let before = tree.root();
        let foreseen = tree.root_with(&second);
        prop_assert_eq!(tree.root(), before);
        apply(&mut tree, &second);
        let mut set = BTreeMap::new();
        for (key, leaf) in first.iter().chain(&second) {
            match leaf {
                Some(leaf) => set.insert(*key, *leaf),
                None => set.remove(key),
            };
        }
        prop_assert_eq!(tree.len(), set.len());
        let anew = Tree::from_leaves(set.into_iter().collect());
        prop_assert_eq!(tree.root(), anew.root());
        prop_assert_eq!(foreseen, anew.root());
    }

    #[test]
    fn proofs_hold_and_bent_ones_do_not(entries in entries(), path in path(), bent in any::<prop::sample::Index>(), bit in 0_usize..256) {
        let lines: BTreeMap<Digest, Line> = entries.iter().map(|entry| (entry.path.key(), entry.line().unwrap())).collect();
        let tree = Tree::from_leaves(leaves(&entries));
        for path in entries.iter().map(|entry| &entry.path).chain([&path]) {
            let proof = tree.prove(path, |key| lines.get(key).cloned());
            let expected = lines.get(&path.key()).map_or(Presence::Absent, |line| Presence::Present(line.clone()));
            prop_assert_eq!(proof.check(&tree.root()), Ok(expected));
            let mut shorter = proof.clone();
            if shorter.siblings.pop().is_some() {
                prop_assert!(shorter.check(&tree.root()).is_err());
                let mut changed = proof.clone();
                let sibling = &mut changed.siblings[bent.index(proof.siblings.len())];
                let mut bytes = *sibling.as_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                *sibling = Digest::from_bytes(bytes);
                prop_assert!(changed.check(&tree.root()).is_err());
            }
            let mut without = proof.clone();
            if without.entry.take().is_some() {
                prop_assert!(without.check(&tree.root()).is_err());
            }
        }
    }

    #[test]
    fn a_manifest_survives_writing(entries in entries()) {
        let mut plain = Vec::new();
        let mut writer = ManifestWriter::new(&mut plain, &["of a test"]).unwrap();
        entries.iter().for_each(|entry| writer.entry(entry).unwrap());
        let facts = writer.finish().unwrap();
        let mut reader = ManifestReader::new(&plain[..]);
        let mut read = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            read.push(line.entry());
        }
        prop_assert_eq!(read, entries);
        let loaded = ManifestReader::new(&plain[..]).load().unwrap();
        prop_assert_eq!(loaded.facts, facts);
    }

    #[test]
    fn a_manifest_cut_short_is_refused_or_smaller(entries in entries(), cut in any::<prop::sample::Index>()) {
        let mut plain = Vec::new();
        let mut writer = ManifestWriter::new(&mut plain, &[]).unwrap();
        entries.iter().for_each(|entry| writer.entry(entry).unwrap());
        let facts = writer.finish().unwrap();
        let end = cut.index(plain.len());
        match ManifestReader::new(&plain[..end]).load() {
            Ok(loaded) => prop_assert!(plain[end - 1] == b'\n' && loaded.facts.entries < facts.entries),
            Err(_) => prop_assert!(end == 0 || plain[end - 1] != b'\n'),
        }
    }

    #[test]
    fn a_scope_decides_as_defined(rules in rules(), paths in vec(tried_path(), 1..20)) {
        // Where two `**` follow each other the reading above tells the same, for each may be nothing but the last.
        let scope = Scope::new(rules.clone()).unwrap();
        for path in paths {
            let decision = scope.decide(&path);
            prop_assert_eq!((decision.expect, decision.time), decide_by_definition(&rules, &path), "{} {:?}", path, &rules);
        }
        let json = serde_json::to_string(&scope).unwrap();
        prop_assert_eq!(Scope::from_json(json.as_bytes()).unwrap().digest(), scope.digest());
    }

    #[test]
    fn nothing_below_is_missed(rules in rules(), paths in vec(tried_path(), 1..20)) {
        let scope = Scope::new(rules).unwrap();
        for path in paths {
            let mut state = scope.start();
            for name in path.components() {
                if state.ignores_all_below() {
                    prop_assert_eq!(scope.decide(&path).expect, Expect::Ignored);
                }
                state = state.child(name);
            }
        }
    }

    #[test]
    fn no_glob_panics(text in "[ab*?\\[\\]{}!^,/.\\\\0-7-]{0,12}", path in tried_path()) {
        if let Ok(scope) = Scope::new(vec![Rule { r#match: text, expect: Expect::Ignored, time: false }]) {
            scope.decide(&path);
        }
    }
}
