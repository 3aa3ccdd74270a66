//! `backup`, `restore`, `check`.

use std::path::PathBuf;

use clap::Args;

use super::{Printed, ProgramError, print};
use crate::backup::{self, BackupError, Copied};
use crate::check::Checked;
use crate::{clock, config};

#[derive(Args)]
pub(super) struct Copying {
    /// The archive (tar, zstd).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    printed: Printed,
}

pub(super) async fn backup(asked: Copying) -> Result<(), ProgramError> {
    let settings = config::load(asked.printed.configured.config.as_deref())?;
    let copied = backup::make(&settings.state, &asked.file, clock::now()).await?;
    print(asked.printed.format, &copied, || told("copied to", &copied))
}

pub(super) async fn restore(asked: Copying) -> Result<(), ProgramError> {
    let settings = config::load(asked.printed.configured.config.as_deref())?;
    let (file, state) = (asked.file, settings.state);
    let copied = tokio::task::spawn_blocking(move || backup::put_back(&file, &state))
        .await
        .map_err(|_gone| BackupError::Interrupted)??;
    print(asked.printed.format, &copied, || {
        told("put back from", &copied)
    })
}

fn told(done: &str, copied: &Copied) -> String {
    format!(
        "{} files, {} bytes {done} {}, as of {} by version {}",
        copied.files,
        copied.bytes,
        copied.file.display(),
        copied.label.made,
        copied.label.version
    )
}

pub(super) async fn check(asked: Printed) -> Result<(), ProgramError> {
    let settings = config::load(asked.configured.config.as_deref())?;
    let checked = crate::check::check(&settings.state).await?;
    print(asked.format, &checked, || said(&checked))?;
    if checked.agrees() {
        Ok(())
    } else {
        let all = checked.findings.len() as u64 + checked.more;
        Err(ProgramError::NotSo(format!(
            "{all} things do not agree in {}: keep a copy of it, and put a backup back",
            settings.state.display()
        )))
    }
}

fn said(checked: &Checked) -> String {
    let mut lines = vec![format!(
        "evidence    {:>9}  digests computed\nstatements  {:>9}  in the chains of their nodes, {} of them quiet and pruned after their time\nreceipts    {:>9}  signatures verified\n\
         log         {:>9}  leaves\nviolations  {:>9}  compared with their steps\nmanifests   {:>9}  read",
        checked.evidence,
        checked.statements,
        checked.pruned,
        checked.receipts,
        checked.leaves,
        checked.violations,
        checked.manifests
    )];
    for finding in &checked.findings {
        lines.push(format!(
            "{}  {}: {}",
            finding.check, finding.of, finding.found
        ));
    }
    if checked.more > 0 {
        lines.push(format!("and {} more", checked.more));
    }
    if checked.agrees() {
        lines.push("everything agrees".to_owned());
    }
    lines.join("\n")
}
