//! The address of a client: its peer address, or the one that a trusted proxy reports.
//!
//! Invariant: no client chooses its own address. Each hop appends to `X-Forwarded-For` the address that it saw, so the
//! list is read from its end, for as long as the hops that appended to it are trusted proxies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use ipnet::IpNet;

/// The bits of an IPv6 address that tell clients apart: all addresses with the same first 64 bits are one client's.
const IPV6_NETWORK: u128 = !0 << 64;

/// Returns the address that identifies the client of a request.
pub(super) fn of_client(request: &HttpRequest, proxies: &[IpNet]) -> IpAddr {
    let peer = request.peer_addr().map_or_else(|| Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
    network(beyond_proxies(peer.to_canonical(), request.headers(), proxies))
}

fn beyond_proxies(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    let lists: Vec<&str> = headers.get_all(X_FORWARDED_FOR).map(|list| list.to_str().unwrap_or_default()).collect();
    let mut last = peer;
    for hop in lists.iter().rev().flat_map(|list| list.rsplit(',')) {
        match hop_address(hop.trim()) {
            Some(address) => last = address.to_canonical(),
            None => break,
        }
        if !is_trusted(&last) {
            break;
        }
    }
    last
}

/// Parses one hop. Some proxies append a port to the address, or put an IPv6 address in brackets.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    hop.parse().ok().or_else(with_port).or_else(in_brackets)
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into(),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn beyond(peer: &str, forwarded: &[&'static str], proxies: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for list in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(list));
        }
        let proxies: Vec<IpNet> = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
        beyond_proxies(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn a_client_does_not_choose_its_address() {
        assert_eq!(beyond("192.0.2.1", &["198.51.100.7"], &[]), "192.0.2.1", "no proxy is trusted");
        assert_eq!(beyond("192.0.2.1", &["198.51.100.7"], &["10.0.0.0/8"]), "192.0.2.1", "nor is this one");
        assert_eq!(
            beyond("10.0.0.1", &["1.1.1.1, 192.0.2.1"], &["10.0.0.0/8"]),
            "192.0.2.1",
            "1.1.1.1 is its own word"
        );
        assert_eq!(beyond("10.0.0.1", &["1.1.1.1", "192.0.2.1"], &["10.0.0.0/8"]), "192.0.2.1");
    }

    #[test]
    fn the_last_hop_that_is_not_trusted_is_the_client() {
        assert_eq!(beyond("10.0.0.1", &["192.0.2.1, 10.0.0.2"], &["10.0.0.0/8"]), "192.0.2.1");
        assert_eq!(beyond("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &["10.0.0.0/8"]), "10.0.0.3", "a client of our own");
        assert_eq!(beyond("10.0.0.1", &["192.0.2.1, unknown"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(beyond("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(beyond("10.0.0.1", &["192.0.2.1:4711"], &["10.0.0.0/8"]), "192.0.2.1");
        assert_eq!(beyond("10.0.0.1", &["[2001:db8::1]"], &["10.0.0.0/8"]), "2001:db8::1");
        assert_eq!(beyond("10.0.0.1", &["[2001:db8::1]:4711"], &["10.0.0.0/8"]), "2001:db8::1");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();

        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
    }
}
