//! Certificates as they are kept and given again.

use attestation::time::Timestamp;

use crate::authority::Issued;
use crate::store::{StoreError, Writing};

pub(super) async fn keep_certificate(
    tx: &mut Writing,
    node: &str,
    issued: &Issued,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO certificates (serial, node, der, issued, expires) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&issued.serial)
    .bind(node)
    .bind(&issued.der)
    .bind(now.as_micros())
    .bind(issued.expires.as_micros())
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

pub(super) fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
