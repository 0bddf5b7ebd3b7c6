//! The host's packet filter for all machines: a pure function from machines to one table of nftables, which is replaced as a
//! whole, so that nothing stays behind of a machine that is gone.
//!
//! Who may speak to whom (spec: crn, section 5, and what it leaves open):
//!
//! | from | to | |
//! |---|---|---|
//! | a machine, under another's address | anyone | no; its card drops it too |
//! | a machine | outside | yes, over IPv4 under the host's address |
//! | a machine | another machine | over IPv6, as from anywhere: private addresses are between a machine and its host |
//! | a machine | its gateway's own addresses | control messages: services of the host are not meant for its guests |
//! | outside | a machine | over IPv6, and by ports of the host that were forwarded |
//!
//! A packet asks one map for its machine's chain, however many machines there are. Printed, the table is what `nft --file`
//! reads.

use super::{
    ipv4::Link,
    ipv6::{NETWORK_BITS, Network},
};
use std::{
    fmt::{self, Display, Formatter},
    net::{Ipv4Addr, Ipv6Addr},
};

/// The name of the table. Those of others are not touched.
pub const TABLE: &str = "beth";

const LINK_LOCAL: Prefix6 = Prefix6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
/// Who asks whether an address is taken has none.
const UNSPECIFIED: Prefix6 = Prefix6(Ipv6Addr::UNSPECIFIED, 128);

/// A machine, as far as packets know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The tap: letters and digits.
    pub interface: String,
    /// The private network.
    pub ipv4: Link,
    /// The public network, where there is one.
    pub ipv6: Option<Network>,
    /// Ports of the host that lead to it.
    pub forwards: Vec<Forward>,
}

/// A port of the host that leads to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Of which kind both ports are.
    pub protocol: Protocol,
    /// On the host.
    pub host_port: u16,
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

/// An IPv4 network: its address and the bits of its network part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix4(pub Ipv4Addr, pub u8);

/// An IPv6 network: its address and the bits of its network part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix6(pub Ipv6Addr, pub u8);

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
    pub name: String,
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

/// What is asked about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It came in by that interface.
    CameBy(String),
    /// It goes out by that interface.
    LeavesBy(String),
    /// It is IPv4.
    IsIpv4,
    /// Its sender is in that network.
    SourceIn4(Prefix4),
    /// It is IPv4, and its sender is another.
    SourceNot4(Ipv4Addr),
    /// It is IPv6, and its sender is in none of these.
    SourceNotIn6(Vec<Prefix6>),
    /// That is its destination.
    Destination4(Ipv4Addr),
    /// Its destination is in that network.
    DestinationIn6(Prefix6),
    /// It is ICMP or ICMPv6: echoes, errors, neighbour discovery.
    IsControlMessage,
    /// It belongs to a conversation that was let through before.
    IsEstablished,
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
    Jump(String),
    /// The chain is asked that belongs to the interface that it came in by, if one does.
    JumpByCameBy(Vec<(String, String)>),
    /// The same with the interface that it goes out by.
    JumpByLeavesBy(Vec<(String, String)>),
    /// Its sender becomes the host.
    Masquerade,
    /// That address and port become its destination.
    Redirect(Ipv4Addr, u16),
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Its chains: none before those that it asks.
    pub chains: Vec<Chain>,
}

impl Ruleset {
    /// The table for these machines, whose private addresses are of that pool, on a host whose way out is that interface.
    #[must_use]
    pub fn of(machines: &[Machine], pool: Prefix4, outside: &str) -> Self {
        let mut chains: Vec<Chain> = machines.iter().flat_map(of_machine).collect();
        let by = |chain: fn(&Machine) -> String| {
            machines.iter().map(|machine| (machine.interface.clone(), chain(machine))).collect()
        };
        let forwards = machines.iter().flat_map(|machine| {
            machine.forwards.iter().map(|forward| {
                let port = Match::Port(forward.protocol, forward.host_port);
                let redirect = Verdict::Redirect(machine.ipv4.guest(), forward.guest_port);
                rule([Match::CameBy(outside.to_owned()), Match::IsIpv4, port], redirect)
            })
        });
        chains.extend([
            base(Hook::PreRouting, forwards.collect()),
            base(Hook::Input, vec![rule([], Verdict::JumpByCameBy(by(for_host)))]),
            base(
                Hook::Forward,
                vec![
                    // A sender is who it is in an old conversation too.
                    rule([], Verdict::JumpByCameBy(by(sender))),
                    rule([Match::IsEstablished], Verdict::Accept),
                    rule([], Verdict::JumpByLeavesBy(by(receiver))),
                ],
            ),
            base(
                Hook::PostRouting,
                vec![rule([Match::LeavesBy(outside.to_owned()), Match::SourceIn4(pool)], Verdict::Masquerade)],
            ),
        ]);
        Self { chains }
    }
}

/// Names of a machine's chains: what holds for it as a sender, towards the host, and as a receiver.
fn sender(machine: &Machine) -> String {
    format!("from_{}", machine.interface)
}
fn for_host(machine: &Machine) -> String {
    format!("host_{}", machine.interface)
}
fn receiver(machine: &Machine) -> String {
    format!("to_{}", machine.interface)
}

fn of_machine(machine: &Machine) -> [Chain; 3] {
    let mut own = vec![LINK_LOCAL, UNSPECIFIED];
    let mut gateway = vec![rule([Match::Destination4(machine.ipv4.host())], Verdict::Drop)];
    if let Some(network) = machine.ipv6 {
        own.push(Prefix6(network.host(), NETWORK_BITS));
        gateway.push(rule([Match::DestinationIn6(Prefix6(network.host(), 128))], Verdict::Drop));
    }
    gateway.push(rule([Match::DestinationIn6(LINK_LOCAL)], Verdict::Drop));

    let as_sender = vec![
        rule([Match::SourceNot4(machine.ipv4.guest())], Verdict::Drop),
        rule([Match::SourceNotIn6(own)], Verdict::Drop),
    ];
    let mut towards_host =
        vec![rule([], Verdict::Jump(sender(machine))), rule([Match::IsControlMessage], Verdict::Accept)];
    towards_host.extend(gateway);
    // After their redirection these are the machine's own ports; what else is IPv4 comes from where it should not.
    let mut as_receiver: Vec<Rule> = machine
        .forwards
        .iter()
        .map(|forward| rule([Match::IsIpv4, Match::Port(forward.protocol, forward.guest_port)], Verdict::Accept))
        .collect();
    as_receiver.push(rule([Match::IsIpv4], Verdict::Drop));
    [(sender(machine), as_sender), (for_host(machine), towards_host), (receiver(machine), as_receiver)]
        .map(|(name, rules)| Chain { name, hook: None, rules })
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
    Chain { name: name.to_owned(), hook: Some(hook), rules }
}

impl Display for Ruleset {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        // To delete what may not be there it is made first.
        writeln!(out, "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{")?;
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
            // A map without entries has no type: such a rule says nothing.
            for rule in chain.rules.iter().filter(|rule| !rule.verdict.is_empty_map()) {
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

impl Verdict {
    fn is_empty_map(&self) -> bool {
        matches!(self, Self::JumpByCameBy(map) | Self::JumpByLeavesBy(map) if map.is_empty())
    }
}

impl Display for Match {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::CameBy(interface) => write!(out, "iifname \"{interface}\""),
            Self::LeavesBy(interface) => write!(out, "oifname \"{interface}\""),
            Self::IsIpv4 => write!(out, "meta nfproto ipv4"),
            Self::SourceIn4(network) => write!(out, "ip saddr {network}"),
            Self::SourceNot4(address) => write!(out, "ip saddr != {address}"),
            Self::SourceNotIn6(networks) => {
                let networks: Vec<String> = networks.iter().map(Prefix6::to_string).collect();
                write!(out, "ip6 saddr != {{ {} }}", networks.join(", "))
            }
            Self::Destination4(address) => write!(out, "ip daddr {address}"),
            Self::DestinationIn6(network) => write!(out, "ip6 daddr {network}"),
            Self::IsControlMessage => write!(out, "meta l4proto {{ icmp, ipv6-icmp }}"),
            Self::IsEstablished => write!(out, "ct state established,related"),
            Self::Port(Protocol::Tcp, port) => write!(out, "tcp dport {port}"),
            Self::Port(Protocol::Udp, port) => write!(out, "udp dport {port}"),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let map = |out: &mut Formatter<'_>, key: &str, map: &[(String, String)]| {
            let entries: Vec<String> =
                map.iter().map(|(interface, chain)| format!("\"{interface}\" : jump {chain}")).collect();
            write!(out, "{key} vmap {{ {} }}", entries.join(", "))
        };
        match self {
            Self::Accept => write!(out, "accept"),
            Self::Drop => write!(out, "drop"),
            Self::Jump(chain) => write!(out, "jump {chain}"),
            Self::JumpByCameBy(chains) => map(out, "iifname", chains),
            Self::JumpByLeavesBy(chains) => map(out, "oifname", chains),
            Self::Masquerade => write!(out, "masquerade"),
            Self::Redirect(address, port) => write!(out, "dnat ip to {address}:{port}"),
        }
    }
}

impl Display for Prefix4 {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.0, self.1)
    }
}

impl Display for Prefix6 {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests;
