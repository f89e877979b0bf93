//! Servers in the range, and clients that are given their ports.

use crate::event::{Endpoints, How, Kind, PortTaken, SocketOptions, SocketState};
use crate::finding::testing::{Play, Server, address, bind_fail, holder, place, task};
use crate::finding::{Severity, State};

fn taken(local: &str, remote: Option<&str>, pid: u32, how: How) -> Kind {
    Kind::PortTaken(Box::new(PortTaken {
        endpoints: Endpoints { remote: remote.map(address), ..place(local) },
        task: task(pid, if how == How::Connect { "client" } else { "server" }),
        sk: 1,
        how,
        options: SocketOptions::NONE,
    }))
}

/// A server binds by number, and listens.
fn start(play: &mut Play, local: &'static str) {
    play.send(play.now, taken(local, None, 7, How::Bind));
    Server::new(1, local, 128).listen(play, task(7, "server"), Some(128), 4096);
}

#[test]
fn a_server_in_the_range_is_told_of_once() {
    let mut play = Play::new(4096);
    start(&mut play, "0.0.0.0:35010");
    start(&mut play, "0.0.0.0:35011");
    play.ticks_until(8000);
    // Its restart is no news.
    start(&mut play, "0.0.0.0:35010");
    play.end();
    let finding = play.only();
    assert_eq!(
        (finding.cause, finding.severity, finding.state),
        ("range-overlap", Severity::Info, State::Closed)
    );
    let json = Play::json(finding);
    assert_eq!(json["evidence"]["ports_at_risk"], serde_json::json!([{"from": 35010, "to": 35011}]));
    // 8080 was reserved before.
    assert_eq!(
        finding.remedy[0].command.as_deref(),
        Some(
            "sh -c 'sysctl -w net.ipv4.ip_local_reserved_ports=\"35010-35011,$(sysctl -n net.ipv4.ip_local_reserved_ports)\"'"
        )
    );
}

#[test]
fn ports_outside_and_ports_that_the_kernel_chose_are_none() {
    let mut play = Play::new(4096);
    start(&mut play, "0.0.0.0:8090");
    // bind() to port 0 is not reported.
    Server::new(2, "0.0.0.0:40000", 128).listen(&mut play, task(8, "test"), Some(128), 4096);
    play.send(100, taken("10.0.0.9:40000", Some("10.0.0.1:80"), 9, How::Connect));
    // A client that binds its source port by number listens on nothing.
    play.send(100, taken("10.0.0.9:41000", None, 9, How::Bind));
    play.send(200, taken("10.0.0.9:41000", Some("10.0.0.1:80"), 10, How::Connect));
    play.ticks_until(3000);
    play.end();
    assert!(play.findings.is_empty(), "{:?}", play.findings);
}

#[test]
fn a_client_on_a_server_s_port_is_a_near_miss() {
    let mut play = Play::new(4096);
    start(&mut play, "0.0.0.0:35010");
    play.ticks_until(7000);
    play.send(7500, taken("10.0.0.9:35010", Some("10.0.0.1:80"), 9, How::Connect));
    let finding = play.findings.last().unwrap();
    assert_eq!((finding.cause, finding.severity), ("near-miss", Severity::Warning));
    let json = Play::json(finding);
    assert_eq!(
        (&json["subject"]["port"], &json["evidence"]["holders"][0]["process"]["pid"]),
        (&35010.into(), &9.into())
    );
    assert_eq!(json["evidence"]["requester"]["process"]["pid"], 7);
    assert_eq!(
        finding.title,
        "client[9] was given port 35010 for a connection to 10.0.0.1:80, which server[7] listened on"
    );
}

#[test]
fn a_restart_in_vain_does_not_become_the_one_that_listened() {
    let mut play = Play::new(4096);
    start(&mut play, "0.0.0.0:35010");
    play.ticks_until(7000);
    play.send(7500, taken("10.0.0.9:35010", Some("10.0.0.1:80"), 9, How::Connect));
    let grabbed = holder("10.0.0.9:35010", SocketState::Established, How::Connect, Some(task(9, "client")));
    play.send(8000, Kind::BindFail(Box::new(bind_fail("0.0.0.0:35010", task(8, "server"), vec![grabbed]))));
    play.ticks_until(9500);
    let mut near = play.findings.iter().filter(|finding| finding.cause == "near-miss");
    let title = "client[9] was given port 35010 for a connection to 10.0.0.1:80, which server[7] listened on";
    assert!(near.clone().count() > 0 && near.all(|finding| finding.title == title), "{:?}", play.findings);
}
