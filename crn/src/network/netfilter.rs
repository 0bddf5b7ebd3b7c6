//! Takes a [`Ruleset`] to the kernel: one transaction of nftables over netlink, so that packets meet the old table or the new one
//! and nothing in between.
//!
//! What an expression is: `linux/netfilter/nf_tables.h`. Each match loads something into a register and compares it.

use super::rules::{Chain, Hook, Interface, Match, Protocol, Rule, Ruleset, Verdict};
use ipnet::IpNet;
use netlink_bindings::nftables::{
    Chained, CmpOps, CtKeys, FibFlags, MetaKeys, Nfgenmsg, PayloadBase, PushExprListAttrs, PushRuleAttrs, Registers,
    Request, VerdictCode,
};
use netlink_socket2::NetlinkSocket;
use std::{ffi::CString, io};

/// `NFNL_SUBSYS_NFTABLES`: whose transaction it is.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// Protocols behind IP.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Hooks and their priorities (`linux/netfilter.h`, `linux/netfilter_ipv4.h`).
const PRE_ROUTING: (u32, i32) = (0, -100);
const LOCAL_IN: (u32, i32) = (1, 0);
const FORWARD: (u32, i32) = (2, 0);
const POST_ROUTING: (u32, i32) = (4, 100);
/// `NF_ACCEPT`: the policy of all chains.
const ACCEPT: u32 = 1;
/// Bits of a conversation's state, and of what was done to it (`IPS_DST_NAT`).
const ESTABLISHED_OR_RELATED: u32 = 1 << 1 | 1 << 2;
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `NFT_FIB_RESULT_OIF`; the crate's is one less, and the kernel refuses it.
const OUTGOING_INTERFACE: u32 = 1;
/// `NFT_NAT_DNAT`.
const TO_DESTINATION: u32 = 1;
/// Where addresses are in the headers.
const SOURCE4: u32 = 12;
const DESTINATION4: u32 = 16;
const SOURCE6: u32 = 8;
const DESTINATION6: u32 = 24;
/// Where the destination port is in those of TCP and UDP.
const DESTINATION_PORT: u32 = 2;
/// Answers are counted in words of this many by the socket, which takes a count that fills the last one for all answered.
const ANSWERS_PER_WORD: usize = 64;
/// Most messages of a transaction: it must fit the socket's buffer, 208 KiB where nobody has changed that.
pub const MAX_MESSAGES: usize = 1000;

type Expressions<'a> = PushExprListAttrs<PushRuleAttrs<&'a mut Vec<u8>>>;

/// Puts the table in the place of what has its name.
///
/// # Errors
/// The kernel lacks nftables or a part of it, or this process may not.
pub fn replace(ruleset: &Ruleset) -> io::Result<()> {
    send(&ruleset.table, Some(ruleset))
}

/// Removes the table of that name, if there is one.
///
/// # Errors
/// As [`replace`].
pub fn remove(table: &str) -> io::Result<()> {
    send(table, None)
}

fn send(table: &str, ruleset: Option<&Ruleset>) -> io::Result<()> {
    let mut socket = NetlinkSocket::new();
    let mut batch = Batch { chained: Chained::new(1), messages: 0, table: CString::new(table)? };
    let mut transaction = Nfgenmsg::new();
    transaction.set_res_id(SUBSYSTEM);
    batch.request().op_batch_begin_do(&transaction);
    // To delete what may not be there it is made first.
    batch.make_table();
    let name = batch.table.clone();
    batch.request().op_deltable_do(&family()).encode().push_name(&name);
    if let Some(ruleset) = ruleset {
        batch.make_table();
        for chain in &ruleset.chains {
            batch.make_chain(chain)?;
        }
        for chain in &ruleset.chains {
            for rule in &chain.rules {
                batch.add_rule(chain, rule)?;
            }
        }
        if (batch.messages + 1).is_multiple_of(ANSWERS_PER_WORD) {
            batch.make_table();
        }
    }
    batch.request().op_batch_end_do(&transaction);
    if batch.messages > MAX_MESSAGES {
        return Err(io::Error::other(format!(
            "the packet filter has {} rules and chains, at most {MAX_MESSAGES} are possible",
            batch.messages
        )));
    }
    let chained = batch.chained.finalize();
    let mut answers = socket.request_chained(&chained)?;
    answers.recv_all().map_err(|error| io::Error::new(error.as_io_error().kind(), error.to_string()))
}

fn family() -> Nfgenmsg {
    Nfgenmsg { nfgen_family: INET, ..Nfgenmsg::default() }
}

/// A transaction that is being written.
struct Batch {
    chained: Chained<'static>,
    messages: usize,
    table: CString,
}

impl Batch {
    fn request(&mut self) -> Request<'_> {
        self.messages += 1;
        self.chained.request()
    }

    fn make_table(&mut self) {
        let name = self.table.clone();
        self.request().set_create().op_newtable_do(&family()).encode().push_name(&name);
    }

    fn make_chain(&mut self, chain: &Chain) -> io::Result<()> {
        let (table, name) = (self.table.clone(), CString::new(chain.name)?);
        let mut request = self.request().set_create().op_newchain_do(&family());
        let attributes = request.encode().push_table(&table).push_name(&name);
        let Some(hook) = chain.hook else { return Ok(()) };
        let ((number, priority), kind) = match hook {
            Hook::PreRouting => (PRE_ROUTING, c"nat"),
            Hook::Input => (LOCAL_IN, c"filter"),
            Hook::Forward => (FORWARD, c"filter"),
            Hook::PostRouting => (POST_ROUTING, c"nat"),
        };
        attributes
            .nested_hook()
            .push_num(number)
            .push_priority(priority)
            .end_nested()
            .push_policy(ACCEPT)
            .push_type(kind);
        Ok(())
    }

    fn add_rule(&mut self, chain: &Chain, rule: &Rule) -> io::Result<()> {
        let (table, name) = (self.table.clone(), CString::new(chain.name)?);
        let mut request = self.request().set_create().set_append().op_newrule_do(&family());
        let mut expressions = request.encode().push_table(&table).push_chain(&name).nested_expressions();
        for matching in &rule.matches {
            expressions = matches(expressions, matching);
        }
        verdict(expressions, &rule.verdict)?;
        Ok(())
    }
}

fn matches<'a>(to: Expressions<'a>, matching: &Match) -> Expressions<'a> {
    match matching {
        Match::CameBy(interface) => by(to, MetaKeys::Iifname, interface),
        Match::LeavesBy(interface) => by(to, MetaKeys::Oifname, interface),
        Match::IsIpv4 => is_family(to, IPV4),
        Match::IsForeign => {
            let to = to
                .nested_elem()
                .nested_data_fib()
                .push_dreg(Registers::Reg1 as u32)
                .push_result(OUTGOING_INTERFACE)
                .push_flags(FibFlags::Saddr as u32 | FibFlags::Iif as u32)
                .end_nested()
                .end_nested();
            is(to, CmpOps::Eq, &0_u32.to_ne_bytes())
        }
        Match::SourceIn(network) => in_network(to, network, SOURCE4, SOURCE6),
        Match::DestinationIn(network) => in_network(to, network, DESTINATION4, DESTINATION6),
        Match::IsControlMessage { ipv6: false } => is_protocol(is_family(to, IPV4), ICMP),
        Match::IsControlMessage { ipv6: true } => is_protocol(is_family(to, IPV6), ICMPV6),
        Match::IsEstablished => conversation(to, CtKeys::State, ESTABLISHED_OR_RELATED),
        Match::IsForwarded => conversation(to, CtKeys::Status, DESTINATION_TRANSLATED),
        Match::Port(protocol, port) => {
            let number = match protocol {
                Protocol::Tcp => TCP,
                Protocol::Udp => UDP,
            };
            let to = payload(is_protocol(to, number), PayloadBase::TransportHeader, DESTINATION_PORT, 2);
            is(to, CmpOps::Eq, &port.to_be_bytes())
        }
    }
}

fn verdict<'a>(to: Expressions<'a>, verdict: &Verdict) -> io::Result<Expressions<'a>> {
    let (code, chain) = match verdict {
        Verdict::Accept => (VerdictCode::Accept, None),
        Verdict::Drop => (VerdictCode::Drop, None),
        Verdict::Return => (VerdictCode::Return, None),
        Verdict::Jump(chain) => (VerdictCode::Jump, Some(CString::new(*chain)?)),
        Verdict::Masquerade => return Ok(to.nested_elem().push_name(c"masq").end_nested()),
        Verdict::Redirect(address, port) => {
            let to = immediate(to, Registers::Reg1, &address.octets());
            let to = immediate(to, Registers::Reg2, &port.to_be_bytes());
            let to = to
                .nested_elem()
                .nested_data_nat()
                .push_type(TO_DESTINATION)
                .push_family(IPV4.into())
                .push_reg_addr_min(Registers::Reg1 as u32)
                .push_reg_proto_min(Registers::Reg2 as u32)
                .end_nested()
                .end_nested();
            return Ok(to);
        }
    };
    let mut word = to
        .nested_elem()
        .nested_data_immediate()
        .push_dreg(Registers::RegVerdict as u32)
        .nested_data()
        .nested_verdict()
        .push_code(code as u32);
    if let Some(chain) = chain {
        word = word.push_chain(&chain);
    }
    Ok(word.end_nested().end_nested().end_nested().end_nested())
}

/// Compares as many bytes of a name as a prefix has; a whole name with the zero that ends it.
fn by<'a>(to: Expressions<'a>, key: MetaKeys, interface: &Interface) -> Expressions<'a> {
    let to = meta(to, key);
    match interface {
        Interface::Prefixed(prefix) => is(to, CmpOps::Eq, prefix.as_bytes()),
        Interface::Named(name) => {
            let mut whole = name.clone().into_bytes();
            whole.push(0);
            is(to, CmpOps::Eq, &whole)
        }
    }
}

fn in_network<'a>(to: Expressions<'a>, network: &IpNet, offset4: u32, offset6: u32) -> Expressions<'a> {
    let (to, address, mask) = match network {
        IpNet::V4(network) => (
            payload(is_family(to, IPV4), PayloadBase::NetworkHeader, offset4, 4),
            Vec::from(network.network().octets()),
            Vec::from(network.netmask().octets()),
        ),
        IpNet::V6(network) => (
            payload(is_family(to, IPV6), PayloadBase::NetworkHeader, offset6, 16),
            Vec::from(network.network().octets()),
            Vec::from(network.netmask().octets()),
        ),
    };
    is(masked(to, &mask), CmpOps::Eq, &address)
}

fn is_family(to: Expressions<'_>, family: u8) -> Expressions<'_> {
    is(meta(to, MetaKeys::Nfproto), CmpOps::Eq, &[family])
}

fn is_protocol(to: Expressions<'_>, protocol: u8) -> Expressions<'_> {
    is(meta(to, MetaKeys::L4Proto), CmpOps::Eq, &[protocol])
}

/// Any of these bits is set.
fn conversation(to: Expressions<'_>, key: CtKeys, bits: u32) -> Expressions<'_> {
    let to = to
        .nested_elem()
        .nested_data_ct()
        .push_dreg(Registers::Reg1 as u32)
        .push_key(key as u32)
        .end_nested()
        .end_nested();
    is(masked(to, &bits.to_ne_bytes()), CmpOps::Neq, &0_u32.to_ne_bytes())
}

fn meta(to: Expressions<'_>, key: MetaKeys) -> Expressions<'_> {
    to.nested_elem().nested_data_meta().push_dreg(Registers::Reg1 as u32).push_key(key as u32).end_nested().end_nested()
}

fn payload(to: Expressions<'_>, base: PayloadBase, offset: u32, length: u32) -> Expressions<'_> {
    to.nested_elem()
        .nested_data_payload()
        .push_dreg(Registers::Reg1 as u32)
        .push_base(base as u32)
        .push_offset(offset)
        .push_len(length)
        .end_nested()
        .end_nested()
}

/// The first register, masked.
fn masked<'a>(to: Expressions<'a>, mask: &[u8]) -> Expressions<'a> {
    let length = u32::try_from(mask.len()).expect("a mask is no longer than an address");
    to.nested_elem()
        .nested_data_bitwise()
        .push_sreg(Registers::Reg1 as u32)
        .push_dreg(Registers::Reg1 as u32)
        .push_len(length)
        .nested_mask()
        .push_value(mask)
        .end_nested()
        .nested_xor()
        .push_value(&vec![0; mask.len()])
        .end_nested()
        .end_nested()
        .end_nested()
}

/// Goes on if the first register compares so.
fn is<'a>(to: Expressions<'a>, how: CmpOps, value: &[u8]) -> Expressions<'a> {
    to.nested_elem()
        .nested_data_cmp()
        .push_sreg(Registers::Reg1 as u32)
        .push_op(how as u32)
        .nested_data()
        .push_value(value)
        .end_nested()
        .end_nested()
        .end_nested()
}

fn immediate<'a>(to: Expressions<'a>, register: Registers, value: &[u8]) -> Expressions<'a> {
    to.nested_elem()
        .nested_data_immediate()
        .push_dreg(register as u32)
        .nested_data()
        .push_value(value)
        .end_nested()
        .end_nested()
        .end_nested()
}
