use std::collections::{BTreeMap, BTreeSet};

use super::*;

#[test]
fn ways_are_in_order_of_preference() {
    for observation in observations() {
        assert!(observation.ways.is_sorted_by(|a, b| a.back_end <= b.back_end), "{}", observation.name);
    }
}

/// Attaching follows the list. The other way round every SYN that came meanwhile was called a drop.
#[test]
fn what_clears_a_syn_is_attached_before_what_accuses_it() {
    let observation = observations().find(|o| o.name == "syn-drop").unwrap();
    for way in observation.ways {
        let last = way.probes.last().unwrap();
        assert_eq!(last.targets, ["tcp_conn_request"]);
        assert!(matches!(last.kind, Kind::Fexit | Kind::Kretprobe), "{}", last.program);
    }
}

#[test]
fn the_page_about_probes_has_every_observation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/probes.md");
    let page = std::fs::read_to_string(page).unwrap();
    for observation in observations() {
        let row = format!("\n| {} ", observation.name);
        assert!(page.contains(&row), "docs/probes.md has no row for {}", observation.name);
    }
}

#[test]
fn every_needed_layout_entry_exists() {
    for way in observations().flat_map(|o| o.ways) {
        if let Some(needed) = way.needs {
            assert!(
                tcptrace_common::KernelLayout::ENTRIES.iter().any(|(name, _)| *name == needed),
                "{needed}"
            );
        }
    }
}

fn probes() -> impl Iterator<Item = &'static Probe> {
    observations().flat_map(|o| o.ways).flat_map(|way| way.probes)
}

/// Programs that no observation attaches: the iterator over open sockets is read once, and rehearsals deny a bind.
const BESIDES: &[&str] = &["iter_open_sockets", "deny_bind_v4", "deny_bind_v6"];

#[test]
fn the_plan_has_every_program_of_the_object_and_no_other() {
    let object = aya_obj::Object::parse(crate::probe::object::OBJECT).unwrap();
    let built: BTreeSet<&str> = object.programs.keys().map(String::as_str).collect();
    let planned: BTreeSet<&str> = probes().map(|p| p.program).chain(BESIDES.iter().copied()).collect();
    assert_eq!(planned, built);
}

#[test]
fn a_program_loses_the_same_wherever_it_is_attached() {
    let mut known: BTreeMap<&str, Skip> = BTreeMap::new();
    for probe in probes() {
        assert_eq!(*known.entry(probe.program).or_insert(probe.skip), probe.skip, "{}", probe.program);
    }
}

/// Binds, connects and accepts are system calls: what is skipped of them is one call of one process, in every tier.
#[test]
fn a_skipped_run_of_a_system_call_is_one_call() {
    const CALLS: &[&str] = &[
        "inet_bind",
        "inet6_bind",
        "mptcp_bind",
        "security_socket_bind",
        "inet_csk_get_port",
        "inet_hash_connect",
        "inet6_hash_connect",
        "tcp_v4_connect",
        "tcp_v6_connect",
        "inet_csk_accept",
        "security_sock_graft",
        "sys_enter_bind",
        "sys_exit_bind",
        "sys_exit_accept",
        "sys_exit_accept4",
        "__sys_accept4",
        "alloc_fd",
    ];
    for probe in probes() {
        let is_call = probe.targets.iter().any(|target| CALLS.contains(target));
        assert_eq!(probe.skip == Skip::OneCall, is_call, "{}", probe.program);
    }
}
