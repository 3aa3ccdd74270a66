//! Beside watching and sending: the configuration that is read again, and the memory that is used.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::{AgentSettings, ConfigError};
use crate::journal;
use crate::limits::{self, Measured, Pressure};
use crate::link::Link;
use crate::reload;
use crate::service::Service;
use crate::status::Board;

/// What reads the configuration says here: what it says now, or why it is refused.
pub type Reloads = mpsc::Receiver<Result<AgentSettings, ConfigError>>;

/// Keeps the agent to its configuration and its memory, until dropped.
pub(crate) struct Upkeep {
    pub(crate) settings: AgentSettings,
    pub(crate) link: Arc<Link>,
    pub(crate) board: Board,
    pub(crate) service: Arc<Service>,
    pub(crate) reloads: Option<Reloads>,
}

impl Upkeep {
    pub(crate) async fn run(mut self) -> std::convert::Infallible {
        let group = limits::own_group();
        let mut looks = tokio::time::interval(limits::EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = Pressure::None;
        loop {
            tokio::select! {
                _ = looks.tick() => before = self.look_at_memory(group.as_deref(), before),
                read = next(&mut self.reloads) => self.reload(read),
            }
        }
    }

    fn look_at_memory(&self, group: Option<&std::path::Path>, before: Pressure) -> Pressure {
        let (held, allowed) = group.map(limits::of_group).unwrap_or_default();
        let measured = Measured {
            resident: self.board.snapshot().cost.memory_bytes,
            configured: self.settings.memory_limit,
            group: held,
            group_limit: allowed,
        };
        let pressure = measured.pressure();
        // While it is grave the engine gives back again and again: what was freed meanwhile helps.
        if pressure != before || pressure == Pressure::Over {
            self.link.order(|orders| orders.pressure = Some(pressure));
        }
        pressure
    }

    fn reload(&mut self, read: Result<AgentSettings, ConfigError>) {
        self.service.reloading();
        match read {
            Ok(new) => self.take(new),
            Err(error) => {
                let error = journal::chain(&error);
                tracing::error!(%error, "the configuration is not taken; the one before holds");
            }
        }
        self.service.ready();
    }

    fn take(&mut self, new: AgentSettings) {
        let changes = reload::changes(&self.settings, &new);
        self.settings = reload::merged(&self.settings, new);
        for key in &changes.at_next_start {
            tracing::warn!(key, "this key takes effect when the agent is started anew");
        }
        tracing::info!(changed = %changes.now.join(", "), "configuration read again");
        let settings = reload::of_engine(&self.settings);
        self.link.order(|orders| orders.settings = Some(settings));
        self.link.reload_uplink(reload::of_uplink(&self.settings));
    }
}

/// The next configuration; never where nobody reads it again.
async fn next(reloads: &mut Option<Reloads>) -> Result<AgentSettings, ConfigError> {
    if let Some(coming) = reloads {
        if let Some(read) = coming.recv().await {
            return read;
        }
        *reloads = None;
    }
    std::future::pending().await
}
