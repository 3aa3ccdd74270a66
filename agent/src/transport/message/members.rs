//! The answers of FORMATS.md 5.4 as members of a message.

use attestation::dsse::{Envelope, Signature};
use attestation::entry::Line;
use attestation::key::{Algorithm, PublicKey};
use attestation::path::ImagePath;
use attestation::time::Timestamp;
use attestation::verdict::Verdict;
use attestation::wire::{
    AttestationsAnswer, ChallengeAnswer, CollectorKeys, EnrolmentAnswer, EnrolmentPending,
    Expected, MAX_STATEMENTS, Problem, PublisherKeys, Refused, RenewalAnswer, Request, RequestKind,
};

use super::reader::{Malformed, Reader, Writer};
use crate::transport::Reply;

/// Doors of one collector, images with keys of their own, keys of one image.
const FEW: usize = 256;

pub(super) fn put_reply(to: &mut Writer, reply: &Reply) {
    match reply {
        Reply::Challenge(answer) => {
            to.u8(1);
            to.text(&answer.challenge);
            to.i64(answer.expires.as_micros());
            to.u64(answer.interval);
            to.option(answer.assignment.as_ref(), Writer::digest);
            to.list(&answer.requests, put_request);
            put_expected(to, &answer.expected);
        }
        Reply::Attestations(answer) => put_attestations(to, answer),
        Reply::Envelope(envelope) => {
            to.u8(3);
            put_envelope(to, envelope);
        }
        Reply::Admitted(answer) => put_admitted(to, answer),
        Reply::Pending(pending) => {
            to.u8(5);
            to.text(pending.node.as_str());
            to.u64(pending.retry_after);
        }
        Reply::Renewal(answer) => {
            to.u8(6);
            to.text(&answer.certificate);
        }
        Reply::Taken => to.u8(7),
    }
}

pub(super) fn reply(from: &mut Reader<'_>) -> Result<Reply, Malformed> {
    Ok(match from.u8()? {
        1 => Reply::Challenge(ChallengeAnswer {
            challenge: from.short_text()?,
            expires: Timestamp::from_micros(from.i64()?),
            interval: from.u64()?,
            assignment: from.option(Reader::digest)?,
            requests: from.list(FEW, request)?,
            expected: expected(from)?,
        }),
        2 => Reply::Attestations(attestations(from)?),
        3 => Reply::Envelope(envelope(from)?),
        4 => Reply::Admitted(Box::new(admitted(from)?)),
        5 => Reply::Pending(EnrolmentPending {
            node: from.text()?.parse().map_err(|_| Malformed("node"))?,
            retry_after: from.u64()?,
        }),
        6 => Reply::Renewal(RenewalAnswer {
            certificate: from.text()?,
        }),
        7 => Reply::Taken,
        _ => return Err(Malformed("reply")),
    })
}

fn put_attestations(to: &mut Writer, answer: &AttestationsAnswer) {
    to.u8(2);
    to.list(&answer.receipts, put_envelope);
    to.option(answer.verdict, |to, verdict| to.text(verdict.as_str()));
    to.bool(answer.fresh);
    to.text(&answer.challenge);
    to.i64(answer.expires.as_micros());
    to.u64(answer.interval);
    to.option(answer.assignment.as_ref(), Writer::digest);
    to.list(&answer.requests, put_request);
    to.option(answer.refused.as_ref(), |to, refused| {
        to.u64(refused.index);
        to.text(&refused.code);
        to.option(refused.expected.as_ref(), put_expected);
    });
}

fn attestations(from: &mut Reader<'_>) -> Result<AttestationsAnswer, Malformed> {
    Ok(AttestationsAnswer {
        receipts: from.list(MAX_STATEMENTS, envelope)?,
        verdict: from.option(|from| {
            let word = from.text()?;
            let verdict = Verdict::ALL.into_iter().find(|v| v.as_str() == word);
            verdict.ok_or(Malformed("verdict"))
        })?,
        fresh: from.bool()?,
        challenge: from.short_text()?,
        expires: Timestamp::from_micros(from.i64()?),
        interval: from.u64()?,
        assignment: from.option(Reader::digest)?,
        requests: from.list(FEW, request)?,
        refused: from.option(|from| {
            Ok(Refused {
                index: from.u64()?,
                code: from.short_text()?,
                expected: from.option(expected)?,
            })
        })?,
    })
}

fn put_admitted(to: &mut Writer, answer: &EnrolmentAnswer) {
    to.u8(4);
    to.text(answer.node.as_str());
    to.text(&answer.certificate);
    to.text(&answer.ca);
    to.list(&answer.agents, |to, url| to.text(url));
    to.text(&answer.log);
    to.list(&answer.publishers, |to, publisher| {
        to.text(&publisher.image);
        to.list(&publisher.keys, put_key);
        to.u64(u64::try_from(publisher.threshold).unwrap_or(u64::MAX));
    });
    put_key(to, &answer.keys.receipt);
    put_key(to, &answer.keys.assignment);
    put_key(to, &answer.keys.verdict);
    to.u64(answer.interval);
}

fn admitted(from: &mut Reader<'_>) -> Result<EnrolmentAnswer, Malformed> {
    Ok(EnrolmentAnswer {
        node: from.text()?.parse().map_err(|_| Malformed("node"))?,
        certificate: from.text()?,
        ca: from.text()?,
        agents: from.list(FEW, Reader::short_text)?,
        log: from.short_text()?,
        publishers: from.list(FEW, |from| {
            Ok(PublisherKeys {
                image: from.short_text()?,
                keys: from.list(FEW, key)?,
                threshold: usize::try_from(from.u64()?).map_err(|_| Malformed("threshold"))?,
            })
        })?,
        keys: CollectorKeys {
            receipt: key(from)?,
            assignment: key(from)?,
            verdict: key(from)?,
        },
        interval: from.u64()?,
    })
}

fn put_envelope(to: &mut Writer, envelope: &Envelope) {
    to.text(envelope.payload_type());
    to.bytes(envelope.payload());
    to.list(envelope.signatures(), |to, signature| {
        to.text(&signature.keyid);
        to.bytes(&signature.sig);
    });
}

fn envelope(from: &mut Reader<'_>) -> Result<Envelope, Malformed> {
    let payload_type = from.short_text()?;
    let payload = from.bytes()?.to_vec();
    let signatures = from.list(attestation::dsse::MAX_SIGNATURES, |from| {
        Ok(Signature {
            keyid: from.text()?,
            sig: from.bytes()?.to_vec(),
        })
    })?;
    Envelope::from_parts(payload, payload_type, signatures).map_err(|_| Malformed("envelope"))
}

fn put_request(to: &mut Writer, request: &Request) {
    to.u8(match request.kind {
        RequestKind::Unknown => 0,
        RequestKind::Pins => 1,
        RequestKind::Snapshot => 2,
        RequestKind::Rescan => 3,
        RequestKind::Accept => 4,
    });
    to.option(request.sha256.as_ref(), Writer::digest);
    to.option(request.path.as_ref(), |to, path| to.bytes(path.as_bytes()));
    to.option(request.found.as_ref(), |to, line| to.text(line.as_str()));
}

fn request(from: &mut Reader<'_>) -> Result<Request, Malformed> {
    Ok(Request {
        kind: match from.u8()? {
            1 => RequestKind::Pins,
            2 => RequestKind::Snapshot,
            3 => RequestKind::Rescan,
            4 => RequestKind::Accept,
            _ => RequestKind::Unknown,
        },
        sha256: from.option(Reader::digest)?,
        path: from.option(|from| {
            ImagePath::from_bytes(from.bytes()?.to_vec()).map_err(|_| Malformed("path"))
        })?,
        found: from.option(|from| Line::parse(&from.text()?).map_err(|_| Malformed("line")))?,
    })
}

fn put_expected(to: &mut Writer, expected: &Expected) {
    to.u64(expected.sequence);
    to.option(expected.previous.as_ref(), Writer::digest);
}

fn expected(from: &mut Reader<'_>) -> Result<Expected, Malformed> {
    Ok(Expected {
        sequence: from.u64()?,
        previous: from.option(Reader::digest)?,
    })
}

fn put_key(to: &mut Writer, key: &PublicKey) {
    to.bytes(&key.spki_der());
}

fn key(from: &mut Reader<'_>) -> Result<PublicKey, Malformed> {
    PublicKey::from_spki_der(from.bytes()?).map_err(|_| Malformed("key"))
}

pub(super) fn put_algorithm(to: &mut Writer, algorithm: Algorithm) {
    to.u8(match algorithm {
        Algorithm::Ed25519 => 0,
        Algorithm::P256 => 1,
    });
}

pub(super) fn algorithm(from: &mut Reader<'_>) -> Result<Algorithm, Malformed> {
    match from.u8()? {
        0 => Ok(Algorithm::Ed25519),
        1 => Ok(Algorithm::P256),
        _ => Err(Malformed("algorithm")),
    }
}

pub(super) fn put_problem(to: &mut Writer, problem: &Problem) {
    to.text(&problem.r#type);
    to.text(&problem.title);
    to.u16(problem.status);
    to.option(problem.detail.as_ref(), |to, text| to.text(text));
    to.text(&problem.code);
    to.option(problem.expected.as_ref(), put_expected);
    to.option(problem.request_id.as_ref(), |to, text| to.text(text));
}

pub(super) fn problem(from: &mut Reader<'_>) -> Result<Problem, Malformed> {
    Ok(Problem {
        r#type: from.short_text()?,
        title: from.short_text()?,
        status: from.u16()?,
        detail: from.option(Reader::short_text)?,
        code: from.short_text()?,
        expected: from.option(expected)?,
        request_id: from.option(Reader::short_text)?,
    })
}
