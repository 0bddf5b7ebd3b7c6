//! Who answers machines' questions for names, when the operator has not said: whom the host asks. Pure.

use std::net::IpAddr;

/// Most servers that resolvers ask (`MAXNS` of the C library).
pub const MAX_NAME_SERVERS: usize = 3;

/// The servers of a `resolv.conf` that a machine can reach, IPv4 first: where IPv6 is broken each question to such a server costs
/// five seconds. Those on the host itself are none, nor are those that need an interface's name.
#[must_use]
pub fn of(resolv_conf: &str) -> Vec<IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    });
    let mut servers: Vec<IpAddr> = servers
        .filter(|server: &IpAddr| !server.is_loopback() && !server.is_unspecified() && !is_link_local(*server))
        .collect();
    servers.sort_by_key(IpAddr::is_ipv6);
    servers.dedup();
    servers.truncate(MAX_NAME_SERVERS);
    servers
}

fn is_link_local(address: IpAddr) -> bool {
    // 169.254.x.x is what some providers' resolvers have, and is reached over the default route.
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let servers: Vec<String> = of(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(servers, expected, "{text:?}");
    }

    #[test]
    fn servers_are_those_that_machines_can_reach() {
        check("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .", &[]);
        check(
            "# nameserver 9.9.9.9\nnameserver\t192.0.2.1\n nameserver 192.0.2.2 \nnameserver x",
            &["192.0.2.1", "192.0.2.2"],
        );
        check("nameserver 2001:db8::1\nnameserver ::1\nnameserver 192.0.2.1", &["192.0.2.1", "2001:db8::1"]);
        check("nameserver fe80::1%eth0\nnameserver fe80::1\nnameserver 169.254.169.253", &["169.254.169.253"]);
        check(&"nameserver 192.0.2.1\n".repeat(9), &["192.0.2.1"]);
        check(
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4",
            &["192.0.2.1", "192.0.2.2", "192.0.2.3"],
        );
        check("nameservers 192.0.2.1", &[]);
    }
}
