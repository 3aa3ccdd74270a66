//! Where alerts go: channels as configured, ready to send.

use super::alertmanager::{self, Alert};
use super::attempt::{Outcome, post};
use super::event;
use super::mail::{MailError, Mailer};
use super::message::Message;
use super::signature::{SecretError, SigningSecret};
use super::slack;
use crate::clock;
use crate::settings::CollectorSettings;
use attestation::time::Timestamp;
use zeroize::Zeroizing;

const JSON: &str = "application/json";

/// One channel.
pub struct Channel {
    /// What routes, pages and `alert test` call it.
    pub name: String,
    /// What its rows in the outbox are called: its name; the URL of a webhook that has none.
    pub key: String,
    /// Where to, without what may be secret.
    pub place: String,
    /// Whether the same change on many nodes is one message.
    pub gathers: bool,
    way: Way,
}

enum Way {
    Webhook {
        url: String,
        secret: Result<SigningSecret, SecretError>,
    },
    Slack {
        url: Zeroizing<String>,
    },
    Alertmanager {
        url: String,
    },
    Email(Result<Box<Mailer>, MailError>),
}

/// All channels of a configuration, in its order.
pub fn channels(settings: &CollectorSettings) -> Vec<Channel> {
    let mut all: Vec<Channel> = Vec::new();
    for (webhook, name) in settings.webhooks.iter().zip(channel_names(settings)) {
        let place = host(&webhook.url);
        let secret = SigningSecret::parse(&webhook.secret);
        if let Err(error) = &secret {
            tracing::error!(
                channel = name,
                error = error as &dyn std::error::Error,
                "webhook cannot be signed for"
            );
        }
        all.push(Channel {
            key: webhook.name.clone().unwrap_or_else(|| webhook.url.clone()),
            name,
            place,
            gathers: webhook.grouping,
            way: Way::Webhook {
                url: webhook.url.clone(),
                secret,
            },
        });
    }
    let named = |name: &String, place: String, way| Channel {
        name: name.clone(),
        key: name.clone(),
        place,
        gathers: true,
        way,
    };
    for slack in &settings.alerts.slack {
        let url = slack.url.clone();
        all.push(named(&slack.name, host(&url), Way::Slack { url }));
    }
    for other in &settings.alerts.alertmanagers {
        let url = format!("{}/api/v2/alerts", other.url.trim_end_matches('/'));
        all.push(named(&other.name, host(&url), Way::Alertmanager { url }));
    }
    for email in &settings.alerts.email {
        let mailer = Mailer::new(email).map(Box::new);
        if let Err(error) = &mailer {
            tracing::error!(
                channel = email.name,
                error = error as &dyn std::error::Error,
                "mail cannot be sent"
            );
        }
        let place = format!("{}:{}", email.server, email.port);
        all.push(named(&email.name, place, Way::Email(mailer)));
    }
    all
}

/// The names of all channels of a configuration, in its order.
pub fn channel_names(settings: &CollectorSettings) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for webhook in &settings.webhooks {
        let name = match &webhook.name {
            Some(name) => name.clone(),
            None => free_name(&host(&webhook.url), &names),
        };
        names.push(name);
    }
    let alerts = &settings.alerts;
    names.extend(alerts.slack.iter().map(|slack| slack.name.clone()));
    names.extend(alerts.alertmanagers.iter().map(|it| it.name.clone()));
    names.extend(alerts.email.iter().map(|email| email.name.clone()));
    names
}

/// A webhook without a name is called by its host; a second one there has a number.
fn free_name(place: &str, taken: &[String]) -> String {
    let is_free = |name: &str| taken.iter().all(|other| other != name);
    if is_free(place) {
        return place.to_owned();
    }
    (2..=taken.len() + 2)
        .map(|number| format!("{place}-{number}"))
        .find(|name| is_free(name))
        .unwrap_or_else(|| place.to_owned())
}

impl Channel {
    /// `webhook`, `slack`, `alertmanager`, `email`.
    pub const fn kind(&self) -> &'static str {
        match self.way {
            Way::Webhook { .. } => "webhook",
            Way::Slack { .. } => "slack",
            Way::Alertmanager { .. } => "alertmanager",
            Way::Email(_) => "email",
        }
    }

    /// Whether what was told can be told again in its place: then nothing has to be held back to be one message.
    pub const fn updates(&self) -> bool {
        matches!(self.way, Way::Alertmanager { .. })
    }

    /// A named webhook's rows were called by its URL before it had a name.
    pub(super) fn url_once_its_key(&self) -> Option<&str> {
        match &self.way {
            Way::Webhook { url, .. } if *url != self.key => Some(url),
            _ => None,
        }
    }

    /// Why nothing can be sent there as it is configured, if so.
    pub fn trouble(&self) -> Option<String> {
        match &self.way {
            Way::Webhook { secret, .. } => secret.as_ref().err().map(ToString::to_string),
            Way::Email(mailer) => mailer.as_ref().err().map(ToString::to_string),
            Way::Slack { .. } | Way::Alertmanager { .. } => None,
        }
    }

    /// A gathered message in this channel's form; none for Alertmanager, which is told how things stand when it is told. `event` is a
    /// webhook's form of it.
    pub fn body(
        &self,
        message: &Message,
        event: impl FnOnce() -> Vec<u8>,
    ) -> Result<Vec<u8>, MailError> {
        match &self.way {
            Way::Webhook { .. } => Ok(event()),
            Way::Slack { .. } => Ok(slack::body(message)),
            Way::Alertmanager { .. } => Ok(Vec::new()),
            Way::Email(Ok(mailer)) => mailer.body(message),
            // Nothing is made that cannot be sent; the attempt says why.
            Way::Email(Err(_)) => Ok(Vec::new()),
        }
    }

    /// The form of somebody's try.
    pub fn test_body(&self, message: &Message, now: Timestamp) -> Result<Vec<u8>, MailError> {
        match &self.way {
            Way::Alertmanager { .. } => Ok(alertmanager::body(&[Alert::test(message, now)])),
            _ => self.body(message, || event::test_body(message)),
        }
    }

    /// Sends a body.
    pub async fn send(&self, client: &reqwest::Client, id: &str, body: Vec<u8>) -> Outcome {
        match &self.way {
            Way::Webhook { url, secret } => {
                let secret = match secret {
                    Ok(secret) => secret,
                    Err(error) => {
                        return Outcome::Refused {
                            error: error.to_string(),
                        };
                    }
                };
                let seconds = clock::now().as_micros() / 1_000_000;
                let headers = [
                    ("webhook-id", id.to_owned()),
                    ("webhook-timestamp", seconds.to_string()),
                    ("webhook-signature", secret.sign(id, seconds, &body)),
                ];
                post(client, url, event::CONTENT_TYPE, &headers, body).await
            }
            Way::Slack { url } => post(client, url, JSON, &[], body).await,
            Way::Alertmanager { url } => post(client, url, JSON, &[], body).await,
            Way::Email(Ok(mailer)) => mailer.send(&body).await,
            Way::Email(Err(error)) => Outcome::Refused {
                error: error.to_string(),
            },
        }
    }
}

/// The host of an address, and its port where it has one; the rest may be a secret.
pub(super) fn host(url: &str) -> String {
    reqwest::Url::parse(url)
        .ok()
        .and_then(|url| {
            let host = url.host_str()?.to_owned();
            Some(
                url.port()
                    .map_or(host.clone(), |port| format!("{host}:{port}")),
            )
        })
        .unwrap_or_else(|| "webhook".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Webhook;

    #[test]
    fn a_channel_is_named_without_what_may_be_secret() {
        assert_eq!(
            host("https://hooks.example/services/T0/SECRET?token=x"),
            "hooks.example"
        );
        assert_eq!(host("http://127.0.0.1:9000/"), "127.0.0.1:9000");
    }

    #[test]
    fn webhooks_without_a_name_are_called_by_their_host() {
        let mut settings = CollectorSettings::new("/tmp".into());
        settings.webhooks = [
            "https://a.example/1",
            "https://a.example/2",
            "https://b.example/",
        ]
        .map(|url| Webhook::new(url, "0123456789abcdef".to_owned()))
        .to_vec();
        let names: Vec<String> = channels(&settings).into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["a.example", "a.example-2", "b.example"]);
        assert_eq!(channels(&settings)[1].key, "https://a.example/2");
    }
}
