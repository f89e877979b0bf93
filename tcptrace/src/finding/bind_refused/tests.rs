//! Every cause, and what is no finding.

use crate::event::{BindFail, BindStage, Ipv6Off, Kind, SocketOptions, UnusableAddress};
use crate::finding::Confidence;
use crate::finding::testing::{Play, bind_fail, task};

fn refuse(play: &mut Play, at: u64, local: &str, errno: u32, addresses: Option<&[&str]>) {
    let fail = BindFail {
        errno,
        options: SocketOptions::NONE,
        addresses: addresses.map(|has| has.iter().map(|ip| ip.parse().unwrap()).collect()),
        ..bind_fail(local, task(77, "nginx"), Vec::new())
    };
    play.send(at, Kind::BindFail(Box::new(fail)));
}

#[test]
fn an_address_that_is_not_there_is_named_with_those_that_are() {
    let mut play = Play::new(4096);
    for attempt in 0..3 {
        refuse(&mut play, attempt * 100, "10.0.0.7:80", 99, Some(&["127.0.0.1", "10.0.0.8"]));
    }
    play.ticks_until(4000);
    let finding = play.only();
    assert_eq!((finding.code, finding.cause), ("bind-refused", "address-missing"));
    assert_eq!(finding.confidence, Confidence::Certain);
    assert_eq!(
        finding.title,
        "nginx[77] cannot bind 10.0.0.7:80: this network namespace does not have 10.0.0.7 (EADDRNOTAVAIL)"
    );
    assert_eq!(finding.explanation, "no device of the namespace has 10.0.0.7; it has 127.0.0.1, 10.0.0.8");
    assert!(finding.numbers[0].starts_with("3 attempts"), "{:?}", finding.numbers);
    let commands: Vec<_> = finding.remedy.iter().filter_map(|remedy| remedy.command.as_deref()).collect();
    assert!(commands.iter().any(|command| command.ends_with("net.ipv4.ip_nonlocal_bind=1")), "{commands:?}");
}

#[test]
fn an_address_that_came_too_late_is_not_called_missing_for_certain() {
    let mut play = Play::new(4096);
    refuse(&mut play, 0, "10.0.0.7:80", 99, Some(&["10.0.0.7"]));
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!(finding.confidence, Confidence::Likely);
    assert!(finding.explanation.contains("too late"), "{}", finding.explanation);
}

#[test]
fn a_privileged_port_is_told_by_the_knob() {
    let mut play = Play::new(4096);
    play.knobs(4096);
    refuse(&mut play, 0, "0.0.0.0:80", 13, None);
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("privileged-port", Confidence::Certain));
    assert!(finding.explanation.starts_with("ports below 1024"), "{}", finding.explanation);
}

#[test]
fn a_port_that_is_not_privileged_is_denied_by_somebody_else() {
    let mut play = Play::new(4096);
    play.knobs(4096);
    refuse(&mut play, 0, "0.0.0.0:8080", 13, None);
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("denied", Confidence::Likely));
    assert!(finding.explanation.starts_with("port 8080 is not privileged"), "{}", finding.explanation);
    assert!(finding.title.contains("a security module denies it"), "{}", finding.title);
}

#[test]
fn what_a_security_module_was_seen_to_deny_is_not_put_down_to_the_port() {
    let mut play = Play::new(4096);
    play.knobs(4096);
    let fail = BindFail {
        errno: 13,
        stage: BindStage::Security,
        ..bind_fail("0.0.0.0:81", task(77, "httpd"), Vec::new())
    };
    play.send(0, Kind::BindFail(Box::new(fail)));
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("denied", Confidence::Certain));
    assert_eq!(finding.title, "httpd[77] cannot bind 0.0.0.0:81: a security module denies it (EACCES)");
    assert!(
        finding.remedy.iter().any(|remedy| remedy.text.contains("semanage port")),
        "{:?}",
        finding.remedy
    );
}

#[test]
fn a_program_of_the_cgroup_says_eperm() {
    let mut play = Play::new(4096);
    play.knobs(4096);
    refuse(&mut play, 0, "0.0.0.0:8080", 1, None);
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("denied", Confidence::Likely));
    let commands: Vec<_> = finding.remedy.iter().filter_map(|remedy| remedy.command.as_deref()).collect();
    assert_eq!(commands, ["bpftool cgroup tree"]);
}

#[test]
fn root_at_a_privileged_port_may_also_be_denied_by_a_module() {
    let mut play = Play::new(4096);
    play.knobs(4096);
    let mut fail = BindFail { errno: 13, ..bind_fail("0.0.0.0:81", task(77, "httpd"), Vec::new()) };
    fail.task.uid = 0;
    play.send(0, Kind::BindFail(Box::new(fail)));
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("privileged-port", Confidence::Likely));
    assert!(finding.explanation.ends_with("or a security module denies it"), "{}", finding.explanation);
}

#[test]
fn mistakes_of_a_program_are_events_and_no_finding() {
    let mut play = Play::new(4096);
    refuse(&mut play, 0, "0.0.0.0:80", 22, None);
    let unfit = BindFail {
        errno: 97,
        stage: BindStage::Security,
        ..bind_fail("0.0.0.0:81", task(77, "nginx"), Vec::new())
    };
    play.send(1, Kind::BindFail(Box::new(unfit)));
    play.ticks_until(2000);
    assert_eq!(play.findings.len(), 0);
}

fn refuse_v6(play: &mut Play, local: &str, has: &[&str], with: impl FnOnce(&mut BindFail)) {
    let mut fail = BindFail {
        errno: 99,
        addresses: Some(has.iter().map(|ip| ip.parse().unwrap()).collect()),
        ..bind_fail(local, task(77, "unbound"), Vec::new())
    };
    with(&mut fail);
    play.send(0, Kind::BindFail(Box::new(fail)));
    play.ticks_until(2000);
}

fn commands(finding: &crate::finding::Finding) -> Vec<&str> {
    finding.remedy.iter().filter_map(|remedy| remedy.command.as_deref()).collect()
}

#[test]
fn an_address_that_is_still_tested_is_there_and_tentative() {
    let mut play = Play::new(4096);
    refuse_v6(&mut play, "[2001:db8:5::1]:8053", &["2001:db8:5::1"], |fail| {
        fail.unusable = Some(UnusableAddress { device: "srv0".into(), prefix: 64, duplicate: false });
    });
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("address-tentative", Confidence::Certain));
    assert!(finding.title.contains("is there, and still tentative"), "{}", finding.title);
    assert!(finding.explanation.starts_with("srv0 has 2001:db8:5::1"), "{}", finding.explanation);
    let commands = commands(finding);
    assert!(commands.iter().any(|c| c.ends_with("replace 2001:db8:5::1/64 dev srv0 nodad")), "{commands:?}");
    assert!(commands.iter().any(|c| c.ends_with("net.ipv6.ip_nonlocal_bind=1")), "{commands:?}");
}

#[test]
fn an_address_that_another_node_has_is_a_duplicate() {
    let mut play = Play::new(4096);
    refuse_v6(&mut play, "[2001:db8:5::1]:8053", &["2001:db8:5::1"], |fail| {
        fail.unusable = Some(UnusableAddress { device: "srv0".into(), prefix: 64, duplicate: true });
    });
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("address-duplicate", Confidence::Certain));
    assert!(!finding.remedy.iter().any(|remedy| remedy.text.contains("wait")), "{:?}", finding.remedy);
}

#[test]
fn loopback_without_ipv6_names_the_device_whose_knob_it_is() {
    let mut play = Play::new(4096);
    refuse_v6(&mut play, "[::1]:8053", &["127.0.0.1", "fd00::1"], |fail| {
        fail.ipv6_off = Some(Ipv6Off { devices: vec!["lo".into()], everywhere: false });
    });
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("ipv6-off", Confidence::Certain));
    assert!(finding.title.ends_with("IPv6 is off on lo (EADDRNOTAVAIL)"), "{}", finding.title);
    assert!(commands(finding)[0].ends_with("net.ipv6.conf.lo.disable_ipv6=0"), "{:?}", finding.remedy);
}

#[test]
fn ipv6_that_is_off_elsewhere_does_not_explain_an_address_that_is_missing() {
    let mut play = Play::new(4096);
    refuse_v6(&mut play, "[fd00::7]:8053", &["::1"], |fail| {
        fail.ipv6_off = Some(Ipv6Off { devices: vec!["eth1".into()], everywhere: false });
    });
    let finding = play.only();
    assert_eq!(finding.cause, "address-missing");
    assert!(finding.explanation.ends_with("IPv6 is off on eth1 (disable_ipv6)"), "{}", finding.explanation);
    let mut play = Play::new(4096);
    refuse_v6(&mut play, "[fd00::7]:8053", &["127.0.0.1"], |fail| {
        fail.ipv6_off = Some(Ipv6Off { devices: vec!["eth1".into(), "lo".into()], everywhere: true });
    });
    assert_eq!(play.only().cause, "ipv6-off");
}
