//! The pins on their way to the collector, when it asks for them.

use attestation::digest::Digest;
use attestation::wire::Request;

use super::{ExchangeError, Uplink};
use crate::transport::TransportError;

/// What the collector wants of the pins.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The pins it asks for.
    file: Option<Digest>,
    /// Those that it took or refused last: it asks with every answer until the next statement says something else.
    over: Option<Digest>,
}

impl Wanted {
    /// The collector that is heard again may be another, or have been restored: it asks for what it does not have.
    pub(super) fn heard_again(&mut self) {
        *self = Self::default();
    }
}

impl Uplink {
    /// It asks for a file of pinned lines.
    pub(super) fn pins_wanted(&mut self, request: &Request) {
        if request.sha256 != self.pins.over {
            self.pins.file = request.sha256;
        }
    }

    /// It tells what a person accepted. It does so until a statement says that it is the pin, so nothing is lost here.
    pub(super) fn accepted(&self, request: &Request) {
        let Some(path) = request.path.clone() else {
            return;
        };
        let found = request.found.clone();
        self.parts.link.order(|orders| {
            let accept = (path, found);
            if !orders.accepts.contains(&accept) {
                orders.accepts.push(accept);
            }
        });
    }

    /// Sends the pins that were asked for, if they are the node's: `false` where there is nothing to send.
    pub(super) async fn send_pins(&mut self) -> Result<bool, ExchangeError> {
        let Some(wanted) = self.pins.file.take() else {
            return Ok(false);
        };
        // Others were asked for than the last statements say: the next one is asked about.
        let Some(view) = self.parts.link.pins(&wanted) else {
            return Ok(false);
        };
        let packed = tokio::task::spawn_blocking(move || {
            let mut packed = Vec::new();
            attestation::manifest::compress(view.pinned.plain().as_slice(), &mut packed)
                .map(|_| packed)
        });
        let packed = packed
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(TransportError::Body)?;
        let url = format!("{}/agent/v1/pins/{wanted}", self.base());
        match self.parts.transport.put(url, packed).await {
            Ok(()) => {
                tracing::info!(%wanted, "the collector has the pins");
                self.pins.over = Some(wanted);
                // What it could not judge without them it judges with the next statement.
                self.parts.link.order(|orders| orders.refresh = true);
                Ok(true)
            }
            Err(TransportError::Refused(problem)) if problem.status != 429 => {
                tracing::warn!(%wanted, %problem, "the collector does not take the pins");
                self.pins.over = Some(wanted);
                Ok(true)
            }
            Err(error) => {
                self.pins.file = Some(wanted);
                Err(error.into())
            }
        }
    }
}
