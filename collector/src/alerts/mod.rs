//! Telling people: what the outbox holds is delivered to every channel until it is accepted or visibly given up on.
//!
//! A row enters the outbox in the transaction that records the violation's step, so nothing is told that is not stored and nothing
//! stored goes untold. A message's id is its delivery's id: a second delivery has the same one, and the receiver can drop it.

mod alertmanager;
mod attempt;
mod change;
mod channel;
mod channel_view;
mod due;
mod event;
mod gather;
mod listing;
mod mail;
mod message;
mod outbox;
pub mod route;
mod signature;
mod slack;
mod standing;
mod trial;

use std::net::SocketAddr;
use std::sync::OnceLock;

use crate::access::Reach;
use crate::settings::{AlertRoute, CollectorSettings};
use crate::violations::view::{Step, ViolationView};

pub use self::change::change_of;
pub use self::channel::{Channel, channel_names};
pub use self::channel_view::{ChannelView, channels};
pub use self::event::event_body;
pub use self::gather::tell;
pub use self::listing::{
    Delivery, DeliveryFilter, DeliveryState, deliveries, of_violation, try_again,
};
pub(crate) use self::listing::{GIVEN_UP, TELLS_WITHIN, WAITING};
pub use self::outbox::run;
pub use self::route::About;
pub use self::signature::{SecretError, SigningSecret};
pub use self::trial::{Trial, trial};

/// The channels, what goes to which, and how long a message gathers.
pub struct Alerting {
    channels: Vec<Channel>,
    routes: Vec<AlertRoute>,
    /// Microseconds without a further node after which a change has settled.
    settle: i64,
    /// Microseconds within which the same change is one message.
    window: i64,
    /// Where the pages begin, for links.
    pages: String,
    client: OnceLock<reqwest::Client>,
}

/// What a gathered message tells.
pub(crate) struct Told {
    /// Of which step.
    pub(crate) step: Step,
    /// The first one's.
    pub(crate) violation: ViolationView,
    /// Where.
    pub(crate) nodes: message::Nodes,
}

impl Alerting {
    /// As configured; `ops` is the people's door as it was bound.
    pub fn new(settings: &CollectorSettings, ops: SocketAddr) -> Self {
        let micros =
            |seconds: u64| i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        Self {
            channels: channel::channels(settings),
            routes: settings.alerts.routes.clone(),
            settle: micros(settings.alerts.settle),
            window: micros(settings.alerts.window),
            pages: pages(settings, ops),
            client: OnceLock::new(),
        }
    }

    /// All channels, in the order of the configuration.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The channel of this name.
    pub fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name == name)
    }

    /// The routes.
    pub fn routes(&self) -> &[AlertRoute] {
        &self.routes
    }

    /// The routes that somebody sees, each with the groups within their reach.
    pub fn routes_within(&self, reach: &Reach) -> Vec<AlertRoute> {
        let within = |route| route::within(route, reach);
        self.routes.iter().filter_map(within).collect()
    }

    /// The channels that somebody sees: all, or those that are told of nodes within their reach.
    pub fn channels_within(&self, reach: &Reach) -> Vec<&Channel> {
        let routes = self.routes_within(reach);
        let all = reach.is_all() || self.routes.is_empty();
        let told = |channel: &&Channel| {
            all || routes
                .iter()
                .any(|route| route.channels.contains(&channel.name))
        };
        self.channels.iter().filter(told).collect()
    }

    /// Whether a channel hears of something.
    pub fn hears(&self, channel: &Channel, about: &About<'_>) -> bool {
        route::hears(&channel.name, about, &self.routes)
    }

    fn hearing<'a>(&'a self, about: &'a About<'a>) -> impl Iterator<Item = &'a Channel> {
        self.channels
            .iter()
            .filter(move |channel| self.hears(channel, about))
    }

    /// The client of the channels that speak HTTP, made when it is first needed.
    fn client(&self) -> Result<reqwest::Client, reqwest::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let made = attempt::client()?;
        Ok(self.client.get_or_init(|| made).clone())
    }
}

/// Where people reach the pages: as configured, else by the door's address, by the server's first name beyond loopback.
fn pages(settings: &CollectorSettings, ops: SocketAddr) -> String {
    if let Some(pages) = &settings.pages {
        return pages.trim_end_matches('/').to_owned();
    }
    let is_local = ops.ip().is_loopback();
    let scheme = if settings.tls.is_some() || !is_local {
        "https"
    } else {
        "http"
    };
    match settings.names.first() {
        Some(name) if !is_local && name.contains(':') => {
            format!("{scheme}://[{name}]:{}", ops.port())
        }
        Some(name) if !is_local => format!("{scheme}://{name}:{}", ops.port()),
        _ => format!("{scheme}://{ops}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::violations::view::{MountView, ViolationView};

    /// Names that somebody would give a file, a user or a mount to be taken for markup.
    pub(crate) fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("<!channel>".to_owned()),
            Just("<@U0123>".to_owned()),
            Just("<https://evil.example|click>".to_owned()),
            Just("&lt;b&gt;".to_owned()),
            Just("\r\nBcc: a@b.example\r\n".to_owned()),
            Just("\u{202e}gnp.exe\u{2066}\u{200b}".to_owned()),
            Just("`*_~@here#".to_owned()),
            Just("</code><script>".to_owned()),
            Just("=?utf-8?q?=0a?=".to_owned()),
            Just("\\012\u{0}\u{1b}[2J".to_owned()),
            any::<String>(),
        ];
        proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
    }

    /// A violation in which everything that is not ours has this name.
    pub(crate) fn hostile_violation(name: &str) -> ViolationView {
        let mut violation = crate::web::sample::violation();
        violation.id = "v1".to_owned();
        violation.node_name = name.to_owned();
        violation.path = Some(format!("./{name}"));
        violation.found = Some(name.to_owned());
        violation.fields = vec![name.to_owned()];
        violation.mount = Some(MountView {
            source: name.to_owned(),
            r#type: name.to_owned(),
        });
        if let Some(actor) = &mut violation.actor {
            actor.exe = Some(name.to_owned());
            actor.user = Some(name.to_owned());
            actor.unit = Some(name.to_owned());
        }
        if let Some(image) = &mut violation.image {
            image.name = name.to_owned();
        }
        violation
    }

    #[test]
    fn links_lead_to_where_people_reach_the_pages() {
        let mut settings = CollectorSettings::new("/tmp".into());
        settings.names = vec!["c.example".to_owned()];
        let at = |text: &str| {
            text.parse::<SocketAddr>()
                .unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 1)))
        };
        assert_eq!(
            pages(&settings, at("127.0.0.1:8080")),
            "http://127.0.0.1:8080"
        );
        assert_eq!(
            pages(&settings, at("0.0.0.0:8080")),
            "https://c.example:8080"
        );
        settings.pages = Some("https://pristine.example/".to_owned());
        assert_eq!(
            pages(&settings, at("0.0.0.0:8080")),
            "https://pristine.example"
        );
    }
}
