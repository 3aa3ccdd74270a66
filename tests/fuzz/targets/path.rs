//! Shown paths: what is read is written as it was, and raw bytes come back.
#![no_main]

use attestation::path::ImagePath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(path) = ImagePath::parse(text)
    {
        assert_eq!(path.to_string(), text);
        assert_eq!(
            ImagePath::from_bytes(path.as_bytes()).expect("its own bytes"),
            path
        );
    }
    if let Ok(path) = ImagePath::from_bytes(data) {
        assert_eq!(
            ImagePath::parse(&path.to_string()).expect("its own text"),
            path
        );
        assert!(
            path.parent()
                .is_none_or(|parent| path.starts_with(&parent) && parent < path)
        );
    }
});
