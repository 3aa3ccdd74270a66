//! Mail: plain text and HTML of the same facts, over a connection that is always encrypted.
//!
//! A message's id is its `Message-ID`: a second delivery is the same mail, and readers show it once.

use std::time::{Duration, SystemTime};

use lettre::address::Envelope;
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use maud::{DOCTYPE, html};

use super::attempt::{Outcome, TIMEOUT};
use super::message::Message;
use crate::settings::{Email, MailSecurity};

/// Characters of a subject.
const SUBJECT: usize = 180;

/// Why mail cannot be sent as configured.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The certificate of the authority cannot be read.
    #[error("the mail server's authority or name cannot be used for TLS")]
    Tls(#[source] lettre::transport::smtp::Error),
    /// The message could not be written.
    #[error("the mail cannot be written")]
    Message(#[from] lettre::error::Error),
}

/// A way to a mail server, and who gets what goes there.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mailer {
    /// As configured; nothing is sent yet.
    ///
    /// # Errors
    /// When the server's name or authority cannot be used for TLS.
    pub fn new(email: &Email) -> Result<Self, MailError> {
        let mut parameters = TlsParameters::builder(email.server.clone());
        if let Some(pem) = &email.ca {
            let authority = Certificate::from_pem(pem.as_bytes()).map_err(MailError::Tls)?;
            parameters = parameters
                .certificate_store(CertificateStore::None)
                .add_root_certificate(authority);
        }
        let parameters = parameters.build_rustls().map_err(MailError::Tls)?;
        let tls = match email.security {
            MailSecurity::Tls => Tls::Wrapper(parameters),
            MailSecurity::StartTls => Tls::Required(parameters),
        };
        let mut builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(email.server.clone())
                .port(email.port)
                .tls(tls)
                .timeout(Some(TIMEOUT));
        if let Some((user, password)) = &email.login {
            builder = builder.credentials(Credentials::new(user.clone(), password.to_string()));
        }
        Ok(Self {
            transport: builder.build(),
            from: email.from.clone(),
            to: email.to.clone(),
        })
    }

    /// The mail's bytes, made once and stored.
    ///
    /// # Errors
    /// When an address of the configuration makes no header.
    pub fn body(&self, message: &Message) -> Result<Vec<u8>, MailError> {
        let id = format!("<{}@{}>", message.id, self.from.email.domain());
        let micros = u64::try_from(message.at.as_micros()).unwrap_or(0);
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .subject(subject(&message.headline))
            .message_id(Some(id))
            .date(SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let mail = builder.multipart(MultiPart::alternative_plain_html(
            text(message),
            markup(message),
        ))?;
        Ok(mail.formatted())
    }

    /// Sends what [`Self::body`] made.
    pub async fn send(&self, body: &[u8]) -> Outcome {
        let to = self.to.iter().map(|to| to.email.clone()).collect();
        let envelope = match Envelope::new(Some(self.from.email.clone()), to) {
            Ok(envelope) => envelope,
            Err(error) => {
                return Outcome::Refused {
                    error: error.to_string(),
                };
            }
        };
        match tokio::time::timeout(TIMEOUT * 2, self.transport.send_raw(&envelope, body)).await {
            Ok(Ok(_)) => Outcome::Accepted,
            // Also what the server calls permanent: a full disk or a wrong password of today is mended tomorrow.
            Ok(Err(error)) => Outcome::retry(chain(&error)),
            Err(_late) => Outcome::retry("no answer in time".to_owned()),
        }
    }
}

fn chain(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    super::message::quiet(&text, 300)
}

/// One line, whatever was in it.
fn subject(headline: &str) -> String {
    super::message::quiet(&format!("[pristine] {headline}"), SUBJECT)
}

fn text(message: &Message) -> String {
    format!(
        "{}\n\n{}\n\n{}\n",
        message.headline,
        message.lines().join("\n"),
        message.link
    )
}

/// Everything foreign goes through maud, which escapes it; the only link is ours.
fn markup(message: &Message) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { (message.headline) } }
            body {
                p { b { (message.headline) } }
                table { @for (name, value) in &message.facts { tr { th align="left" valign="top" { (name) } td { code { (value) } } } } }
                p { a href=(message.link) { "Open" } }
            }
        }
    }
    .into_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alerts::message::Nodes;
    use crate::alerts::tests::{hostile, hostile_violation};
    use crate::violations::view::Step;

    fn mailer() -> Mailer {
        drop(rustls::crypto::ring::default_provider().install_default());
        Mailer::new(&Email {
            name: "mail".to_owned(),
            server: "localhost".to_owned(),
            port: 465,
            security: MailSecurity::Tls,
            from: "Pristine <pristine@c.example>".parse().unwrap(),
            to: vec!["ops@c.example".parse().unwrap()],
            login: None,
            ca: None,
        })
        .unwrap()
    }

    fn check(mailer: &Mailer, message: &Message) {
        let body = String::from_utf8(mailer.body(message).unwrap()).unwrap();
        let (headers, _) = body.split_once("\r\n\r\n").unwrap();
        let names: Vec<&str> = headers
            .split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split_once(':').unwrap().0)
            .collect();
        let mut sorted: Vec<&str> = names.clone();
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            [
                "Content-Type",
                "Date",
                "From",
                "MIME-Version",
                "Message-ID",
                "Subject",
                "To"
            ],
            "no name adds a header: {headers}"
        );
        assert!(
            !subject(&message.headline)
                .chars()
                .any(crate::web::text::hides)
        );
        let page = markup(message);
        let elements = page.matches('<').count();
        let harmless = markup(&Message {
            headline: String::new(),
            facts: message
                .facts
                .iter()
                .map(|(name, _)| (*name, String::new()))
                .collect(),
            ..message.clone()
        });
        assert_eq!(
            elements,
            harmless.matches('<').count(),
            "no name adds an element"
        );
        assert!(!page.chars().any(crate::web::text::hides), "{page:?}");
    }

    #[test]
    fn a_name_adds_no_header_and_no_element() {
        let name =
            "x\r\nBcc: all@c.example\r\n\r\n<script>alert(1)</script><a href=\"http://evil\">";
        let violation = hostile_violation(name);
        let message = Message::of(
            "m",
            &violation,
            Step::Opened,
            &Nodes::one(name),
            "https://c.example",
        );
        check(&mailer(), &message);
        let body = String::from_utf8(mailer().body(&message).unwrap()).unwrap();
        assert!(body.contains("Message-ID: <m@c.example>"), "{body}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_name_yields_a_header_or_markup(name in hostile()) {
            let violation = hostile_violation(&name);
            check(&mailer(), &Message::of("m", &violation, Step::Updated, &Nodes::one(&name), "https://c.example"));
        }
    }
}
