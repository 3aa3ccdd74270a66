//! The way to the collector, gone once: each agents' door, the joining doors, and the clock that the collector has.

use std::time::{Duration, Instant};

use attestation::time::Timestamp;
use attestation::wire::CHALLENGE_SECONDS;

use super::{Finding, Grade};
use crate::clock;
use crate::config::AgentSettings;
use crate::identity::Held;
use crate::journal::chain;
use crate::transport::{Network, Transport, TransportError, child::ChildStatus};

/// A door answers within this, or is not reached.
const PATIENCE: Duration = Duration::from_secs(15);
/// Clocks that differ by less are right.
const SKEW: i64 = 5;

pub(super) async fn look(settings: &AgentSettings, held: Held, network: &Network) -> Vec<Finding> {
    let trust = match crate::agent::trust(settings, &held) {
        Ok(trust) => trust,
        Err(error) => {
            let remedy = "name a readable file, or leave `ca` out";
            return vec![Finding::fail("collector", chain(&error), remedy)];
        }
    };
    let transport = match Transport::open(network, trust, &held.key) {
        Ok(transport) => transport,
        Err(error) => {
            let remedy = "enrol anew: key, certificate or CA of this node cannot be used";
            return vec![Finding::fail("collector", chain(&error), remedy)];
        }
    };
    let mut findings = Vec::new();
    let collectors = if settings.collectors.is_empty() {
        &held.identity.agents
    } else {
        &settings.collectors
    };
    let mut skew = None;
    for url in collectors {
        findings.push(agents_door(&transport, url, &mut skew).await);
    }
    one_is_enough(&mut findings);
    if findings.is_empty() {
        let remedy = "set `collectors` in the configuration, or enrol anew";
        findings.push(Finding::fail("collector", "none is known", remedy));
    }
    for url in &held.identity.join {
        findings.push(joining_door(&transport, url).await);
    }
    findings.extend(skew.map(clock_finding));
    findings.extend(transport.status().as_ref().map(process));
    findings
}

async fn agents_door(transport: &Transport, url: &str, skew: &mut Option<i64>) -> Finding {
    const NAME: &str = "collector";
    let address = format!("{}/agent/v1/challenge", url.trim_end_matches('/'));
    let asked = Instant::now();
    match tokio::time::timeout(PATIENCE, transport.challenge(address)).await {
        Err(_) => Finding::fail(NAME, format!("{url}: no answer"), remedy_of("")),
        Ok(Ok(answer)) => {
            *skew = Some(seconds_ahead(clock::now(), answer.expires));
            let took = asked.elapsed().as_millis();
            Finding::ok(
                NAME,
                format!("{url}: knows this node, answers in {took} ms"),
            )
        }
        Ok(Err(TransportError::Refused(problem))) => {
            let remedy = match problem.code.as_str() {
                "unknown-node" => "the collector does not know this node: enrol anew",
                _ => "ask `pristine node show` at the collector",
            };
            Finding::fail(NAME, format!("{url}: {problem}"), remedy)
        }
        Ok(Err(error)) => {
            let error = chain(&error);
            Finding::fail(NAME, format!("{url}: {error}"), remedy_of(&error))
        }
    }
}

/// The step that failed, by the words of the libraries that took it.
fn remedy_of(error: &str) -> &'static str {
    let lower = error.to_ascii_lowercase();
    if lower.contains("dns") || lower.contains("lookup") {
        "its name does not resolve: look at /etc/resolv.conf and /etc/hosts"
    } else if lower.contains("refused") {
        "nothing listens there: is the collector running, is the port right?"
    } else if lower.contains("certificate") || lower.contains("handshake") || lower.contains("tls")
    {
        "another CA, or a name that its certificate does not have: compare `ca` and the address; a certificate of this node that has ended is renewed by the running agent"
    } else {
        "look at routes and firewalls between this node and the collector"
    }
}

/// A collector that is one of several may be away.
fn one_is_enough(findings: &mut [Finding]) {
    if findings.iter().any(|finding| finding.grade == Grade::Ok) {
        for finding in findings
            .iter_mut()
            .filter(|finding| finding.grade == Grade::Fail)
        {
            finding.grade = Grade::Limit;
        }
    }
}

async fn joining_door(transport: &Transport, url: &str) -> Finding {
    const NAME: &str = "joining door";
    let address = format!("{}/join/v1/enrolment", url.trim_end_matches('/'));
    match tokio::time::timeout(PATIENCE, transport.reach(address)).await {
        Ok(Ok(())) => Finding::ok(NAME, format!("{url}: answers")),
        Ok(Err(error)) => {
            let error = chain(&error);
            let remedy = format!(
                "the certificate of this node cannot be renewed there; {}",
                remedy_of(&error)
            );
            Finding::limit(NAME, format!("{url}: {error}"), remedy)
        }
        Err(_) => Finding::limit(NAME, format!("{url}: no answer"), remedy_of("")),
    }
}

/// The collector makes a challenge good for a known time from its own now.
fn seconds_ahead(now: Timestamp, expires: Timestamp) -> i64 {
    let theirs = expires.saturating_add_secs(-CHALLENGE_SECONDS);
    now.micros_since(theirs) / 1_000_000
}

fn clock_finding(ahead: i64) -> Finding {
    const NAME: &str = "clock";
    if ahead.abs() <= SKEW {
        return Finding::ok(NAME, "as the collector's");
    }
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    Finding::limit(
        NAME,
        format!("{} s {direction} the collector's", ahead.abs()),
        "synchronise it (chrony, systemd-timesyncd): times in what this node tells are its own",
    )
}

fn process(status: &ChildStatus) -> Finding {
    const NAME: &str = "network process";
    let remedy = "what comes from the network is parsed there: see the lines on landlock, seccomp and privileges";
    if !status.missing.is_empty() {
        return Finding::limit(NAME, status.missing.join(", "), remedy);
    }
    match (status.pid, status.confined) {
        (Some(_), true) => {
            let uid = status
                .uid
                .map_or_else(String::new, |uid| format!("uid {uid}, "));
            Finding::ok(NAME, format!("{uid}confined"))
        }
        (Some(_), false) => Finding::limit(NAME, "not confined", remedy),
        (None, _) => {
            let error = status.error.as_deref().unwrap_or("not started");
            Finding::fail(
                NAME,
                error,
                "the agent cannot speak with the collector without it",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_measured_by_the_challenge() {
        let now = Timestamp::from_micros(1_000_000_000_000);
        let expires = |ahead: i64| now.saturating_add_secs(CHALLENGE_SECONDS - ahead);
        assert_eq!(seconds_ahead(now, expires(0)), 0);
        assert_eq!(seconds_ahead(now, expires(3600)), 3600);
        assert_eq!(
            clock_finding(seconds_ahead(now, expires(-2))).grade,
            Grade::Ok
        );
        let behind = clock_finding(seconds_ahead(now, expires(-86_400)));
        assert_eq!(behind.grade, Grade::Limit);
        assert!(behind.found.contains("86400 s behind"));
    }

    #[test]
    fn the_remedy_is_for_the_step_that_failed() {
        assert!(
            remedy_of("client error (Connect): dns error: no such name").contains("resolv.conf")
        );
        assert!(remedy_of("tcp connect error: Connection refused").contains("port"));
        assert!(remedy_of("invalid peer certificate: UnknownIssuer").contains("CA"));
        assert!(remedy_of("operation timed out").contains("firewall"));
    }

    #[test]
    fn one_collector_of_several_is_enough() {
        let mut findings = vec![
            Finding::fail("collector", "a", "x"),
            Finding::ok("collector", "b"),
        ];
        one_is_enough(&mut findings);
        assert_eq!(findings[0].grade, Grade::Limit);
        let mut alone = vec![Finding::fail("collector", "a", "x")];
        one_is_enough(&mut alone);
        assert_eq!(alone[0].grade, Grade::Fail);
    }
}
