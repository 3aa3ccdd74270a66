//! Addresses of collectors, asked for without the C library: a static agent has none that could ask, and the network process
//! needs no more files for it than two.
//!
//! `/etc/resolv.conf` and `/etc/hosts` are looked at before each question, and read again where they are others than before:
//! a machine's name servers come and go with its leases. The network process may read only the files that were there when it
//! began; where one was put in the place of another it asks to begin anew.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Notify;

/// Name servers, and hosts by hand: what is longer is read up to here.
const FILE_BYTES: u64 = 1024 * 1024;
/// A name server that is silent for so long leaves time for another one before the connection is given up on.
const PATIENCE: Duration = Duration::from_secs(2);
/// Names that are remembered for as long as their servers allow: a node knows one collector, or a few.
const REMEMBERED: u64 = 32;

/// Resolves names; clones share what they know.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resolv: PathBuf,
    hosts: PathBuf,
    /// Where name servers listen; another port in tests.
    port: Option<u16>,
    /// What the files were like when this began.
    began: Seen,
    kept: Mutex<Option<(Seen, Arc<Known>)>>,
    outgrown: Notify,
}

/// What the two files say.
#[derive(Debug)]
struct Known {
    hosts: Hosts,
    servers: TokioResolver,
}

/// Which files they were, and of when.
type Seen = [Option<[i64; 5]>; 2];

impl Names {
    /// As this machine's files say.
    pub(super) fn of_system() -> Self {
        Self::of(Path::new("/etc/resolv.conf"), Path::new("/etc/hosts"), None)
    }

    fn of(resolv: &Path, hosts: &Path, port: Option<u16>) -> Self {
        Self(Arc::new(Inner {
            resolv: resolv.to_owned(),
            hosts: hosts.to_owned(),
            port,
            began: seen(resolv, hosts),
            kept: Mutex::default(),
            outgrown: Notify::new(),
        }))
    }

    /// Ready when another file lies in the place of one that this process was allowed to read.
    pub(super) async fn outgrown(&self) {
        self.0.outgrown.notified().await;
    }

    fn known(&self) -> io::Result<Arc<Known>> {
        let inner = &self.0;
        let now = seen(&inner.resolv, &inner.hosts);
        let mut kept = inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, known)) = kept.as_ref()
            && *then == now
        {
            return Ok(Arc::clone(known));
        }
        match inner.read() {
            Ok(known) => {
                let known = Arc::new(known);
                *kept = Some((now, Arc::clone(&known)));
                Ok(known)
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied && now != inner.began {
                    inner.outgrown.notify_one();
                }
                Err(error)
            }
        }
    }
}

impl Inner {
    fn read(&self) -> io::Result<Known> {
        let (config, mut options) = servers(content(&self.resolv)?)?;
        options.timeout = options.timeout.min(PATIENCE);
        options.cache_size = REMEMBERED;
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        // Ours, with an end.
        options.use_hosts_file = ResolveHosts::Never;
        let config = match self.port {
            Some(port) => at_port(config, port),
            None => config,
        };
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let servers = builder.build().map_err(io::Error::other)?;
        let mut hosts = Hosts::default();
        if let Some(text) = content(&self.hosts)? {
            hosts.read_hosts_conf(text.as_slice())?;
        }
        Ok(Known { hosts, servers })
    }
}

impl Known {
    /// Whoever names a host by hand means that address alone: no server is asked for one of the other family, as the C library
    /// does it with `hosts: files dns`. There may be no server at all.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let by_hand = self.by_hand(name)?;
        if !by_hand.is_empty() {
            return Ok(by_hand);
        }
        let found = self
            .servers
            .lookup_ip(name)
            .await
            .map_err(io::Error::other)?;
        Ok(found.iter().collect())
    }

    fn by_hand(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let name: hickory_resolver::proto::rr::Name = name.parse().map_err(io::Error::other)?;
        let found = [RecordType::AAAA, RecordType::A]
            .into_iter()
            .filter_map(|kind| {
                let query = Query::query(name.clone(), kind);
                self.hosts.lookup_static_host(&query)
            });
        let answers = found.flat_map(|found| found.answers().to_vec());
        Ok(answers.filter_map(|one| one.data.ip_addr()).collect())
    }
}

/// Without a file, or without a server in it, one on this machine is asked, as everywhere.
fn servers(text: Option<Vec<u8>>) -> io::Result<(ResolverConfig, ResolverOpts)> {
    let named = text.filter(|text| {
        let mut lines = text.split(|byte| *byte == b'\n');
        lines.any(|line| line.trim_ascii_start().starts_with(b"nameserver"))
    });
    match named {
        Some(text) => system_conf::parse_resolv_conf(text).map_err(io::Error::other),
        None => {
            let here = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![here]);
            Ok((config, ResolverOpts::default()))
        }
    }
}

fn at_port(config: ResolverConfig, port: u16) -> ResolverConfig {
    let (domain, search, mut servers) = config.into_parts();
    for connection in servers.iter_mut().flat_map(|one| &mut one.connections) {
        connection.port = port;
    }
    ResolverConfig::from_parts(domain, search, servers)
}

fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    match File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut content)) {
        Ok(_) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("read {}: {error}", path.display()),
        )),
    }
}

fn seen(resolv: &Path, hosts: &Path) -> Seen {
    [resolv, hosts].map(|path| {
        let found = std::fs::metadata(path).ok()?;
        let inode = i64::try_from(found.ino()).unwrap_or(i64::MAX);
        Some([
            inode,
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ])
    })
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let found = names.known()?.addresses(name.as_str()).await?;
            let addresses = found.into_iter().map(|address| SocketAddr::new(address, 0));
            let addresses: Addrs = Box::new(addresses);
            Ok(addresses)
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// A name server that has the same address for every name.
    fn server(at: &str, port: u16, address: [u8; 4]) -> u16 {
        let socket = UdpSocket::bind((at, port)).unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let answer = answer(&buffer[..length], address);
                drop(socket.send_to(&answer, from));
            }
        });
        port
    }

    /// The question again, and one answer where it is for an address of four bytes.
    fn answer(asked: &[u8], address: [u8; 4]) -> Vec<u8> {
        let name = asked[12..].iter().position(|byte| *byte == 0).unwrap();
        let question = &asked[12..12 + name + 5];
        let is_a = question[name + 1..name + 3] == [0, 1];
        let answers = u8::from(is_a);
        let mut told = asked[..2].to_vec();
        told.extend([0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
        told.extend(question);
        if is_a {
            told.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            told.extend(address);
        }
        told
    }

    fn replace(path: &Path, text: &str) {
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, path).unwrap();
    }

    async fn asked(names: &Names, name: &str) -> Vec<String> {
        let found = names.resolve(name.parse().unwrap()).await.unwrap();
        found.map(|address| address.ip().to_string()).collect()
    }

    #[tokio::test]
    async fn names_are_asked_for_where_the_file_says_now() {
        let scratch = tempfile::tempdir().unwrap();
        let (resolv, hosts) = (
            scratch.path().join("resolv.conf"),
            scratch.path().join("hosts"),
        );
        let port = server("127.0.0.1", 0, [192, 0, 2, 1]);
        server("127.0.0.2", port, [192, 0, 2, 2]);
        replace(&resolv, "nameserver 127.0.0.1\noptions edns0\n");
        let names = Names::of(&resolv, &hosts, Some(port));
        assert_eq!(asked(&names, "collector.example").await, ["192.0.2.1"]);
        replace(&resolv, "# moved\nnameserver 127.0.0.2\n");
        assert_eq!(asked(&names, "collector.example").await, ["192.0.2.2"]);
        std::fs::write(&hosts, "198.51.100.7 collector.example # here\n").unwrap();
        assert_eq!(asked(&names, "collector.example").await, ["198.51.100.7"]);
    }

    #[tokio::test]
    async fn a_host_named_by_hand_is_not_asked_for_elsewhere() {
        let scratch = tempfile::tempdir().unwrap();
        let hosts = scratch.path().join("hosts");
        std::fs::write(
            &hosts,
            "127.0.0.1 localhost\n::1 localhost\n192.0.2.9 c.example\n",
        )
        .unwrap();
        // A server that never answers.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let names = Names::of(&scratch.path().join("none"), &hosts, Some(port));
        assert_eq!(asked(&names, "c.example").await, ["192.0.2.9"]);
        assert_eq!(asked(&names, "localhost").await, ["::1", "127.0.0.1"]);
        silent.set_nonblocking(true).unwrap();
        assert!(silent.recv_from(&mut [0; 512]).is_err(), "it was asked");
    }

    #[test]
    fn without_a_server_this_machine_is_asked() {
        for text in [None, Some(b"search example\n".to_vec())] {
            let (config, _) = servers(text).unwrap();
            assert_eq!(config.name_servers()[0].ip, Ipv4Addr::LOCALHOST);
        }
        assert!(servers(Some(b"nameserver not.an.address\n".to_vec())).is_err());
    }
}
