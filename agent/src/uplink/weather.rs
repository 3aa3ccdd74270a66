//! Whether the collector answers: told once each time that this changes, and waited for longer after each failure.

use ring::rand::SecureRandom as _;

use super::{ExchangeError, UNKNOWN_WAIT, Uplink};
use crate::event::AgentEvent;
use crate::journal;
use crate::transport::TransportError;

impl Uplink {
    pub(super) fn reached(&mut self) {
        self.backoff.reset();
        if self.away {
            self.away = false;
            tracing::info!(url = %self.base(), "the collector answers again");
            self.parts.observer.tell(AgentEvent::CollectorBack);
        }
        let url = self.base();
        self.parts
            .board
            .update(|status| status.collector.url = Some(url));
    }

    pub(super) async fn failed(&mut self, error: ExchangeError) {
        // The collector that comes back may be another than the one that went.
        self.heard = false;
        let text = journal::chain(&error);
        if matches!(error, ExchangeError::UnknownNode) {
            tracing::error!(node = %self.parts.identity.node, "{error}");
            self.parts.observer.tell(AgentEvent::UnknownNode);
        } else if !self.away {
            tracing::warn!(url = %self.base(), error = %text, "the collector does not answer as it should");
            self.parts.observer.tell(AgentEvent::CollectorAway {
                error: text.clone(),
            });
        }
        self.away = true;
        self.parts
            .board
            .update(|status| status.collector.error = Some(text));
        let doors = self.parts.collectors.len().max(1);
        self.at = (self.at + 1) % doors;
        let mut wait = self.backoff.next(self.random());
        match error {
            ExchangeError::UnknownNode => {
                self.rejoin().await;
                wait = wait.max(UNKNOWN_WAIT);
            }
            ExchangeError::Transport(TransportError::Certificate { .. }) => self.renewal.refused(),
            _ => {}
        }
        tokio::time::sleep(wait).await;
    }

    pub(super) fn random(&self) -> u32 {
        let mut bytes = [0; 4];
        match self.random.fill(&mut bytes) {
            Ok(()) => u32::from_le_bytes(bytes),
            // Jitter is a courtesy, no secret.
            Err(_) => std::process::id(),
        }
    }
}
