//! What the node speaks with: a certificate that is renewed before and after its end, another key where one is wanted,
//! and a place at a collector that does not know the node any more.

use std::time::{Duration, Instant};

use attestation::dsse::Envelope;
use attestation::statement::{Enrolment, Statement};
use attestation::time::Timestamp;
use attestation::wire::{CHALLENGE_SECONDS, EnrolmentRequest};

use super::Uplink;
use crate::joining::{self, JoiningError};
use crate::renewal::{self, RequestError};
use crate::rotation::{self, RotationError};
use crate::tls::TlsError;
use crate::transport::Joining;
use crate::{agent, certificate, clock, identity, journal};

/// A wish for another key is looked for this often.
const LOOK: Duration = Duration::from_secs(5);
/// The newest time in a receipt is kept on disk when it has moved so far.
const KEEP_HEARD: i64 = 3_600_000_000;

/// Why the node goes on with what it has.
#[derive(Debug, thiserror::Error)]
enum CredentialsError {
    #[error(transparent)]
    Joining(#[from] JoiningError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    #[error("use the new certificate")]
    Tls(#[from] TlsError),
    #[error("the collector answered for another node")]
    OtherNode,
}

/// The collector's time against this node's, as the last answer had it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CollectorClock {
    ahead: i64,
}

impl CollectorClock {
    /// A challenge was just made, and is good for a known time.
    pub(super) fn told(&mut self, expires: Timestamp, now: Timestamp) {
        let there = expires.saturating_add_secs(-CHALLENGE_SECONDS);
        self.ahead = there.micros_since(now);
    }

    /// What the collector's clock shows.
    pub(super) fn at(self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.as_micros().saturating_add(self.ahead))
    }
}

impl Uplink {
    /// Renews what is due. Trouble is told and tried again later; the node goes on with what it has.
    pub(super) async fn keep_credentials(&mut self) {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            if let Err(error) = self.rotate().await {
                let error = journal::chain(&error);
                tracing::error!(%error, "the node keeps its key");
                self.looked = Instant::now().checked_add(Duration::from_secs(60));
            }
        }
        let time = self.clock.at(clock::now());
        if !self.renewal.is_due(time, Instant::now()) {
            return;
        }
        match self.renew().await {
            Ok(()) => tracing::info!("the certificate is renewed"),
            Err(error) => {
                let random = self.random();
                self.renewal.failed(Instant::now(), random);
                let error = journal::chain(&error);
                tracing::warn!(%error, "the certificate is not renewed; it is tried again");
            }
        }
    }

    async fn renew(&mut self) -> Result<(), CredentialsError> {
        let key = self.parts.chain.key();
        let request = renewal::request(&self.parts.identity.node, &key)?;
        let ask = |url, body| self.parts.transport.renewal(url, body);
        let doors = &self.parts.identity.join;
        let answer = joining::ask(doors, "/join/v1/renewal", &request, ask).await?;
        self.use_certificate(answer.certificate).await
    }

    /// A certificate that TLS takes is kept and used.
    async fn use_certificate(&mut self, certificate: String) -> Result<(), CredentialsError> {
        let mut identity = self.parts.identity.clone();
        identity.certificate = certificate;
        let key = self.parts.chain.key();
        let trust = agent::trust_by(&self.parts.ca, &identity, &key);
        self.parts.transport.trust(&trust, &key).await?;
        self.renewal.renewed(&identity.certificate, Instant::now());
        self.parts.identity = identity;
        identity::write_identity(&self.parts.state, &self.parts.identity)?;
        Ok(())
    }

    /// Takes the key that somebody has put beside the one in use.
    async fn rotate(&mut self) -> Result<(), CredentialsError> {
        let Some(new) = identity::next_key(&self.parts.state)? else {
            return Ok(());
        };
        let old = self.parts.chain.key();
        let held = rotation::rotate(
            &self.parts.transport,
            &self.parts.state,
            &self.parts.identity,
            &old,
            new,
        )
        .await?;
        self.parts.identity = held.identity;
        self.parts.chain.set_key(held.key);
        let certificate = self.parts.identity.certificate.clone();
        self.use_certificate(certificate).await?;
        // Until it signs with the new key the old one still counts.
        self.parts.link.order(|orders| orders.refresh = true);
        Ok(())
    }

    /// A collector that was restored may know the node by an earlier key: it is shown how that became this one.
    pub(super) async fn show_rotations(&mut self) -> bool {
        let again = self
            .shown
            .is_none_or(|at| at.elapsed() >= super::UNKNOWN_WAIT);
        if self.parts.identity.rotations.is_empty() || !again {
            return false;
        }
        self.shown = Some(Instant::now());
        let mut certificate = None;
        for envelope in &self.parts.identity.rotations {
            match rotation::present(&self.parts.transport, &self.parts.identity, envelope).await {
                Ok(told) => certificate = Some(told),
                // One that lies before what the collector knows is no news to it.
                Err(error) => {
                    let error = journal::chain(&error);
                    tracing::debug!(%error, "a rotation that was shown again");
                }
            }
        }
        let Some(certificate) = certificate else {
            return false;
        };
        match self.use_certificate(certificate).await {
            Ok(()) => true,
            Err(error) => {
                let error = journal::chain(&error);
                tracing::error!(%error, "the collector knows the node by an earlier key");
                false
            }
        }
    }

    /// Asks to be let in again where the collector does not know the node: it was restored from a backup of before, or
    /// a person removed the node. A person decides.
    pub(super) async fn rejoin(&mut self) {
        match self.ask_to_join().await {
            Ok(true) => tracing::info!("the collector knows this node again"),
            Ok(false) => tracing::info!("waiting for a person to admit this node again"),
            Err(error) => {
                let error = journal::chain(&error);
                tracing::warn!(%error, "this node is not let in again");
            }
        }
    }

    async fn ask_to_join(&mut self) -> Result<bool, CredentialsError> {
        let (key, held) = (self.parts.chain.key(), &self.parts.identity);
        let enrolment = Enrolment {
            name: held.name.clone(),
            csr: certificate::request(&key, &held.node).map_err(RequestError::from)?,
            machine: held.machine.clone(),
            replaces: None,
        };
        let statement = Statement::<Enrolment>::of_node(&key.public(), enrolment);
        let request = EnrolmentRequest {
            statement: Envelope::sign(statement.to_payload(), &key).map_err(RequestError::from)?,
            token: None,
        };
        let ask = |url, body| self.parts.transport.enrolment(url, body);
        match joining::ask(&held.join, "/join/v1/enrolment", &request, ask).await? {
            Joining::Pending(_) => Ok(false),
            Joining::Admitted(answer) => {
                if answer.node != self.parts.identity.node {
                    return Err(CredentialsError::OtherNode);
                }
                self.use_certificate(answer.certificate).await?;
                Ok(true)
            }
        }
    }

    /// A receipt has told the collector's time, signed.
    pub(super) fn heard_at(&mut self, received: Timestamp) {
        let held = &mut self.parts.identity;
        let kept = held.heard.map_or(i64::MIN, Timestamp::as_micros);
        if received.as_micros().saturating_sub(kept) < KEEP_HEARD {
            return;
        }
        held.heard = Some(received);
        if let Err(error) = identity::write_identity(&self.parts.state, held) {
            let error = journal::chain(&error);
            tracing::warn!(%error, "the time that the collector told is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collectors_time_is_known_from_its_answers_whatever_this_nodes_clock_shows() {
        let there = Timestamp::from_micros(1_800_000_000_000_000);
        let year = 365 * 86_400 * 1_000_000;
        for off in [-year, 0, year] {
            let here = Timestamp::from_micros(there.as_micros() + off);
            let mut clock = CollectorClock::default();
            assert_eq!(clock.at(here), here);
            clock.told(there.saturating_add_secs(CHALLENGE_SECONDS), here);
            assert_eq!(clock.at(here), there);
            assert_eq!(
                clock.at(here.saturating_add_secs(60)),
                there.saturating_add_secs(60)
            );
        }
    }
}
