//! Puts the commit into the program, for `--version`; `unknown` where it is built outside a checkout.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PRISTINE_COMMIT");
    println!("cargo:rerun-if-changed=../.git/HEAD");
    println!("cargo:rerun-if-changed=migrations");
    let commit = std::env::var("PRISTINE_COMMIT")
        .ok()
        .or_else(of_checkout)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=PRISTINE_COMMIT={commit}");
}

fn of_checkout() -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
