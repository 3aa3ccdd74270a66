//! The agent that runs now, seen from outside: what it holds, and what its unit gives it.

use std::path::Path;

use super::Finding;
use crate::privileges;
use crate::status::{self, Status};

pub(super) async fn look(state: &Path) -> Vec<Finding> {
    let status = match status::ask(state).await {
        Ok(status) => status,
        Err(error) => {
            let found = format!("does not run: {}", crate::journal::chain(&error));
            return vec![Finding::unknown("agent", found)];
        }
    };
    let Some(pid) = status.pid else {
        return vec![Finding::unknown(
            "agent",
            "runs, and does not tell its process",
        )];
    };
    let process =
        |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let mut findings = vec![running(&status, pid), held(&process("status"), pid)];
    findings.push(unit(&process("cgroup"), &process("limits")));
    findings
}

fn running(status: &Status, pid: u32) -> Finding {
    let state = format!("{:?}", status.state).to_lowercase();
    Finding::ok("agent", format!("runs as process {pid}, {state}"))
}

/// What the daemon gave up, of its `status` file.
fn held(status: &str, pid: u32) -> Finding {
    const NAME: &str = "agent's rights";
    if status.is_empty() {
        return Finding::unknown(NAME, "cannot be seen by this user");
    }
    let mut more = Vec::new();
    if !status.lines().any(|line| line == "NoNewPrivs:\t1") {
        more.push("it may gain privileges");
    }
    if privileges::is_reduced(Path::new(&format!("/proc/{pid}/status"))) == Some(false) {
        more.push("it holds capabilities that it does not need");
    }
    if more.is_empty() {
        return Finding::ok(NAME, "reduced to what it needs");
    }
    let remedy = "start it by its unit; its journal says why it could not give them up";
    Finding::limit(NAME, more.join(", "), remedy)
}

/// Whether systemd keeps it, and cannot be made to keep its memory in a file.
fn unit(cgroup: &str, limits: &str) -> Finding {
    const NAME: &str = "unit";
    let unit = cgroup
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .find(|name| name.ends_with(".service"));
    let Some(unit) = unit else {
        return Finding::limit(
            NAME,
            "not run by a service manager",
            "run it by packaging/systemd/pristine-agent.service: nobody restarts it otherwise",
        );
    };
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .and_then(|rest| rest.split_whitespace().next());
    match core {
        Some("0") => Finding::ok(NAME, format!("{unit}, no core files")),
        _ => Finding::limit(
            NAME,
            format!("{unit} may leave core files, which would hold the node's key"),
            "set LimitCORE=0",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    #[test]
    fn a_unit_is_found_by_its_control_group() {
        let cgroup = "0::/system.slice/pristine-agent.service\n";
        let limits = "Limit                     Soft Limit\nMax core file size        0                    0                    bytes\n";
        let found = unit(cgroup, limits);
        assert_eq!(found.grade, Grade::Ok);
        assert!(found.found.contains("pristine-agent.service"));
        assert_eq!(unit(cgroup, "").grade, Grade::Limit);
        assert_eq!(
            unit("0::/user.slice/session-1.scope\n", limits).grade,
            Grade::Limit
        );
    }
}
