//! What the end-to-end tests share: starting the real programs by their own commands and configuration files, talking to them as
//! people, nodes and webhook receivers do, and waiting for conditions. Nothing here waits for time to pass: it waits for something
//! to be so, and says what was missing when it gives up.

pub mod agent;
pub mod attested;
pub mod change;
pub mod collector;
pub mod cost;
pub mod disk;
pub mod evidence;
pub mod machine;
pub mod manager;
pub mod model;
pub mod node;
pub mod off;
pub mod packages;
pub mod page;
pub mod people;
pub mod program;
pub mod proxy;
pub mod random;
pub mod receivers;
pub mod roots;
pub mod rows;
pub mod sighting;
pub mod wait;
pub mod webhook;
pub mod world;

use std::sync::LazyLock;

/// The one runtime for clients and receivers, so that tests themselves read from top to bottom without `await`.
pub(crate) static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test")
});

/// True as root. Tests that need it otherwise say so and are left out.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// For the first line of a test that needs root: `if left_out_without_root("…") { return; }`.
pub fn left_out_without_root(test: &str) -> bool {
    if !is_root() {
        eprintln!("left out, needs root: {test}");
    }
    !is_root()
}
