//! The host's packet filter for machines: a pure function from the settings to one table of nftables, which is replaced as a whole.
//!
//! Who may speak to whom (spec: crn, section 5, and what it leaves open):
//!
//! | from | to | |
//! |---|---|---|
//! | a machine, under another's address | anyone | no; its card drops it too |
//! | a machine | outside | yes, over IPv4 under the host's address; by the interfaces that lead outside and no other |
//! | a machine | private networks, metadata services ([`Plan::refused`]) | no, but for questions to its name servers |
//! | a machine | another machine | over IPv6, as from anywhere: private addresses are between a machine and its host |
//! | a machine | the host | control messages, and [`Plan::host_ports`] |
//! | outside | a machine | over IPv6, and by ports of the host that were forwarded |
//!
//! No rule names a machine: their interfaces have a prefix in common, and a sender's address is its own when the host would send to
//! it by the interface that the packet came in by. So a machine that comes or goes changes routes and nothing here: the table is
//! the same for one machine and for thousands, and no start waits for it. Printed, it is what `nft --file` reads.

use ipnet::{IpNet, Ipv4Net};
use std::{
    fmt::{self, Display, Formatter},
    net::{IpAddr, Ipv4Addr},
};

/// Where name servers listen.
const NAME_SERVICE: u16 = 53;

/// What the table is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The name of the table. Those of others are not touched.
    pub table: String,
    /// How the names of machines' interfaces begin, and nobody else's.
    pub machines: String,
    /// The private addresses of machines.
    pub pool: Ipv4Net,
    /// The interfaces that lead outside.
    pub outside: Vec<String>,
    /// Who is asked for names.
    pub name_servers: Vec<IpAddr>,
    /// Where machines do not get.
    pub refused: Vec<IpNet>,
    /// TCP ports of the host that machines may use.
    pub host_ports: Vec<u16>,
    /// Ports of the host that lead to machines.
    pub forwards: Vec<Forward>,
}

/// A port of the host that leads to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Of which kind both ports are.
    pub protocol: Protocol,
    /// On the host.
    pub host_port: u16,
    /// The machine.
    pub guest: Ipv4Addr,
    /// In the machine.
    pub guest_port: u16,
}

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Where the kernel asks a chain, and in which turn among those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before it is known whom a packet is for: destinations are translated.
    PreRouting,
    /// It is for the host.
    Input,
    /// It goes through the host.
    Forward,
    /// It leaves the host: senders are translated.
    PostRouting,
}

/// Rules in order. A packet that none decides goes back to where the chain was asked from; there, at last, it is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name in the table.
    pub name: &'static str,
    /// Where the kernel asks it; other chains do otherwise.
    pub hook: Option<Hook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// When all matches hold, so does the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What must hold.
    pub matches: Vec<Match>,
    /// What is done then.
    pub verdict: Verdict,
}

/// Interfaces by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    /// That one.
    Named(String),
    /// All whose names begin like that.
    Prefixed(String),
}

/// What is asked about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It came in by that interface.
    CameBy(Interface),
    /// It goes out by that interface.
    LeavesBy(Interface),
    /// It is IPv4.
    IsIpv4,
    /// The host would not send to its sender by the interface that it came in by.
    IsForeign,
    /// Its sender is in that network.
    SourceIn(IpNet),
    /// Its destination is in that network.
    DestinationIn(IpNet),
    /// It is ICMP (for IPv4) or ICMPv6: echoes, errors, neighbour discovery.
    IsControlMessage {
        /// Of IPv6.
        ipv6: bool,
    },
    /// It belongs to a conversation that was let through before.
    IsEstablished,
    /// Its destination was translated.
    IsForwarded,
    /// It is for that port.
    Port(Protocol, u16),
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, as far as this table has a say.
    Accept,
    /// It ends here.
    Drop,
    /// That chain is asked.
    Jump(&'static str),
    /// This chain is not asked further.
    Return,
    /// Its sender becomes the host.
    Masquerade,
    /// That address and port become its destination.
    Redirect(Ipv4Addr, u16),
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Its name.
    pub table: String,
    /// Its chains: none before those that it asks.
    pub chains: Vec<Chain>,
}

impl Ruleset {
    /// The table of that plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let of_machine = || Match::CameBy(Interface::Prefixed(plan.machines.clone()));
        let to_machine = || Match::LeavesBy(Interface::Prefixed(plan.machines.clone()));
        let outside = || plan.outside.iter().map(|name| Interface::Named(name.clone()));

        let mut host = vec![
            rule([], Verdict::Jump("sender")),
            rule([Match::IsControlMessage { ipv6: false }], Verdict::Accept),
            rule([Match::IsControlMessage { ipv6: true }], Verdict::Accept),
        ];
        host.extend(plan.host_ports.iter().map(|port| rule([Match::Port(Protocol::Tcp, *port)], Verdict::Accept)));
        host.push(rule([], Verdict::Drop));

        let mut outwards = vec![rule([to_machine(), Match::IsIpv4], Verdict::Drop)];
        for server in plan.name_servers.iter().copied().map(IpNet::from) {
            outwards.extend([Protocol::Udp, Protocol::Tcp].map(|protocol| {
                rule([Match::DestinationIn(server), Match::Port(protocol, NAME_SERVICE)], Verdict::Accept)
            }));
        }
        outwards.extend(plan.refused.iter().map(|network| rule([Match::DestinationIn(*network)], Verdict::Drop)));
        outwards.extend(outside().map(|interface| rule([Match::LeavesBy(interface)], Verdict::Return)));
        // What is left of those is IPv6.
        outwards.push(rule([to_machine()], Verdict::Return));
        outwards.push(rule([], Verdict::Drop));

        let forwards = outside().flat_map(|interface| {
            plan.forwards.iter().map(move |forward| {
                let port = Match::Port(forward.protocol, forward.host_port);
                let redirect = Verdict::Redirect(forward.guest, forward.guest_port);
                rule([Match::CameBy(interface.clone()), Match::IsIpv4, port], redirect)
            })
        });
        let named = |name, rules| Chain { name, hook: None, rules };
        let chains = vec![
            named("sender", vec![rule([Match::IsForeign], Verdict::Drop)]),
            named("host", host),
            named("outwards", outwards),
            named(
                "inwards",
                vec![rule([Match::IsIpv4, Match::IsForwarded], Verdict::Accept), rule([Match::IsIpv4], Verdict::Drop)],
            ),
            base(Hook::PreRouting, forwards.collect()),
            base(Hook::Input, vec![rule([of_machine()], Verdict::Jump("host"))]),
            base(
                Hook::Forward,
                vec![
                    // A sender is who it is in an old conversation too.
                    rule([of_machine()], Verdict::Jump("sender")),
                    rule([of_machine(), Match::IsEstablished], Verdict::Accept),
                    rule([to_machine(), Match::IsEstablished], Verdict::Accept),
                    rule([of_machine()], Verdict::Jump("outwards")),
                    rule([to_machine()], Verdict::Jump("inwards")),
                ],
            ),
            // The host's own address is in the pool on each link; what it sends there is not for outside.
            base(
                Hook::PostRouting,
                vec![
                    rule([to_machine()], Verdict::Return),
                    rule([Match::SourceIn(plan.pool.into())], Verdict::Masquerade),
                ],
            ),
        ];
        Self { table: plan.table.clone(), chains }
    }
}

fn rule<const N: usize>(matches: [Match; N], verdict: Verdict) -> Rule {
    Rule { matches: matches.into(), verdict }
}

fn base(hook: Hook, rules: Vec<Rule>) -> Chain {
    let name = match hook {
        Hook::PreRouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::PostRouting => "postrouting",
    };
    Chain { name, hook: Some(hook), rules }
}

impl Display for Ruleset {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        // To delete what may not be there it is made first.
        let table = &self.table;
        writeln!(out, "table inet {table}\ndelete table inet {table}\ntable inet {table} {{")?;
        for chain in &self.chains {
            writeln!(out, "\tchain {} {{", chain.name)?;
            if let Some(hook) = chain.hook {
                let kind = match hook {
                    Hook::PreRouting => "nat hook prerouting priority dstnat",
                    Hook::Input => "filter hook input priority filter",
                    Hook::Forward => "filter hook forward priority filter",
                    Hook::PostRouting => "nat hook postrouting priority srcnat",
                };
                writeln!(out, "\t\ttype {kind}; policy accept;")?;
            }
            for rule in &chain.rules {
                write!(out, "\t\t")?;
                for matching in &rule.matches {
                    write!(out, "{matching} ")?;
                }
                writeln!(out, "{}", rule.verdict)?;
            }
            writeln!(out, "\t}}")?;
        }
        writeln!(out, "}}")
    }
}

impl Display for Interface {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(out, "\"{name}\""),
            Self::Prefixed(prefix) => write!(out, "\"{prefix}*\""),
        }
    }
}

impl Display for Match {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let family = |network: &IpNet| if matches!(network, IpNet::V4(_)) { "ip" } else { "ip6" };
        match self {
            Self::CameBy(interface) => write!(out, "iifname {interface}"),
            Self::LeavesBy(interface) => write!(out, "oifname {interface}"),
            Self::IsIpv4 => write!(out, "meta nfproto ipv4"),
            Self::IsForeign => write!(out, "fib saddr . iif oif missing"),
            Self::SourceIn(network) => write!(out, "{} saddr {network}", family(network)),
            Self::DestinationIn(network) => write!(out, "{} daddr {network}", family(network)),
            Self::IsControlMessage { ipv6: false } => write!(out, "ip protocol icmp"),
            Self::IsControlMessage { ipv6: true } => write!(out, "meta l4proto ipv6-icmp"),
            Self::IsEstablished => write!(out, "ct state established,related"),
            Self::IsForwarded => write!(out, "ct status dnat"),
            Self::Port(Protocol::Tcp, port) => write!(out, "tcp dport {port}"),
            Self::Port(Protocol::Udp, port) => write!(out, "udp dport {port}"),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => write!(out, "accept"),
            Self::Drop => write!(out, "drop"),
            Self::Jump(chain) => write!(out, "jump {chain}"),
            Self::Return => write!(out, "return"),
            Self::Masquerade => write!(out, "masquerade"),
            Self::Redirect(address, port) => write!(out, "dnat ip to {address}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests;
