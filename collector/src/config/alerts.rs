//! The parts of the configuration that say who is told of what: channels and routes.

use std::path::Path;

use attestation::scope::{Expect, Rule, Scope, ScopeError};
use lettre::message::Mailbox;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::ConfigError;
use crate::alerts::channel_names;
use crate::files;
use crate::settings::{
    AlertRoute, AlertSettings, Alertmanager, CollectorSettings, Email, MailSecurity, Slack, Webhook,
};
use crate::violations::view::{Kind, Severity};

/// Channels and routes: a page shows them all, and each step of a violation is held against each.
const MOST: usize = 64;
/// Characters of a channel's name.
const NAME: usize = 64;
/// Who gets one mail; beyond that a list of the mail server is the place for names.
const RECIPIENTS: usize = 50;
/// Seconds that a message may be held back or gathered.
const LONGEST: u64 = 3_600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    name: Option<String>,
    url: String,
    secret_file: std::path::PathBuf,
    #[serde(default)]
    grouping: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSlack {
    name: String,
    url_file: std::path::PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAlertmanager {
    name: String,
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEmail {
    name: String,
    server: String,
    port: Option<u16>,
    security: Option<RawSecurity>,
    from: String,
    to: Vec<String>,
    user: Option<String>,
    password_file: Option<std::path::PathBuf>,
    ca: Option<std::path::PathBuf>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawSecurity {
    Tls,
    Starttls,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    channels: Vec<String>,
    severity: Option<Severity>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    kinds: Vec<Kind>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTiming {
    settle: Option<u64>,
    window: Option<u64>,
}

/// All that is configured of it.
pub(super) struct Raw {
    pub(super) webhook: Vec<RawWebhook>,
    pub(super) slack: Vec<RawSlack>,
    pub(super) alertmanager: Vec<RawAlertmanager>,
    pub(super) email: Vec<RawEmail>,
    pub(super) route: Vec<RawRoute>,
    pub(super) timing: RawTiming,
}

/// Where the file is, and what stands in it relative to what.
struct Place<'a> {
    file: &'a Path,
    base: &'a Path,
}

impl Place<'_> {
    fn bad(&self, key: impl Into<String>, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            path: self.file.to_owned(),
            key: key.into(),
            reason: reason.into(),
        }
    }

    /// The one line of a file that others cannot read.
    fn secret(&self, file: &Path) -> Result<Zeroizing<String>, ConfigError> {
        let text = Zeroizing::new(files::read_secret(&self.base.join(file))?);
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    fn name(&self, key: &str, name: &str) -> Result<(), ConfigError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        if name.is_empty() || name.len() > NAME || !name.chars().all(is_plain) {
            return Err(self.bad(
                format!("{key}.name"),
                format!("1 to {NAME} letters, digits and `._:-`"),
            ));
        }
        Ok(())
    }
}

/// Fills the settings.
pub(super) fn ready(
    file: &Path,
    base: &Path,
    raw: Raw,
    settings: &mut CollectorSettings,
) -> Result<(), ConfigError> {
    let place = Place { file, base };
    let usual = AlertSettings::default();
    let timing = |key: &str, value: Option<u64>, usual: u64| match value.unwrap_or(usual) {
        seconds @ 0..=LONGEST => Ok(seconds),
        _ => Err(place.bad(
            format!("alerts.{key}"),
            format!("at most {LONGEST} seconds"),
        )),
    };
    settings.webhooks = each(raw.webhook, |it| webhook(&place, it))?;
    settings.alerts = AlertSettings {
        settle: timing("settle", raw.timing.settle, usual.settle)?,
        window: timing("window", raw.timing.window, usual.window)?,
        slack: each(raw.slack, |it| slack(&place, it))?,
        alertmanagers: each(raw.alertmanager, |it| alertmanager(&place, it))?,
        email: each(raw.email, |it| email(&place, it))?,
        routes: Vec::new(),
    };
    let names = channel_names(settings);
    if names.len() > MOST || raw.route.len() > MOST {
        return Err(place.bad("channels and routes", format!("at most {MOST} of each")));
    }
    let twice = names
        .iter()
        .enumerate()
        .find(|(at, name)| names[..*at].contains(name));
    if let Some((_, name)) = twice {
        return Err(place.bad("name", format!("two channels are called `{name}`")));
    }
    settings.alerts.routes = each(raw.route, |it| route(&place, &names, it))?;
    Ok(())
}

fn each<A, B>(
    all: Vec<A>,
    ready: impl Fn(A) -> Result<B, ConfigError>,
) -> Result<Vec<B>, ConfigError> {
    all.into_iter().map(ready).collect()
}

fn is_http(url: &str) -> bool {
    reqwest::Url::parse(url)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn webhook(place: &Place<'_>, raw: RawWebhook) -> Result<Webhook, ConfigError> {
    if !is_http(&raw.url) {
        return Err(place.bad("webhook.url", "an http or https URL"));
    }
    if let Some(name) = &raw.name {
        place.name("webhook", name)?;
    }
    let secret = place.secret(&raw.secret_file)?;
    Ok(Webhook {
        name: raw.name,
        grouping: raw.grouping,
        ..Webhook::new(raw.url, secret)
    })
}

fn slack(place: &Place<'_>, raw: RawSlack) -> Result<Slack, ConfigError> {
    place.name("slack", &raw.name)?;
    let url = place.secret(&raw.url_file)?;
    if !is_http(&url) {
        return Err(place.bad(
            format!("slack.url_file ({})", raw.name),
            "the file holds one http or https URL",
        ));
    }
    Ok(Slack {
        name: raw.name,
        url,
    })
}

fn alertmanager(place: &Place<'_>, raw: RawAlertmanager) -> Result<Alertmanager, ConfigError> {
    place.name("alertmanager", &raw.name)?;
    if !is_http(&raw.url) {
        return Err(place.bad("alertmanager.url", "an http or https URL, before `/api/v2`"));
    }
    Ok(Alertmanager {
        name: raw.name,
        url: raw.url,
    })
}

fn email(place: &Place<'_>, raw: RawEmail) -> Result<Email, ConfigError> {
    place.name("email", &raw.name)?;
    let bad = |key: &str, reason: String| place.bad(format!("email.{key} ({})", raw.name), reason);
    let mailbox = |key: &str, text: &str| {
        text.parse::<Mailbox>()
            .map_err(|error| bad(key, format!("{text:?} is no mail address: {error}")))
    };
    if raw.to.is_empty() || raw.to.len() > RECIPIENTS {
        return Err(bad("to", format!("1 to {RECIPIENTS} addresses")));
    }
    let to = raw
        .to
        .iter()
        .map(|text| mailbox("to", text))
        .collect::<Result<_, _>>()?;
    let security = match (raw.security, raw.port) {
        (Some(RawSecurity::Tls), _) | (None, Some(465)) => MailSecurity::Tls,
        (Some(RawSecurity::Starttls), _) | (None, _) => MailSecurity::StartTls,
    };
    let port = raw.port.unwrap_or(match security {
        MailSecurity::Tls => 465,
        MailSecurity::StartTls => 587,
    });
    let login = match (&raw.user, &raw.password_file) {
        (Some(user), Some(file)) => Some((user.clone(), place.secret(file)?)),
        (None, None) => None,
        _ => {
            return Err(bad(
                "user",
                "`user` and `password_file` go together".to_owned(),
            ));
        }
    };
    let ca = raw
        .ca
        .as_ref()
        .map(|file| files::read_trusted(&place.base.join(file)))
        .transpose()?;
    Ok(Email {
        from: mailbox("from", &raw.from)?,
        to,
        security,
        port,
        login,
        ca,
        name: raw.name,
        server: raw.server,
    })
}

fn route(place: &Place<'_>, names: &[String], raw: RawRoute) -> Result<AlertRoute, ConfigError> {
    if raw.channels.is_empty() {
        return Err(place.bad("route.channels", "at least one channel"));
    }
    if let Some(unknown) = raw.channels.iter().find(|name| !names.contains(name)) {
        let known = names.join(", ");
        return Err(place.bad(
            "route.channels",
            format!("there is no channel `{unknown}`; there are: {known}"),
        ));
    }
    let globs: Vec<&str> = raw.paths.iter().map(String::as_str).collect();
    let paths = if globs.is_empty() {
        None
    } else {
        let rules = path_rules(&globs).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            place.bad(
                "route.paths",
                format!("{error}: {}", cause.unwrap_or_default()),
            )
        })?;
        Some(rules)
    };
    Ok(AlertRoute {
        channels: raw.channels,
        severity: raw.severity.unwrap_or(Severity::Low),
        groups: raw.groups,
        kinds: raw.kinds,
        paths,
    })
}

/// Globs as a scope has them: what one matches, and what lies below it, is sealed; all else is ignored.
///
/// # Errors
/// When one is no glob.
pub(crate) fn path_rules(globs: &[&str]) -> Result<Scope, ScopeError> {
    let rule = |glob: &str, expect| Rule {
        r#match: glob.to_owned(),
        expect,
        time: false,
    };
    let mut rules = vec![rule("**", Expect::Ignored)];
    rules.extend(globs.iter().map(|glob| rule(glob, Expect::Sealed)));
    Scope::new(rules)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A configuration beside a secret file and one that others may read.
    fn load(text: &str) -> Result<CollectorSettings, String> {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode: u32| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        write("url", "https://hooks.example/T0/B0/x\n", 0o600);
        write("open", "https://hooks.example/T0/B0/x\n", 0o644);
        let file = write("collector.toml", text, 0o644);
        super::super::load(Some(&file)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_of_channel_and_a_route() {
        let settings = load(
            r#"
            [alerts]
            settle = 1
            [[webhook]]
            url = "https://a.example/hook"
            secret_file = "url"
            [[slack]]
            name = "chat"
            url_file = "url"
            [[alertmanager]]
            name = "am"
            url = "http://am.example:9093/"
            [[email]]
            name = "mail"
            server = "smtp.example"
            from = "Pristine <pristine@c.example>"
            to = ["ops@c.example"]
            user = "pristine"
            password_file = "url"
            [[route]]
            channels = ["chat", "a.example"]
            severity = "high"
            groups = ["web"]
            kinds = ["difference", "unknown-image"]
            paths = ["etc/**"]
            "#,
        )
        .unwrap();
        assert_eq!(
            channel_names(&settings),
            ["a.example", "chat", "am", "mail"]
        );
        let mail = &settings.alerts.email[0];
        assert_eq!((mail.port, mail.security), (587, MailSecurity::StartTls));
        assert_eq!(settings.alerts.routes[0].severity, Severity::High);
        assert_eq!((settings.alerts.settle, settings.alerts.window), (1, 60));
        assert_eq!(
            settings.alerts.slack[0].url.as_str(),
            "https://hooks.example/T0/B0/x"
        );
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_would() {
        let refused = |text: &str, why: &str| {
            let error = load(text).err().unwrap();
            assert!(error.contains(why), "{error}");
        };
        refused(
            "[[slack]]\nname = \"chat\"\nurl_file = \"open\"\n",
            "others may read",
        );
        refused(
            "[[slack]]\nname = \"a b\"\nurl_file = \"url\"\n",
            "slack.name",
        );
        refused(
            "[[slack]]\nname = \"x\"\nurl_file = \"url\"\n[[alertmanager]]\nname = \"x\"\nurl = \"http://a.example\"\n",
            "two channels are called `x`",
        );
        refused(
            "[[slack]]\nname = \"chat\"\nurl_file = \"url\"\n[[route]]\nchannels = [\"cat\"]\n",
            "no channel `cat`; there are: chat",
        );
        refused(
            "[[slack]]\nname = \"chat\"\nurl_file = \"url\"\n[[route]]\nchannels = [\"chat\"]\npaths = [\"/etc\"]\n",
            "route.paths",
        );
        refused(
            "[[email]]\nname = \"m\"\nserver = \"s.example\"\nfrom = \"x\"\nto = [\"a@b.example\"]\n",
            "email.from (m)",
        );
        refused(
            "[[email]]\nname = \"m\"\nserver = \"s.example\"\nfrom = \"a@b.example\"\nto = [\"a@b.example\"]\nuser = \"u\"\n",
            "go together",
        );
        refused(
            "[[alertmanager]]\nname = \"am\"\nurl = \"am.example\"\n",
            "alertmanager.url",
        );
        refused("[alerts]\nwindow = 9999\n", "alerts.window");
        refused(
            "[[slack]]\nname = \"chat\"\nurl_fil = \"url\"\n",
            "did you mean \"url_file\"?",
        );
    }
}
