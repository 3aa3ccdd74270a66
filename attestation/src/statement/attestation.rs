//! The attestation: what a node says it is (FORMATS.md 5.2).

use serde::{Deserialize, Serialize};

use super::{Actor, Coverage, Predicate, Session, Statement, is_false};
use crate::digest::Digest;
use crate::entry::Line;
use crate::path::ImagePath;
use crate::scope::Expect;
use crate::time::Timestamp;

/// The predicate of a node's statement about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// Origin of the collector's log: who this is for.
    pub log: String,
    /// From 0, one more with each statement.
    pub sequence: u64,
    /// SHA-256 of the previous statement's payload; absent at 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The kernel's boot id.
    pub boot: String,
    /// The node's wall clock: a claim.
    pub issued: Timestamp,
    /// Microseconds since boot.
    pub monotonic: u64,
    /// An orderly stop.
    #[serde(default, skip_serializing_if = "is_false")]
    pub goodbye: bool,
    /// The node found itself behind what the collector had.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rewound: bool,
    /// The nonce that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// The newest verified checkpoint note, whole, when newer than the last one sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// SHA-256 of the payload of the image statement that it compares with; absent without an assignment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// How many sealed entries there are.
    pub entries: u64,
    /// Tree digest of the `local` entries, zero when there are none.
    pub local: Digest,
    /// Tree digest of the `growing` entries, zero when there are none.
    pub growing: Digest,
    /// The pinned manifest, absent when nothing is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<FileRef>,
    /// What was seen and what was not.
    pub coverage: Coverage,
    /// What is not as expected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// How many there are, where that is more than the listed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differences_total: Option<u64>,
    /// The receipted statement that has the differences, where they have not changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#as: Option<u64>,
    /// `growing` files that only grew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grown: Vec<Grown>,
    /// How many grew, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grown_total: Option<u64>,
    /// Writes to sealed paths that left no difference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touched: Vec<Touched>,
    /// How many were touched, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touched_total: Option<u64>,
    /// Logins since the last statement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<Session>,
    /// How many sessions, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_total: Option<u64>,
    /// The program that speaks.
    pub agent: AgentFacts,
    /// What assurance the node can show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Assurance>,
    /// The whole manifest, to be asked for while differences are unlisted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<FileRef>,
}

impl Predicate for Attestation {
    const NAME: &'static str = "attestation";
}

impl Attestation {
    /// The most differences that one statement lists.
    pub const MAX_DIFFERENCES: usize = 4096;
    /// The most members of every other list.
    pub const MAX_LIST: usize = 256;

    /// How many differences there are, listed or not.
    pub fn differences_count(&self) -> u64 {
        self.differences_total
            .unwrap_or(self.differences.len() as u64)
    }

    /// Whether nothing but time, sequence, challenge, checkpoint and what grew has changed since `previous`.
    ///
    /// While it is so and an unsent statement waits, no other is made, and nothing in it needs a person.
    pub fn is_quiet(&self, previous: &Self) -> bool {
        let says_something = self.goodbye
            || self.rewound
            || !self.touched.is_empty()
            || !self.sessions.is_empty()
            || self.touched_total.unwrap_or(0) > 0
            || self.sessions_total.unwrap_or(0) > 0;
        let same_differences = match self.r#as {
            None => previous.r#as.is_none() && self.differences == previous.differences,
            Some(named) => {
                self.differences.is_empty()
                    && (previous.r#as == Some(named) || previous.sequence == named)
            }
        };
        // What grew moves its pinned line, and with it the tree of `growing` and the digest of the pins.
        let same_pins = !self.grown.is_empty()
            || (self.growing == previous.growing && self.pins == previous.pins);
        !says_something
            && same_differences
            && same_pins
            && self.differences_total == previous.differences_total
            && self.snapshot == previous.snapshot
            && (&self.log, &self.boot, self.image)
                == (&previous.log, &previous.boot, previous.image)
            && (self.entries, self.local) == (previous.entries, previous.local)
            && self.coverage.says_the_same(&previous.coverage)
            && (&self.agent, &self.claims) == (&previous.agent, &previous.claims)
    }

    /// Whether every list keeps its limit; what signs and what stores asks this.
    pub fn check_limits(&self) -> Result<(), TooMany> {
        let lists = [
            ("differences", self.differences.len(), Self::MAX_DIFFERENCES),
            ("grown", self.grown.len(), Self::MAX_LIST),
            ("touched", self.touched.len(), Self::MAX_LIST),
            ("sessions", self.sessions.len(), Self::MAX_LIST),
            ("claims", self.claims.len(), Self::MAX_LIST),
            (
                "coverage.watch.limits",
                self.coverage.watch.limits.len(),
                Self::MAX_LIST,
            ),
            ("coverage.gaps", self.coverage.gaps.len(), Self::MAX_LIST),
            (
                "coverage.unreadable",
                self.coverage.unreadable.len(),
                Self::MAX_LIST,
            ),
            (
                "coverage.unsettled",
                self.coverage.unsettled.len(),
                Self::MAX_LIST,
            ),
            (
                "coverage.mounts.unexpected",
                self.coverage.mounts.unexpected.len(),
                Self::MAX_LIST,
            ),
        ];
        let gaps = self
            .coverage
            .gaps
            .iter()
            .map(|gap| ("coverage.gaps.paths", gap.paths.len(), Self::MAX_LIST));
        let commands = self
            .sessions
            .iter()
            .map(|s| ("sessions.commands", s.commands.len(), Self::MAX_LIST));
        match lists
            .into_iter()
            .chain(gaps)
            .chain(commands)
            .find(|(_, members, limit)| members > limit)
        {
            None => Ok(()),
            Some((list, members, limit)) => Err(TooMany {
                list,
                members,
                limit,
            }),
        }
    }
}

impl Statement<Attestation> {
    /// [`Attestation::is_quiet`], and the attested tree is the same.
    pub fn is_quiet_after(&self, previous: &Self) -> bool {
        self.subject == previous.subject && self.predicate.is_quiet(&previous.predicate)
    }
}

/// A list of a statement is longer than the format allows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{list} has {members} members, at most {limit} are allowed")]
pub struct TooMany {
    /// Which list.
    pub list: &'static str,
    /// How many members it has.
    pub members: usize,
    /// How many it may have.
    pub limit: usize,
}

/// A file named by its plain content: pins, a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// SHA-256 of the plain lines.
    pub sha256: Digest,
    /// How many bytes they are.
    pub size: u64,
}

/// One entry that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where.
    pub path: ImagePath,
    /// What the scope expects of that path.
    pub expect: Expect,
    /// The image's line (the pinned one for `local` and `growing`), null where nothing should be.
    pub expected: Option<Line>,
    /// The line found, null where nothing is or nothing could be read.
    pub found: Option<Line>,
    /// Who made it, where the kernel told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// When it was seen.
    pub at: Timestamp,
}

/// A `growing` file that only grew: its pinned line moves on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    /// Where.
    pub path: ImagePath,
    /// The new pinned line.
    pub found: Line,
}

/// Writes to a sealed path that left no difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Where.
    pub path: ImagePath,
    /// What happened, in a word.
    pub event: String,
    /// How often.
    pub count: u64,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// Who, where the kernel told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
}

/// The program that speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Its version.
    pub version: String,
    /// SHA-256 of its executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_sha256: Option<Digest>,
    /// SHA-256 of its configuration file, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_sha256: Option<Digest>,
}

/// How far a node's word can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assurance {
    /// After the agent was stopped it is root's word.
    Software,
    /// The key cannot be copied and the boot was measured.
    Tpm,
    /// A lying root is limited by what the kernel measures.
    Kernel,
    /// A word of a later version: nothing is concluded from it.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
pub(super) mod tests {
    use std::io::Write as _;

    use serde_json::{Value, json};

    use super::*;
    use crate::statement::{
        Gap, Mounts, Rung, SessionCommand, Subject, UnexpectedMount, Unreadable, WatchCoverage,
    };

    const PIPE: &str = "./run/pipe type=fifo mode=0600 uid=0 gid=0";
    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    /// A heartbeat of a node that has nothing to say.
    pub(in crate::statement) fn quiet() -> Statement<Attestation> {
        let predicate = Attestation {
            log: "collector.example/log".to_owned(),
            sequence: 7,
            previous: Some(Digest::of(b"6")),
            boot: "0b7b9c5e-6b0a-4f0e-8f57-6d1d9a3d4f11".to_owned(),
            issued: NOW,
            monotonic: 123_456_789,
            goodbye: false,
            rewound: false,
            challenge: Some(Digest::of(b"challenge").to_string()),
            checkpoint: None,
            image: Some(Digest::of(b"image")),
            entries: 140_000,
            local: Digest::of(b"local"),
            growing: Digest::of(b"growing"),
            pins: Some(FileRef {
                sha256: Digest::of(b"pins"),
                size: 70_000,
            }),
            coverage: Coverage {
                watch: WatchCoverage {
                    rung: Rung::A,
                    limits: vec!["no actor after exit".to_owned()],
                    limits_total: None,
                },
                since: Some(NOW),
                read: Some(NOW),
                gaps: vec![],
                gaps_total: None,
                unreadable: vec![],
                unreadable_total: None,
                unsettled: vec![],
                unsettled_total: None,
                mounts: Mounts {
                    sha256: Digest::of(b"mounts"),
                    unexpected: vec![],
                    unexpected_total: None,
                },
            },
            differences: vec![],
            differences_total: None,
            r#as: None,
            grown: vec![],
            grown_total: None,
            touched: vec![],
            touched_total: None,
            sessions: vec![],
            sessions_total: None,
            agent: AgentFacts {
                version: "0.1.0".to_owned(),
                exe_sha256: Some(Digest::of(b"agent")),
                config_sha256: Some(Digest::of(b"config")),
            },
            claims: vec![Assurance::Software],
            snapshot: None,
        };
        Statement::about(
            Subject::of_tree("0".repeat(32), &Digest::of(b"tree")),
            predicate,
        )
    }

    fn difference() -> Difference {
        Difference {
            path: "./run/pipe".parse().unwrap(),
            expect: Expect::Sealed,
            expected: None,
            found: Some(Line::parse(PIPE).unwrap()),
            actor: Some(Actor {
                pid: 1,
                ..Actor::default()
            }),
            at: NOW,
        }
    }

    /// Everything that a statement can say.
    fn full() -> Statement<Attestation> {
        let mut statement = quiet();
        let said = &mut statement.predicate;
        said.goodbye = true;
        said.rewound = true;
        said.checkpoint = Some("note".to_owned());
        said.differences = vec![difference()];
        said.differences_total = Some(1);
        said.r#as = Some(5);
        said.grown = vec![Grown {
            path: "./run/pipe".parse().unwrap(),
            found: Line::parse(PIPE).unwrap(),
        }];
        said.touched = vec![Touched {
            path: "./etc/motd".parse().unwrap(),
            event: "write".to_owned(),
            count: 2,
            first: NOW,
            last: NOW,
            actor: None,
        }];
        said.sessions = vec![Session {
            session: 3,
            auid: 1000,
            user: Some("ann".to_owned()),
            from: Some("192.0.2.1".to_owned()),
            tty: Some("pts/0".to_owned()),
            started: NOW,
            ended: Some(NOW),
            commands: vec![SessionCommand {
                at: NOW,
                pid: 9,
                exe: "./usr/bin/vi".to_owned(),
                arguments: None,
                exit: Some(-1),
            }],
            dropped: 4,
        }];
        said.snapshot = Some(FileRef {
            sha256: Digest::of(b"all"),
            size: 1,
        });
        let coverage = &mut said.coverage;
        coverage.gaps = vec![Gap {
            from: NOW,
            to: Some(NOW),
            cause: "overflow".to_owned(),
            paths: vec!["./etc".parse().unwrap()],
            paths_total: Some(2),
        }];
        coverage.unreadable = vec![Unreadable {
            path: "./x".parse().unwrap(),
            error: "EIO".to_owned(),
        }];
        coverage.unsettled = vec!["./y".parse().unwrap()];
        coverage.mounts.unexpected = vec![UnexpectedMount {
            path: "./etc".parse().unwrap(),
            source: "tmpfs".to_owned(),
            r#type: "tmpfs".to_owned(),
            actor: None,
        }];
        statement
    }

    #[test]
    fn a_statement_is_read_as_it_was_written() {
        for statement in [quiet(), full()] {
            let payload = statement.to_payload();
            assert_eq!(Statement::from_payload(&payload).unwrap(), statement);
        }
    }

    #[test]
    fn members_have_the_names_of_the_format() {
        let value: Value = serde_json::from_slice(&full().to_payload()).unwrap();
        assert_eq!(value["_type"], "https://in-toto.io/Statement/v1");
        assert_eq!(
            value["predicateType"],
            "https://pristine.dev/attestation/v1"
        );
        assert_eq!(
            value["subject"][0]["digest"]["pristineTree"],
            Digest::of(b"tree").to_string()
        );
        let said = &value["predicate"];
        assert_eq!(said["issued"], "2023-11-14T22:13:20.000000Z");
        assert_eq!(said["as"], 5);
        assert_eq!(said["goodbye"], true);
        assert_eq!(said["previous"], Digest::of(b"6").to_string());
        assert_eq!(said["pins"]["size"], 70_000);
        assert_eq!(said["coverage"]["watch"]["rung"], "A");
        assert_eq!(said["coverage"]["gaps"][0]["paths"], json!(["./etc"]));
        assert_eq!(said["coverage"]["unsettled"], json!(["./y"]));
        assert_eq!(said["coverage"]["mounts"]["unexpected"][0]["type"], "tmpfs");
        assert_eq!(said["claims"], json!(["software"]));
        let difference = &said["differences"][0];
        assert_eq!(difference["expect"], "sealed");
        assert_eq!(difference["expected"], Value::Null, "null, not left out");
        assert!(difference.as_object().unwrap().contains_key("expected"));
        assert_eq!(difference["found"], PIPE);
        assert_eq!(difference["actor"], json!({"pid": 1, "confidence": "low"}));
        assert_eq!(said["sessions"][0]["commands"][0]["exit"], -1);
    }

    #[test]
    fn an_expected_or_found_line_that_is_left_out_is_null() {
        let text = String::from_utf8(full().to_payload())
            .unwrap()
            .replace("\"expected\":null,", "");
        let read: Statement<Attestation> = Statement::from_payload(text.as_bytes()).unwrap();
        assert_eq!(read.predicate.differences[0].expected, None);
    }

    #[test]
    fn a_line_or_a_path_that_is_not_in_its_one_form_is_refused() {
        let text = String::from_utf8(full().to_payload()).unwrap();
        for (good, bad) in [
            ("mode=0600", "mode=600"),
            ("\"./etc/motd\"", "\"./etc//motd\""),
            ("\"./etc/motd\"", "\"etc/motd\""),
            ("\"sealed\"", "\"Sealed\""),
            ("\"sequence\":7", "\"sequence\":7.0"),
            ("\"sequence\":7", "\"sequence\":-7"),
            ("\"sequence\":7", "\"sequence\":\"7\""),
            (".000000Z", ".0000000Z"),
            (".000000Z", ".000000+00:00"),
        ] {
            let changed = text.replace(good, bad);
            assert_ne!(changed, text, "{good}");
            assert!(
                Statement::<Attestation>::from_payload(changed.as_bytes()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn unknown_words_of_later_versions_do_not_stop_a_reader() {
        let text = String::from_utf8(quiet().to_payload()).unwrap();
        let later = text.replace("[\"software\"]", "[\"software\",\"enclave\"]");
        let read: Statement<Attestation> = Statement::from_payload(later.as_bytes()).unwrap();
        assert_eq!(
            read.predicate.claims,
            [Assurance::Software, Assurance::Unknown]
        );
    }

    #[test]
    fn a_quiet_request_body_is_small() {
        let key = crate::key::PrivateKey::generate(crate::key::Algorithm::P256).unwrap();
        let envelope = crate::dsse::Envelope::sign(quiet().to_payload(), &key).unwrap();
        let body = crate::wire::AttestationsRequest {
            statements: vec![envelope],
            quote: None,
        };
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&serde_json::to_vec(&body).unwrap()).unwrap();
        let size = gzip.finish().unwrap().len();
        assert!(size <= 2048, "{size} bytes");
    }

    #[test]
    fn time_sequence_challenge_and_growth_are_quiet() {
        let before = quiet();
        let mut after = quiet();
        after.predicate.sequence += 1;
        after.predicate.previous = None;
        after.predicate.issued = after.predicate.issued.saturating_add_secs(30);
        after.predicate.monotonic += 1;
        after.predicate.challenge = None;
        after.predicate.coverage.read = None;
        assert!(after.is_quiet_after(&before));
        after.predicate.growing = Digest::of(b"more");
        assert!(
            !after.is_quiet_after(&before),
            "a tree that changed without a word"
        );
        after.predicate.grown = full().predicate.grown;
        assert!(after.is_quiet_after(&before));
    }

    #[test]
    fn anything_else_is_not_quiet() {
        let before = quiet();
        let changes: [fn(&mut Statement<Attestation>); 14] = [
            |after| after.subject = vec![Subject::of_tree("0".repeat(32), &Digest::ZERO)],
            |after| after.predicate.goodbye = true,
            |after| after.predicate.rewound = true,
            |after| after.predicate.image = None,
            |after| after.predicate.boot.push('x'),
            |after| after.predicate.entries += 1,
            |after| after.predicate.local = Digest::ZERO,
            |after| after.predicate.pins = None,
            |after| after.predicate.coverage.gaps = full().predicate.coverage.gaps,
            |after| after.predicate.coverage.unreadable_total = Some(1),
            |after| after.predicate.differences = full().predicate.differences,
            |after| after.predicate.touched = full().predicate.touched,
            |after| after.predicate.sessions = full().predicate.sessions,
            |after| after.predicate.agent.version.push('x'),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut after = quiet();
            change(&mut after);
            assert!(!after.is_quiet_after(&before), "change {at}");
        }
    }

    #[test]
    fn naming_the_statement_that_has_the_differences_is_quiet() {
        let mut before = quiet();
        before.predicate.differences = vec![difference()];
        let mut after = quiet();
        after.predicate.r#as = Some(before.predicate.sequence);
        assert!(after.is_quiet_after(&before));
        let mut third = quiet();
        third.predicate.r#as = Some(before.predicate.sequence);
        assert!(third.is_quiet_after(&after));
        third.predicate.r#as = Some(before.predicate.sequence - 1);
        assert!(!third.is_quiet_after(&after));
        assert!(
            !quiet().is_quiet_after(&before),
            "differences that went away"
        );
    }

    #[test]
    fn lists_have_limits() {
        let mut statement = quiet();
        let said = &mut statement.predicate;
        said.differences = vec![difference(); Attestation::MAX_DIFFERENCES];
        said.coverage.unsettled = vec!["./x".parse().unwrap(); Attestation::MAX_LIST];
        said.check_limits().unwrap();
        said.differences.push(difference());
        assert_eq!(said.check_limits().unwrap_err().list, "differences");
        said.differences.clear();
        said.coverage.unsettled.push("./x".parse().unwrap());
        assert_eq!(said.check_limits().unwrap_err().list, "coverage.unsettled");
    }
}
