//! What each statement opens, updates and resolves, as a table over statements.

use attestation::scope::Expect;
use serde_json::{Value, json};

use std::sync::LazyLock;

use super::*;

const LATER: Timestamp = Timestamp::from_micros(2_000_000);

fn line(path: &str, digit: char) -> String {
    let digest = digit.to_string().repeat(64);
    format!("{path} type=file mode=0755 uid=0 gid=0 size=3 sha256digest={digest}")
}

fn differs(path: &str, found: char) -> Difference {
    serde_json::from_value(json!({
        "path": path, "expect": Expect::Sealed, "expected": line(path, 'a'), "found": line(path, found),
        "at": Timestamp::from_micros(7),
    }))
    .unwrap()
}

fn said(change: Value) -> Attestation {
    let mut said = json!({
        "log": "l", "sequence": 3, "boot": "b", "issued": LATER, "monotonic": 1, "entries": 9,
        "local": Digest::ZERO, "growing": Digest::ZERO, "agent": {"version": "0"},
        "coverage": {"watch": {"rung": "A"}, "mounts": {"sha256": Digest::ZERO}},
    });
    merge(&mut said, change);
    serde_json::from_value(said).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The open violations of one node, and the statements that come.
struct Book {
    open: Vec<ViolationView>,
    next: u32,
}

impl Book {
    fn new() -> Self {
        Self {
            open: Vec::new(),
            next: 0,
        }
    }

    fn hear(&mut self, facts: &Facts<'_>) -> Vec<(Step, Kind, String)> {
        let next = &mut self.next;
        let changes = steps(&self.open, facts, || {
            *next += 1;
            format!("id-{next}")
        });
        let mut told = Vec::new();
        for change in changes {
            let violation = change.violation;
            told.push((
                change.step,
                violation.kind,
                violation.path.clone().unwrap_or_default(),
            ));
            self.open.retain(|open| open.id != violation.id);
            if change.step != Step::Resolved {
                self.open.push(violation);
            }
        }
        told
    }

    fn one(&self, kind: Kind) -> &ViolationView {
        let mut of_kind = self.open.iter().filter(|open| open.kind == kind);
        let one = of_kind.next().unwrap();
        assert!(of_kind.next().is_none(), "one of {kind}");
        one
    }
}

fn facts<'a>(attestation: &'a Attestation, differences: &'a [Difference]) -> Facts<'a> {
    Facts {
        node: "n",
        node_name: "web-1",
        attestation,
        differences,
        verdict: Some(if differences.is_empty() {
            Verdict::Pristine
        } else {
            Verdict::Drifted
        }),
        reasons: &[],
        fresh: true,
        received: LATER,
        image: None,
        after_goodbye: false,
        jumped: None,
        fork: None,
        calm: true,
        accounted: &NOTHING,
    }
}

static NOTHING: LazyLock<HashMap<ImagePath, Accounted>> = LazyLock::new(HashMap::new);

fn late<'a>(attestation: &'a Attestation, differences: &'a [Difference]) -> Facts<'a> {
    Facts {
        fresh: false,
        ..facts(attestation, differences)
    }
}

const PATH: &str = "./usr/bin/ping";

fn step(step: Step, kind: Kind, path: &str) -> Vec<(Step, Kind, String)> {
    vec![(step, kind, path.to_owned())]
}

#[test]
fn a_difference_is_one_violation_until_a_fresh_statement_is_without_it() {
    let (mut book, quiet) = (Book::new(), said(json!({})));
    let (first, other) = ([differs(PATH, 'b')], [differs(PATH, 'c')]);
    let opened = book.hear(&facts(&quiet, &first));
    assert_eq!(opened, step(Step::Opened, Kind::Difference, PATH));
    assert_eq!(book.one(Kind::Difference).fields, ["sha256digest"]);
    assert_eq!(book.one(Kind::Difference).detected, first[0].at);
    assert!(book.hear(&facts(&quiet, &first)).is_empty(), "nothing new");
    assert_eq!(
        book.hear(&facts(&quiet, &other)),
        step(Step::Updated, Kind::Difference, PATH),
        "another found"
    );
    assert_eq!(book.one(Kind::Difference).id, "id-1");
    assert!(
        book.hear(&late(&quiet, &[])).is_empty(),
        "history resolves nothing"
    );
    assert_eq!(
        book.hear(&facts(&quiet, &[])),
        step(Step::Resolved, Kind::Difference, PATH)
    );
    assert!(book.open.is_empty());
}

#[test]
fn history_alerts_and_says_that_it_is_late() {
    let (mut book, quiet) = (Book::new(), said(json!({})));
    let found = [differs(PATH, 'b')];
    assert_eq!(
        book.hear(&late(&quiet, &found)),
        step(Step::Opened, Kind::Difference, PATH)
    );
    assert_eq!(book.one(Kind::Difference).detail["late"], true);
    assert!(
        book.hear(&facts(&quiet, &found)).is_empty(),
        "the same, told fresh, is no news"
    );
}

#[test]
fn another_finding_clears_what_was_acknowledged() {
    let (mut book, quiet) = (Book::new(), said(json!({})));
    book.hear(&facts(&quiet, &[differs(PATH, 'b')]));
    book.open[0].acknowledged = Some(crate::violations::Acknowledged {
        by: "ann".to_owned(),
        at: LATER,
        reason: "seen".to_owned(),
    });
    assert!(book.hear(&facts(&quiet, &[differs(PATH, 'b')])).is_empty());
    assert!(book.one(Kind::Difference).acknowledged.is_some());
    book.hear(&facts(&quiet, &[differs(PATH, 'c')]));
    assert_eq!(book.one(Kind::Difference).acknowledged, None);
}

#[test]
fn words_that_prove_nothing_resolve_no_difference() {
    for verdict in [
        None,
        Some(Verdict::Unexplained),
        Some(Verdict::UnknownImage),
        Some(Verdict::Rollback),
        Some(Verdict::Forked),
    ] {
        let (mut book, quiet) = (Book::new(), said(json!({})));
        book.hear(&facts(&quiet, &[differs(PATH, 'b')]));
        book.hear(&Facts {
            verdict,
            ..facts(&quiet, &[])
        });
        assert_eq!(book.one(Kind::Difference).resolved, None, "{verdict:?}");
    }
    let (mut book, quiet) = (Book::new(), said(json!({})));
    book.hear(&facts(&quiet, &[differs(PATH, 'b')]));
    let unlisted = said(json!({"differences_total": 2}));
    book.hear(&facts(&unlisted, &[differs("./etc/motd", 'b')]));
    assert_eq!(book.open.len(), 2, "it may be among the unlisted");
}

#[test]
fn above_a_thousand_there_is_one_for_all() {
    const LOADER: &str = "./etc/ld.so.preload";
    let (mut book, quiet) = (Book::new(), said(json!({})));
    book.hear(&facts(&quiet, &[differs(LOADER, 'b')]));
    let all: Vec<Difference> = (0..1_001)
        .map(|at| differs(&format!("./srv/{at}"), 'b'))
        .chain([differs(LOADER, 'b')])
        .collect();
    assert_eq!(
        book.hear(&facts(&quiet, &all)),
        step(Step::Opened, Kind::Many, "")
    );
    let many = book.one(Kind::Many);
    assert_eq!(many.count, Some(1_002));
    assert_eq!(
        many.detail["gravest"][0], LOADER,
        "what every program loads is graver than data"
    );
    assert_eq!(
        book.hear(&facts(&quiet, &all[1..])),
        step(Step::Updated, Kind::Many, "")
    );
    let fewer = book.hear(&facts(&quiet, &all[999..]));
    assert!(fewer.contains(&(Step::Resolved, Kind::Many, String::new())));
    assert_eq!(
        book.open.len(),
        3,
        "and what is left is told one by one: {fewer:?}"
    );
}

#[test]
fn a_mount_lasts_until_it_is_gone() {
    let mut book = Book::new();
    let mount = json!({"path": "./usr/bin", "source": "tmpfs", "type": "tmpfs"});
    let mounted = said(json!({"coverage": {"mounts": {"unexpected": [mount]}}}));
    assert_eq!(
        book.hear(&facts(&mounted, &[])),
        step(Step::Opened, Kind::Mount, "./usr/bin")
    );
    let open = book.one(Kind::Mount);
    assert_eq!(
        (open.fields.as_slice(), open.expected.as_ref()),
        (["mount".to_owned()].as_slice(), None)
    );
    assert_eq!(open.mount.as_ref().unwrap().r#type, "tmpfs");
    assert!(book.hear(&facts(&mounted, &[])).is_empty());
    let cut = said(json!({"coverage": {"mounts": {"unexpected_total": 300}}}));
    assert!(
        book.hear(&facts(&cut, &[])).is_empty(),
        "it may be among the unlisted"
    );
    assert_eq!(
        book.hear(&facts(&said(json!({})), &[])),
        step(Step::Resolved, Kind::Mount, "./usr/bin")
    );
}

#[test]
fn touched_is_counted_by_path_and_no_statement_ends_it() {
    let mut book = Book::new();
    let touched = |path: &str, count: u64| {
        let item =
            json!({"path": path, "event": "modify", "count": count, "first": LATER, "last": LATER});
        said(json!({"touched": [item]}))
    };
    assert_eq!(
        book.hear(&facts(&touched(PATH, 2), &[])),
        step(Step::Opened, Kind::Touched, PATH)
    );
    assert_eq!(
        book.hear(&facts(&touched(PATH, 3), &[])),
        step(Step::Updated, Kind::Touched, PATH)
    );
    assert_eq!(book.one(Kind::Touched).count, Some(5));
    assert_eq!(
        book.hear(&facts(&touched("./etc/motd", 1), &[])),
        step(Step::Opened, Kind::Touched, "./etc/motd")
    );
    assert!(book.hear(&facts(&said(json!({})), &[])).is_empty());
    assert_eq!(book.open.len(), 2);
}

#[test]
fn a_gap_is_closed_by_a_rescan_and_an_announced_one_is_none() {
    let gap = |cause: &str| {
        let item = json!({"from": LATER, "cause": cause, "paths": []});
        said(json!({"coverage": {"gaps": [item]}}))
    };
    let mut book = Book::new();
    assert_eq!(
        book.hear(&facts(&gap("overflow"), &[])),
        step(Step::Opened, Kind::Gap, "")
    );
    assert!(book.hear(&late(&said(json!({})), &[])).is_empty());
    assert_eq!(
        book.hear(&facts(&said(json!({})), &[])),
        step(Step::Resolved, Kind::Gap, "")
    );
    let restart = gap("restart");
    let announced = Facts {
        after_goodbye: true,
        ..facts(&restart, &[])
    };
    assert!(book.hear(&announced).is_empty(), "clean after a goodbye");
    assert_eq!(
        book.hear(&facts(&restart, &[])),
        step(Step::Opened, Kind::Gap, ""),
        "without a goodbye"
    );
    let (mut book, found) = (Book::new(), [differs(PATH, 'b')]);
    let dirty = Facts {
        after_goodbye: true,
        ..facts(&restart, &found)
    };
    assert!(
        book.hear(&dirty)
            .contains(&(Step::Opened, Kind::Gap, String::new())),
        "something changed meanwhile"
    );
}

#[test]
fn silence_and_flood_end_with_a_fresh_word_in_time() {
    let quiet = said(json!({}));
    for (kind, calm, ends) in [
        (Kind::Silence, true, true),
        (Kind::Flood, true, true),
        (Kind::Flood, false, false),
    ] {
        let mut book = Book::new();
        book.open.push(event(
            "n",
            "web-1",
            kind,
            LATER,
            Map::new(),
            "one".to_owned(),
        ));
        assert!(book.hear(&late(&quiet, &[])).is_empty(), "{kind}: history");
        book.hear(&Facts {
            calm,
            ..facts(&quiet, &[])
        });
        assert_eq!(book.open.is_empty(), ends, "{kind}");
    }
}

#[test]
fn what_only_a_person_can_judge_stays() {
    let quiet = said(json!({}));
    let mut book = Book::new();
    let jumped = Facts {
        jumped: Some((3, 9)),
        ..facts(&quiet, &[])
    };
    assert_eq!(book.hear(&jumped), step(Step::Opened, Kind::Rewind, ""));
    assert_eq!(book.one(Kind::Rewind).detail["expected"], 3);
    let forked = Facts {
        fork: Some((Digest::ZERO, Digest::of(b"x"))),
        verdict: Some(Verdict::Forked),
        ..facts(&quiet, &[])
    };
    assert_eq!(book.hear(&forked), step(Step::Opened, Kind::Fork, ""));
    let downgrade = event(
        "n",
        "web-1",
        Kind::Downgrade,
        LATER,
        Map::new(),
        "d".to_owned(),
    );
    let replay = event(
        "n",
        "web-1",
        Kind::Replay,
        LATER,
        Map::new(),
        "r".to_owned(),
    );
    book.open.extend([downgrade, replay]);
    assert!(book.hear(&facts(&quiet, &[])).is_empty());
    assert_eq!(book.open.len(), 4);
    let rewound = said(json!({"rewound": true}));
    assert_eq!(
        Book::new().hear(&facts(&rewound, &[])),
        step(Step::Opened, Kind::Rewind, "")
    );
}

#[test]
fn images_that_are_not_allowed_are_one_violation_and_their_files_none() {
    let quiet = said(json!({}));
    for (verdict, kind) in [
        (Verdict::Rollback, Kind::Rollback),
        (Verdict::UnknownImage, Kind::UnknownImage),
        (Verdict::Unexplained, Kind::Unexplained),
    ] {
        let mut book = Book::new();
        let bad = Facts {
            verdict: Some(verdict),
            ..facts(&quiet, &[])
        };
        assert_eq!(book.hear(&bad), step(Step::Opened, kind, ""));
        assert!(book.hear(&bad).is_empty());
        assert_eq!(
            book.hear(&facts(&quiet, &[])),
            step(Step::Resolved, kind, "")
        );
    }
    let found = [differs(PATH, 'b')];
    let unknown = Facts {
        verdict: Some(Verdict::UnknownImage),
        ..facts(&quiet, &found)
    };
    assert_eq!(
        Book::new().hear(&unknown),
        step(Step::Opened, Kind::UnknownImage, "")
    );
}

fn accounted(how: Accounted) -> HashMap<ImagePath, Accounted> {
    HashMap::from([(PATH.parse().unwrap(), how)])
}

fn excepted() -> HashMap<ImagePath, Accounted> {
    accounted(Accounted::Excepted {
        exception: "e".to_owned(),
        told: "excepted until then".to_owned(),
    })
}

#[test]
fn what_is_excepted_opens_nothing_and_ends_what_is_open() {
    let (mut book, quiet) = (Book::new(), said(json!({})));
    let (differs_now, excepted) = ([differs(PATH, 'b')], excepted());
    let with = |fresh| Facts {
        accounted: &excepted,
        fresh,
        ..facts(&quiet, &differs_now)
    };
    assert!(book.hear(&with(true)).is_empty(), "nothing is opened");
    book.hear(&facts(&quiet, &differs_now));
    assert!(
        book.hear(&with(false)).is_empty(),
        "history resolves nothing"
    );
    let changes = steps(&book.open, &with(true), String::new);
    assert_eq!(changes.len(), 1);
    let ended = &changes[0].violation;
    assert_eq!(changes[0].step, Step::Resolved);
    assert_eq!(ended.resolved_as, Some(Resolution::Excepted));
    assert_eq!(ended.resolution.as_deref(), Some("excepted until then"));
}

#[test]
fn after_its_end_the_difference_is_a_violation_again_and_names_the_exception() {
    let (mut book, quiet) = (Book::new(), said(json!({})));
    let lapsed = accounted(Accounted::Lapsed {
        exception: "e".to_owned(),
    });
    let differs_now = [differs(PATH, 'b')];
    let over = Facts {
        accounted: &lapsed,
        ..facts(&quiet, &differs_now)
    };
    assert_eq!(book.hear(&over), step(Step::Opened, Kind::Difference, PATH));
    assert_eq!(book.one(Kind::Difference).detail["exception"], "e");
    assert!(
        book.hear(&facts(&quiet, &differs_now)).is_empty(),
        "the same still"
    );
}

#[test]
fn a_difference_ends_as_reverted_or_by_the_image_that_has_it_so() {
    let quiet = said(json!({}));
    let image = |version: &str| ImageView {
        name: "web".to_owned(),
        version: version.to_owned(),
        sha256: version.repeat(64),
        ..ImageView::default()
    };
    let differs_now = [differs(PATH, 'b')];
    let of = |version: &str, differences| Facts {
        image: Some(image(version)),
        ..facts(&quiet, differences)
    };
    for (version, how, told) in [
        ("1", Resolution::Reverted, "as expected again"),
        ("2", Resolution::RolledOut, "rolled out: web 2 has it so"),
    ] {
        let mut book = Book::new();
        book.hear(&of("1", &differs_now));
        let changes = steps(&book.open, &of(version, &[]), String::new);
        let ended = &changes[0].violation;
        assert_eq!(ended.resolved_as, Some(how));
        assert_eq!(ended.resolution.as_deref(), Some(told));
    }
}

#[test]
fn a_node_on_its_way_between_two_allowed_images_opens_nothing() {
    let (mut book, quiet) = (Book::new(), said(json!({})));
    let rolling = accounted(Accounted::RollingOut {
        image: "web 2".to_owned(),
    });
    let differ = [differs(PATH, 'b'), differs("./etc/other", 'c')];
    let facts = Facts {
        accounted: &rolling,
        ..facts(&quiet, &differ)
    };
    assert_eq!(
        book.hear(&facts),
        step(Step::Opened, Kind::Difference, "./etc/other"),
        "what neither image has is one all the same"
    );
}
