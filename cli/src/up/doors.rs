//! The three addresses: those asked for must be had, a default that is taken gives way to a free port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use crate::exit::{Code, Failure};
use crate::output::Output;

/// Where the three doors are to be.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    /// People.
    pub ops: SocketAddr,
    /// Agents.
    pub agents: SocketAddr,
    /// Joining.
    pub join: SocketAddr,
}

/// Chooses; an address is tried here already, so that nobody waits for a scan to hear that it is taken.
pub fn choose(
    ops: Option<SocketAddr>,
    agents: Option<SocketAddr>,
    join: Option<SocketAddr>,
    output: Output,
) -> Result<Doors, Failure> {
    Ok(Doors {
        ops: address("--ops", ops, 8080, output)?,
        agents: address("--agents", agents, 8443, output)?,
        join: address("--join", join, 8444, output)?,
    })
}

fn address(
    flag: &str,
    given: Option<SocketAddr>,
    port: u16,
    output: Output,
) -> Result<SocketAddr, Failure> {
    let wanted = given.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    match (TcpListener::bind(wanted), given) {
        (Ok(_free), _) => Ok(wanted),
        (Err(error), Some(_)) => Err(Failure::new(format!("cannot listen on {wanted}"))
            .why(error.to_string())
            .remedy(format!("name another address with {flag}"))
            .code(Code::NotDone)),
        (Err(_taken), None) => {
            output.note(format_args!(
                "note: {wanted} is taken; a free port is used instead"
            ));
            Ok(SocketAddr::new(wanted.ip(), 0))
        }
    }
}

/// The address to reach a bound one from this machine.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        // A socket on all of IPv6 takes IPv4 too; the certificate names the IPv4 loopback.
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// The names of this server, for its certificates and in join tokens: those that other machines know first, if any can come.
pub fn names(doors: &Doors, host: &str) -> Vec<String> {
    let bound = [doors.ops, doors.agents, doors.join].map(|door| door.ip());
    let mut names = Vec::new();
    if bound.iter().any(|ip| !ip.is_loopback()) {
        names.push(host.to_owned());
    }
    names.extend(
        bound
            .iter()
            .filter(|ip| !ip.is_unspecified())
            .map(ToString::to_string),
    );
    names.extend(["127.0.0.1".to_owned(), "localhost".to_owned()]);
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn an_address_asked_for_must_be_had_and_a_default_gives_way() {
        let output = Output::new(Format::Json, true, false);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        let refused = address("--ops", Some(at), 8080, output).unwrap_err();
        assert_eq!(refused.code, Code::NotDone);
        assert_eq!(address("--ops", None, at.port(), output).unwrap().port(), 0);
    }

    #[test]
    fn loopback_doors_need_no_other_name() {
        let at = |text: &str| text.parse().unwrap();
        let near = Doors {
            ops: at("127.0.0.1:1"),
            agents: at("127.0.0.1:2"),
            join: at("127.0.0.1:3"),
        };
        assert_eq!(names(&near, "web"), ["127.0.0.1", "localhost"]);
        let far = Doors {
            agents: at("0.0.0.0:2"),
            ..near
        };
        assert_eq!(names(&far, "web"), ["web", "127.0.0.1", "localhost"]);
        assert_eq!(reachable(far.agents), at("127.0.0.1:2"));
    }
}
