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
