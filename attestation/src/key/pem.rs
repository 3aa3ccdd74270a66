//! PEM of keys: one block, one form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::KeyError;

/// Key files are at most this long; a PKCS#8 P-256 key is 241 bytes.
pub(super) const MAX_PEM: usize = 4096;

/// One block, nothing but white space around it: what stands beside a key could be read by another tool as the key.
pub(super) fn decode_pem(pem: &str, wanted: &'static str) -> Result<Vec<u8>, KeyError> {
    if pem.len() > MAX_PEM {
        return Err(KeyError::Pem("too long"));
    }
    let mut lines = pem.trim_ascii().lines().map(str::trim_ascii_end);
    let first = lines
        .next()
        .and_then(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let label = first.ok_or(KeyError::Pem("no BEGIN line"))?;
    if label != wanted {
        return Err(KeyError::Label {
            wanted,
            found: label.chars().take(80).collect(),
        });
    }
    let mut body = Zeroizing::new(String::with_capacity(pem.len()));
    loop {
        let line = lines.next().ok_or(KeyError::Pem("no END line"))?;
        if let Some(end) = line.strip_prefix("-----END ") {
            if end.strip_suffix("-----") != Some(wanted) {
                return Err(KeyError::Pem("BEGIN and END differ"));
            }
            break;
        }
        body.push_str(line);
    }
    if lines.next().is_some() {
        return Err(KeyError::Pem("text after the END line"));
    }
    STANDARD
        .decode(body.as_bytes())
        .map_err(|_| KeyError::Pem("not standard base64"))
}

pub(super) fn encode_pem(der: &[u8], label: &str) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut pem = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}
