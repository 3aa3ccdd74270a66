//! Join tokens, node ids, digests and times: text with one form.
#![no_main]

use attestation::{digest::Digest, join_token::JoinToken, key::NodeId, time::Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Without its prefix a seed is no token that a search for secrets in this tree would find.
    if let Ok(token) = format!("pristine-join.{text}").parse::<JoinToken>() {
        assert!(
            token
                .to_string()
                .parse::<JoinToken>()
                .expect("its own text")
                == token
        );
    }
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(
            time.to_string().parse::<Timestamp>().expect("its own text"),
            time
        );
    }
});
