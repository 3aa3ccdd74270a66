//! The journal's own protocol, so that fields stay fields: `journalctl PRISTINE_NODE=…` finds what is about a node.
//!
//! One datagram an event: `NAME=value` and a newline for each field, or, where the value has newlines, the name, a newline,
//! the length (eight bytes, little end first), the value and a newline.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where systemd's journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// A value is cut here: the datagram must fit into a socket's buffer.
const VALUE_BYTES: usize = 16 * 1024;
/// And so many fields are told of one event.
const FIELDS: usize = 32;

/// Sends events to the journal.
#[derive(Debug)]
pub(super) struct Native {
    socket: UnixDatagram,
}

impl Native {
    /// A journal that listens at `path`.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // A journal that does not read must not hold the agent up.
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The journal, where this program's standard error is connected to it.
    pub(super) fn of_this_program() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let metadata = std::fs::metadata("/proc/self/fd/2").ok()?;
        // Somebody between us and the journal would lose what we say past them.
        (stream == format!("{}:{}", metadata.dev(), metadata.ino())).then_some(())?;
        Self::at(Path::new(SOCKET)).ok()
    }
}

impl<S: Subscriber> Layer<S> for Native {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let record = record(event);
        if let Err(error) = self.socket.send(&record) {
            // Standard error goes to the journal by another way.
            eprintln!("not told to the journal ({error}): {}", shown(&record));
        }
    }
}

/// The event as a datagram.
fn record(event: &Event<'_>) -> Vec<u8> {
    let mut fields = Fields::default();
    let priority = match *event.metadata().level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    };
    fields.put("PRIORITY", priority);
    fields.put("SYSLOG_IDENTIFIER", "pristine-agent");
    fields.put("PRISTINE_TARGET", event.metadata().target());
    event.record(&mut fields);
    if !fields.has_message {
        fields.put("MESSAGE", event.metadata().name());
    }
    fields.bytes
}

/// Something of a record that people can read.
fn shown(record: &[u8]) -> String {
    String::from_utf8_lossy(record)
        .trim_end()
        .replace('\n', " ")
}

#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    count: usize,
    has_message: bool,
}

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        if self.count >= FIELDS {
            return;
        }
        self.count += 1;
        let mut end = value.len().min(VALUE_BYTES);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let value = value.get(..end).unwrap_or_default().as_bytes();
        self.bytes.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            self.bytes.push(b'\n');
            let length = u64::try_from(value.len()).unwrap_or(0);
            self.bytes.extend_from_slice(&length.to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }

    fn take(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.has_message = true;
            return self.put("MESSAGE", value);
        }
        // Names of fields are ours, in the letters of code; the journal takes capitals, digits and the underscore.
        let mut name = String::from("PRISTINE_");
        name.extend(field.name().chars().map(|letter| match letter {
            'a'..='z' => letter.to_ascii_uppercase(),
            'A'..='Z' | '0'..='9' => letter,
            _ => '_',
        }));
        self.put(&name, value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn heard(tell: impl FnOnce()) -> String {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("journal");
        let journal = UnixDatagram::bind(&path).unwrap();
        journal.set_nonblocking(true).unwrap();
        let subscriber = tracing_subscriber::registry().with(Native::at(&path).unwrap());
        tracing::subscriber::with_default(subscriber, tell);
        let mut buffer = vec![0; 64 * 1024];
        let length = journal.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn an_event_keeps_its_fields() {
        let said = heard(|| tracing::warn!(sequence = 7, why = "full", "the spool waits"));
        for line in [
            "PRIORITY=4\n",
            "SYSLOG_IDENTIFIER=pristine-agent\n",
            "MESSAGE=the spool waits\n",
            "PRISTINE_SEQUENCE=7\n",
            "PRISTINE_WHY=full\n",
        ] {
            assert!(said.contains(line), "{line:?} in {said:?}");
        }
    }

    #[test]
    fn a_value_with_newlines_cannot_be_taken_for_another_field() {
        let said = heard(|| tracing::info!(path = "a\nPRIORITY=0", "x"));
        let value = "PRISTINE_PATH\n\u{c}\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert!(said.contains(value), "{said:?}");
        assert!(said.contains("PRIORITY=6\n"));
    }

    #[test]
    fn a_value_is_bounded() {
        let long = "ä".repeat(100_000);
        let said = heard(|| tracing::info!(long, "x"));
        assert!(said.len() < VALUE_BYTES + 200);
    }
}
