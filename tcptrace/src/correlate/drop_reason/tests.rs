use super::table::Scope;
use super::*;
use crate::event::{CgroupFacts, ConntrackFacts, FoundRule, NetfilterQueue, RuleFacts};
use crate::finding::testing::handshake_drop;

fn class(reason: Option<&str>, function: &str, packet: Packet) -> Class {
    let mut drop = handshake_drop(packet, false);
    drop.reason_name = reason.map(str::to_owned);
    drop.function = Some(function.to_owned());
    class_of(&drop)
}

fn caused_by(reason: &str, facts: DropFacts) -> DropCause {
    let mut drop = handshake_drop(Packet::Syn, false);
    drop.reason_name = Some(reason.to_owned());
    drop.function = Some("nf_queue".to_owned());
    drop.facts = Some(Box::new(facts));
    match class_of(&drop) {
        Class::Cause(cause) => cause,
        other => panic!("{reason}: {other:?}"),
    }
}

#[test]
fn causes_come_from_the_kernel_s_word_or_from_the_function() {
    let cause = Class::Cause;
    let syn = |reason, function| class(reason, function, Packet::Syn);
    assert_eq!(syn(Some("NETFILTER_DROP"), "x"), cause(DropCause::Netfilter));
    assert_eq!(syn(None, "nf_hook_slow"), cause(DropCause::Netfilter));
    assert_eq!(syn(Some("IP_RPFILTER"), "x"), cause(DropCause::RpFilter));
    assert_eq!(syn(None, "ip_rcv_finish_core"), cause(DropCause::NoRoute));
    assert_eq!(syn(Some("NEIGH_FAILED"), "x"), cause(DropCause::Neighbour));
    assert_eq!(syn(Some("NEIGH_CREATEFAIL"), "x"), cause(DropCause::NeighbourTable));
    assert_eq!(syn(Some("TCP_MD5NOTFOUND"), "tcp_v4_rcv"), cause(DropCause::Md5));
    assert_eq!(syn(Some("NOT_SPECIFIED"), "nf_queue"), cause(DropCause::QueueUnread));
    assert_eq!(syn(Some("NOVEL"), "x"), cause(DropCause::Unknown));
    assert_eq!(syn(None, "tcp_v4_rcv"), Class::Ignored);
    assert_eq!(syn(Some("TCP_LISTEN_OVERFLOW"), "tcp_v4_rcv"), Class::Ignored);
}

#[test]
fn a_number_without_a_name_is_unknown_and_no_reason_is_none() {
    let mut drop = handshake_drop(Packet::Syn, false);
    drop.function = Some("ovs_vport_receive".to_owned());
    assert_eq!(class_of(&drop), Class::Silent);
    drop.reason = 0x3_0001;
    assert_eq!(class_of(&drop), Class::Cause(DropCause::Unknown));
}

#[test]
fn copies_for_captures_are_no_drops() {
    for function in ["packet_rcv", "tpacket_rcv"] {
        assert_eq!(class(Some("NOT_SPECIFIED"), function, Packet::Syn), Class::Ignored, "{function}");
    }
    assert_eq!(class(Some("PACKET_SOCK_ERROR"), "tpacket_rcv", Packet::Syn), Class::Ignored);
    assert_eq!(class(Some("NOT_SPECIFIED"), "veth_xmit", Packet::Syn), Class::Silent);
}

#[test]
fn what_comes_twice_is_a_loss_of_syns_only() {
    assert_eq!(class(Some("TCP_OLD_SEQUENCE"), "x", Packet::Syn), Class::Cause(DropCause::OldConnection));
    assert_eq!(class(Some("TCP_OLD_SEQUENCE"), "x", Packet::SynAck), Class::Ignored);
    assert_eq!(class(Some("TCP_INVALID_SYN"), "x", Packet::SynAck), Class::Ignored);
    assert_eq!(class(Some("TCP_MD5FAILURE"), "x", Packet::SynAck), Class::Cause(DropCause::Md5));
}

#[test]
fn connection_tracking_is_told_from_a_rule_by_its_own_counter() {
    let with = |count, dropped, invalid| {
        let conntrack = ConntrackFacts { count, max: 1000, dropped, invalid, drops: 1, counted: true };
        caused_by("NETFILTER_DROP", DropFacts { conntrack: Some(conntrack), ..DropFacts::default() })
    };
    assert_eq!(with(1000, true, false), DropCause::ConntrackFull);
    assert_eq!(with(990, true, false), DropCause::ConntrackFull, "some have expired since");
    assert_eq!(with(100, true, true), DropCause::ConntrackInvalid);
    assert_eq!(with(1000, false, false), DropCause::Netfilter, "full, and it dropped none");
}

#[test]
fn a_queue_is_unread_unless_a_program_reads_it() {
    let with = |reads: &[u16], rule: Option<u16>| {
        let queue = |&number: &u16| NetfilterQueue { number, reader: 7, waiting: 0, dropped: 0, unread: 0 };
        let rule = rule.map(|number| FoundRule {
            place: String::new(),
            deed: RuleDeed::Queue,
            queue: Some(number),
            open: None,
        });
        let rules = Some(RuleFacts { rule, ..RuleFacts::default() });
        let queues = Some(reads.iter().map(queue).collect());
        caused_by("NOT_SPECIFIED", DropFacts { queues, rules, ..DropFacts::default() })
    };
    assert_eq!(with(&[], None), DropCause::QueueUnread);
    assert_eq!(with(&[1], Some(0)), DropCause::QueueUnread, "another one is read");
    assert_eq!(with(&[0], Some(0)), DropCause::QueueFull);
}

#[test]
fn a_socket_filter_is_the_control_group_s_if_that_has_programs() {
    let with = |programs: &[&str]| {
        let programs = programs.iter().map(|&name| name.to_owned()).collect();
        let cgroup = Some(CgroupFacts { programs, asked: true, ..CgroupFacts::default() });
        caused_by("SOCKET_FILTER", DropFacts { cgroup, ..DropFacts::default() })
    };
    assert_eq!(with(&["sd_fw_ingress"]), DropCause::CgroupFilter);
    assert_eq!(with(&[]), DropCause::SocketFilter);
}

/// The running kernel's words are those that the table knows; a new one is to be added with its meaning.
#[test]
fn every_word_of_the_running_kernel_is_known() {
    let Ok(btf) = crate::probe::btf::Btf::load() else { return };
    let words = btf.enum_names("skb_drop_reason", "SKB_DROP_REASON_");
    for word in
        words.values().filter(|word| !matches!(word.as_str(), "MAX" | "SUBSYS_MASK" | "NOT_SPECIFIED"))
    {
        assert!(table::find(word).is_some(), "{word}");
    }
}

#[test]
fn every_word_stands_once_and_says_what_it_means() {
    for (at, reason) in REASONS.iter().enumerate() {
        assert!(REASONS.iter().skip(at + 1).all(|other| other.name != reason.name), "{}", reason.name);
        assert!(!reason.means.is_empty() && reason.cause.is_none() == (reason.hits == Scope::None));
    }
}
