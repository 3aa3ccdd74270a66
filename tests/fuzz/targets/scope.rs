//! Scope files and the decision on any path, with and without the walk's state.
#![no_main]

use attestation::{path::ImagePath, scope::Scope};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let at = data
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(data.len());
    let (json, rest) = data.split_at(at);
    let Ok(scope) = Scope::from_json(json) else {
        return;
    };
    let again = serde_json::to_vec(&scope).expect("JSON");
    assert_eq!(
        Scope::from_json(&again).expect("its own JSON").digest(),
        scope.digest()
    );
    let Ok(path) = ImagePath::from_bytes(rest.get(1..).unwrap_or_default()) else {
        return;
    };
    let mut state = scope.start();
    for component in path.components() {
        state = state.child(component);
    }
    assert_eq!(scope.decide(&path), state.decision());
});
