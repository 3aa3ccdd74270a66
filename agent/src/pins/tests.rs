#![allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

use attestation::digest::Digest;
use attestation::pins::Pinned;
use attestation::scope::Rule;
use attestation::statement::Grown;

use super::*;

fn scope(rules: &[(&str, Expect)]) -> Arc<Scope> {
    let rule = |(glob, expect): &(&str, Expect)| Rule {
        r#match: (*glob).to_owned(),
        expect: *expect,
        time: false,
    };
    Arc::new(Scope::new(rules.iter().map(rule).collect()).unwrap())
}

fn usual() -> Arc<Scope> {
    scope(&[("etc", Expect::Local), ("log", Expect::Growing)])
}

fn line(path: &str, content: &str) -> Line {
    let (size, digest) = (content.len(), Digest::of(content.as_bytes()));
    Line::parse(&format!(
        "{path} type=file mode=0644 uid=0 gid=0 size={size} sha256digest={digest}"
    ))
    .unwrap()
}

fn seen(line: &Line) -> Seen {
    Seen {
        line: Some(line.clone()),
        kept: true,
        ..Seen::default()
    }
}

fn came(board: &Arc<Scope>, line: &Line) -> Came {
    let path = line.path();
    Came {
        decision: board.decide(&path),
        path,
        seen: seen(line),
    }
}

fn begun(lines: &[Line]) -> PinBoard {
    let mut board = PinBoard::default();
    let scope = usual();
    let all = lines.iter().map(|line| came(&scope, line)).collect();
    board.begin(&[scope], all, at(1));
    board
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn look(board: &mut PinBoard, path: &ImagePath, seen: Seen) -> Effect {
    let decision = board.decide(path).unwrap();
    let told = Told {
        actor: None,
        at: at(2),
    };
    board.observe(path, decision, seen, false, told)
}

const CHANGED: Effect = Effect {
    changed: true,
    grew: false,
};
const GREW: Effect = Effect {
    changed: false,
    grew: true,
};

#[test]
fn the_first_finding_is_the_pin_and_any_other_a_difference() {
    let (own, other) = (line("./etc/hostname", "a\n"), line("./etc/hostname", "b\n"));
    let mut board = begun(std::slice::from_ref(&own));
    let view = board.view(&usual());
    assert!(view.differences.is_empty());
    assert_eq!(view.file, Pinned::of([own.clone()]).file());
    assert_eq!(look(&mut board, &own.path(), seen(&other)), CHANGED);
    let view = board.view(&usual());
    assert_eq!(view.differences[0].expected.as_ref(), Some(&own));
    assert_eq!(view.differences[0].found.as_ref(), Some(&other));
    assert_eq!(view.differences[0].expect, Expect::Local);
    assert_eq!(
        view.local,
        Pinned::of([other.clone()]).trees(&usual()).local.root()
    );
    assert_eq!(
        look(&mut board, &own.path(), seen(&own)),
        CHANGED,
        "put back"
    );
    assert!(board.view(&usual()).differences.is_empty());
}

#[test]
fn a_new_local_path_is_a_difference_and_a_new_growing_one_is_told() {
    let mut board = begun(&[line("./etc/hostname", "a\n")]);
    let (key, log) = (line("./etc/key", "k"), line("./log/new", ""));
    assert_eq!(look(&mut board, &key.path(), seen(&key)), CHANGED);
    assert_eq!(look(&mut board, &log.path(), seen(&log)), GREW);
    let view = board.view(&usual());
    assert_eq!(view.differences.len(), 1);
    assert_eq!(view.differences[0].expected, None);
    assert_eq!(board.grown(256).0[0].found, log);
    assert_eq!(view.pinned.len(), 2);
    assert_eq!(
        look(&mut board, &key.path(), Seen::default()),
        CHANGED,
        "gone again"
    );
    assert!(board.view(&usual()).differences.is_empty() && !board.knows(&key.path()));
}

#[test]
fn growth_moves_the_pin_on_and_nothing_else_does() {
    let old = line("./log/a", "one\n");
    let mut board = begun(std::slice::from_ref(&old));
    let more = line("./log/a", "one\ntwo\n");
    assert_eq!(look(&mut board, &old.path(), seen(&more)), GREW);
    assert_eq!(
        board.grown(256),
        (
            vec![Grown {
                path: old.path(),
                found: more.clone()
            }],
            None
        )
    );
    board.told();
    assert_eq!(board.grown(256), (vec![], None));
    let rewritten = line("./log/a", "0ne\ntwo\nthree\n");
    let lost = Seen {
        kept: false,
        ..seen(&rewritten)
    };
    assert_eq!(look(&mut board, &old.path(), lost), CHANGED);
    let view = board.view(&usual());
    assert_eq!(view.differences[0].expected.as_ref(), Some(&more));
    let longer = line("./log/a", "0ne\ntwo\nthree\nfour\n");
    assert_eq!(
        look(&mut board, &old.path(), seen(&longer)),
        Effect::default()
    );
    assert_eq!(
        board.view(&usual()).differences[0].found.as_ref(),
        Some(&rewritten),
        "a difference that goes on growing is the same difference"
    );
}

/// A log that is cut and written anew as it was may be read in between: it goes on growing from there, up to its pin.
#[test]
fn a_file_that_was_cut_and_grows_back_to_its_pin_is_no_difference() {
    let (pin, cut) = (line("./log/a", "one\ntwo\n"), line("./log/a", ""));
    let (half, more) = (line("./log/a", "one\n"), line("./log/a", "one\ntwo\nx\n"));
    let mut board = begun(std::slice::from_ref(&pin));
    assert_eq!(look(&mut board, &pin.path(), seen(&cut)), CHANGED);
    assert_eq!(
        look(&mut board, &pin.path(), seen(&half)),
        Effect::default()
    );
    assert_eq!(look(&mut board, &pin.path(), seen(&pin)), CHANGED);
    assert!(board.view(&usual()).differences.is_empty());
    assert_eq!(look(&mut board, &pin.path(), seen(&more)), GREW);
}

#[test]
fn what_a_person_accepts_is_the_pin_if_it_is_still_there() {
    let (own, other) = (line("./etc/hostname", "a\n"), line("./etc/hostname", "b\n"));
    let path = own.path();
    let mut board = begun(std::slice::from_ref(&own));
    look(&mut board, &path, seen(&other));
    assert!(
        !board.accept(&path, Some(&line("./etc/hostname", "c\n"))),
        "no longer there"
    );
    assert!(!board.accept(&path, None), "not gone");
    assert!(board.accept(&path, Some(&other)));
    assert!(!board.accept(&path, Some(&other)), "done already");
    let view = board.view(&usual());
    assert!(view.differences.is_empty());
    assert_eq!(view.pinned.get(&path), Some(&other));
    look(&mut board, &path, Seen::default());
    assert!(board.accept(&path, None));
    assert_eq!(board.view(&usual()).file, None);
}

#[test]
fn a_new_image_keeps_what_it_still_names_and_adds_only_what_it_names_newly() {
    let (host, old) = (line("./etc/hostname", "a\n"), line("./log/a", "1"));
    let mut board = begun(&[host.clone(), old]);
    let next = scope(&[("etc", Expect::Local), ("srv", Expect::Local)]);
    let (changed, new, named) = (
        line("./etc/hostname", "b\n"),
        line("./etc/key", "k"),
        line("./srv/x", "x"),
    );
    let all = [&changed, &new, &named].map(|line| came(&next, line));
    board.begin(std::slice::from_ref(&next), all.into(), at(3));
    let view = board.view(&next);
    let differing: Vec<String> = view
        .differences
        .iter()
        .map(|it| it.path.to_string())
        .collect();
    assert_eq!(differing, ["./etc/hostname", "./etc/key"]);
    let pinned: Vec<String> = view
        .pinned
        .iter()
        .map(|(path, _)| path.to_string())
        .collect();
    assert_eq!(pinned, ["./etc/hostname", "./srv/x"]);
    assert_eq!(view.pinned.get(&host.path()), Some(&host));
}

#[test]
fn what_is_unreadable_stands_in_both_lists() {
    let own = line("./etc/hostname", "a\n");
    let mut board = begun(std::slice::from_ref(&own));
    let failed = Seen {
        error: Some("EIO".to_owned()),
        ..Seen::default()
    };
    assert_eq!(look(&mut board, &own.path(), failed), CHANGED);
    let view = board.view(&usual());
    assert_eq!(view.differences[0].found, None);
    assert_eq!(view.unreadable[&own.path()], "EIO");
    assert_eq!(board.unsettled(9), [own.path()]);
    assert!(
        !board.accept(&own.path(), None),
        "nobody knows what is there"
    );
}

#[test]
fn above_the_limit_is_said_and_not_attested() {
    let lines: Vec<Line> = (0..MAX_LINES + 3)
        .map(|number| line(&format!("./log/{number:05}"), "x"))
        .collect();
    let board = begun(&lines);
    let view = board.view(&usual());
    assert_eq!(view.pinned.len(), MAX_LINES);
    assert!(view.differences.is_empty());
    assert!(
        board
            .limit()
            .unwrap()
            .starts_with("3 local or growing paths")
    );
    assert!(board.knows(&"./log/04098".parse().unwrap()));
}

#[test]
fn a_restart_goes_on_with_what_was_kept() {
    let state = tempfile::tempdir().unwrap();
    let lines = [line("./etc/hostname", "a\n"), line("./log/a", "one\n")];
    let mut board = begun(&lines);
    board.take_unsaved().unwrap().save(state.path()).unwrap();
    assert!(board.take_unsaved().is_none());
    let mut again = PinBoard::of(PinFile::load(state.path()).unwrap());
    let found = [
        lines[0].clone(),
        line("./log/a", "one\ntwo\n"),
        line("./etc/key", "k"),
    ];
    let all = found.iter().map(|line| came(&usual(), line)).collect();
    again.begin(&[usual()], all, at(3));
    let view = again.view(&usual());
    assert_eq!(
        view.differences.len(),
        1,
        "a local path that came meanwhile"
    );
    assert_eq!(again.grown(9).0[0].found, found[1]);
    let path = state.path().join("pins");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(
        PinFile::load(state.path()),
        Err(PinFileError::Damaged { .. })
    ));
    PinFile::set_aside(state.path(), 7).unwrap();
    assert!(PinFile::load(state.path()).unwrap().pins.is_empty());
}

#[test]
fn a_time_that_another_scope_asks_for_is_no_change() {
    let own = line("./etc/hostname", "a\n");
    let mut board = begun(std::slice::from_ref(&own));
    let timed = Arc::new(
        Scope::new(vec![Rule {
            r#match: "etc".to_owned(),
            expect: Expect::Local,
            time: true,
        }])
        .unwrap(),
    );
    let text = own.as_str().replace("gid=0", "gid=0 time=1.000000000");
    let with_time = Line::parse(&text).unwrap();
    board.begin(
        std::slice::from_ref(&timed),
        vec![came(&timed, &with_time)],
        at(3),
    );
    assert!(board.view(&timed).differences.is_empty());
    board.begin(&[usual()], vec![came(&usual(), &own)], at(4));
    assert!(board.view(&usual()).differences.is_empty());
}
