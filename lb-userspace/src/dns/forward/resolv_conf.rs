//! `resolv.conf(5)`: which name servers it lists, and whether it is another file by now.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use resolv_conf::{Config, ScopedIp};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use tracing::warn;

/// The port that `resolv.conf` cannot change.
const PORT: u16 = 53;

/// What changes with the contents of a file. `None` is a file that cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<[i64; 5]>);

impl Stamp {
    #[expect(clippy::cast_possible_wrap, reason = "compared only")]
    pub(super) fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|file| {
            [
                file.dev() as i64,
                file.ino() as i64,
                file.mtime(),
                file.mtime_nsec(),
                file.size() as i64,
            ]
        }))
    }
}

/// The name servers that the file lists. What it says of them that makes no sense is warned of.
pub(super) fn read(path: &Path) -> io::Result<Vec<SocketAddr>> {
    let (config, problems) = Config::parse_with_errors(&fs::read(path)?);
    for problem in problems {
        warn!("{}: {problem}; the line is ignored", path.display());
    }
    let servers = config.nameservers.iter().filter_map(|server| match server {
        ScopedIp::V4(ip) => Some(SocketAddr::new(IpAddr::V4(*ip), PORT)),
        ScopedIp::V6(ip, None) => Some(SocketAddr::new(IpAddr::V6(*ip), PORT)),
        ScopedIp::V6(ip, Some(scope)) => match scoped(*ip, scope) {
            Ok(server) => Some(server),
            Err(error) => {
                warn!("{}: nameserver {ip}%{scope}: interface {scope}: {error}", path.display());
                None
            }
        },
    });
    Ok(servers.collect())
}

/// An address on one link, which is named by its interface or the number of that.
fn scoped(ip: Ipv6Addr, scope: &str) -> io::Result<SocketAddr> {
    let index = match scope.parse() {
        Ok(index) => index,
        Err(_) => name_to_index(socket(AddressFamily::INET6, SocketType::DGRAM, None)?, scope)?,
    };
    Ok(SocketAddrV6::new(ip, PORT, 0, index).into())
}
