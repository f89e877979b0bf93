//! Virtual services of IPVS in a network namespace, as `/proc/net/ip_vs` lists them, and its connections (`/proc/net/ip_vs_conn`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::conntrack::Tuple;
use crate::host::netns::{Netns, NetnsError, in_netns};

/// A virtual TCP service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The address that clients call; `None` for a service by firewall mark, whatever address that is put on.
    pub address: Option<SocketAddr>,
    /// The servers behind it, and the weight of each (0: it gets no new connections).
    pub servers: Vec<(SocketAddr, u32)>,
}

/// The services; none where IPVS is not loaded.
///
/// # Errors
/// When the namespace cannot be entered, or the list not read.
pub fn services(netns: &Netns) -> Result<io::Result<Vec<Service>>, NetnsError> {
    in_netns(netns, || match std::fs::read_to_string("/proc/thread-self/net/ip_vs") {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    })
}

/// The server that IPVS has chosen for a connection that was opened with this tuple; `None` if it knows no such connection.
pub fn destination(netns: &Netns, opened: Tuple) -> Option<SocketAddr> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/ip_vs_conn");
    // Where IPVS is not loaded, there is no such file.
    let text = in_netns(netns, read).ok()?.ok()?;
    text.lines().filter_map(connection).find(|(tuple, _)| *tuple == opened).map(|(_, server)| server)
}

/// `TCP 0A091502 D431 0A091501 1F91 0A091402 0050 ESTABLISHED     899`: client, service, server.
fn connection(line: &str) -> Option<(Tuple, SocketAddr)> {
    let mut words = line.split_whitespace();
    if words.next()? != "TCP" {
        return None;
    }
    let mut end = || {
        let (ip, port) = (words.next()?, words.next()?);
        let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        address(&format!("{ip}:{port}"))
    };
    Some((Tuple { from: end()?, to: end()? }, end()?))
}

/// `TCP  0A630101:1F90 rr`, then `  -> 0A630102:0050      Masq    1      0          0` for each server.
fn parse(text: &str) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    // Servers of other protocols' services follow those, too.
    let mut is_tcp = false;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("TCP"), Some(at)) => {
                is_tcp = true;
                services.push(Service { address: address(at), servers: Vec::new() });
            }
            (Some("FWM"), Some(_)) => {
                is_tcp = true;
                services.push(Service { address: None, servers: Vec::new() });
            }
            (Some("->"), Some(at)) if is_tcp => {
                let weight = words.nth(1).and_then(|word| word.parse().ok());
                let server = address(at).zip(weight);
                if let Some((service, server)) = services.last_mut().zip(server) {
                    service.servers.push(server);
                }
            }
            _ => is_tcp = false,
        }
    }
    services
}

/// `0A630101:1F90`, or `[fd00:0000:…:0001]:1F90`.
fn address(word: &str) -> Option<SocketAddr> {
    let (ip, port) = word.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = match ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        Some(v6) => IpAddr::from(v6.parse::<Ipv6Addr>().ok()?),
        None if ip.len() == 8 => IpAddr::from(Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?)),
        None => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn services_with_their_servers() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
            TCP  0A630101:1F90 rr \n  -> 0A630102:0050      Masq    1      0          0         \n\
            UDP  0A630101:0035 rr \n  -> 0A630102:0035      Masq    1      0          0         \n\
            TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:01BB wrr persistent 360\n\
            \u{20} -> [fd00:0000:0000:0000:0000:0000:0000:0002]:20FB      Masq    0      0          0\n\
            FWM  00000001 rr\n  -> 0A630103:0050      Route   1      0          0\n";
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(
            parse(text),
            [
                Service { address: Some(at("10.99.1.1:8080")), servers: vec![(at("10.99.1.2:80"), 1)] },
                Service { address: Some(at("[fd00::1]:443")), servers: vec![(at("[fd00::2]:8443"), 0)] },
                Service { address: None, servers: vec![(at("10.99.1.3:80"), 1)] },
            ]
        );
    }

    #[test]
    fn connections_with_the_server_that_was_chosen() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let line = "TCP 0A091502 D431 0A091501 1F91 0A091402 0050 ESTABLISHED     899";
        let tuple = Tuple { from: at("10.9.21.2:54321"), to: at("10.9.21.1:8081") };
        assert_eq!(connection(line), Some((tuple, at("10.9.20.2:80"))));
        let line = "TCP fd00:0000:0000:0000:0000:0000:0000:0001 D431 fd00:0000:0000:0000:0000:0000:0000:0002 0050 \
            fd00:0000:0000:0000:0000:0000:0000:0003 1F90 SYN_RECV 59";
        assert_eq!(connection(line).unwrap().1, at("[fd00::3]:8080"));
        assert_eq!(connection("UDP 0A091502 D431 0A091501 0035 0A091402 0035 UDP 99"), None);
        assert_eq!(connection("Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires"), None);
    }

    proptest! {
        #[test]
        fn any_text(text in "(TCP|->|FWM| |[0-9A-F:\\[\\]]|\n){0,60}") {
            let _ = (parse(&text), connection(&text));
        }
    }
}
