use super::*;
use crate::event::{Owner, OwnerConfidence};

fn party(comm: &str, command: &str) -> Party {
    Party {
        kind: "listener",
        address: Some("0.0.0.0:8080".parse().unwrap()),
        process: Some(ProcessName {
            pid: Some(7),
            comm: Some(comm.to_owned()),
            command: Some(command.to_owned()),
            confidence: OwnerConfidence::Observed,
            ..ProcessName::default()
        }),
        ..Party::default()
    }
}

fn texts(remedies: &[Remedy]) -> Vec<&str> {
    remedies.iter().map(|remedy| remedy.text.as_str()).collect()
}

#[test]
fn a_program_that_is_known_gets_its_own_words_and_another_the_general_ones() {
    let general = "raise the application's own listen backlog";
    let known =
        or_general(&party("memcached", "memcached -p 8080"), Need::Backlog(1024), general, "; no more");
    assert_eq!(
        texts(&known),
        [
            "raise the listen backlog of memcached: `-b 1024` on its command line, then restart it (default: 1024); no more"
        ]
    );
    let unknown = or_general(&party("ours", "/opt/ours"), Need::Backlog(1024), general, "; no more");
    assert_eq!(texts(&unknown), ["raise the application's own listen backlog; no more"]);
    // It is known, and its entry says nothing about this.
    let silent = or_general(&party("memcached", "memcached"), Need::Release, "stop it", "");
    assert_eq!(texts(&silent), ["stop it"]);
    assert!(of(&Party::default(), Need::Backlog(1)).is_empty());
}

#[test]
fn the_queue_of_a_unit_s_socket_is_the_unit_s() {
    let mut party = party("sshd", "sshd: /usr/sbin/sshd -D");
    let process = party.process.as_mut().unwrap();
    process.also = vec![Owner { pid: 1, comm: "systemd".into() }];
    assert!(texts(&of(&party, Need::Backlog(1024)))[0].contains("`Backlog=1024` in the [Socket] section"));
    // Whoever accepts, it is sshd that limits its connections.
    assert!(texts(&of(&party, Need::Connections(Some(100))))[0].contains("`MaxStartups 100:30:100`"));
    // pid 1 of a container may be anything.
    party.process.as_mut().unwrap().also = vec![Owner { pid: 1, comm: "tini".into() }];
    assert!(texts(&of(&party, Need::Backlog(1024)))[0].contains("sshd has no setting"));
}

#[test]
fn so_many_workers_keep_up() {
    // 1 thread accepts 10/s, 40/s arrive: four would just do.
    let mut party = party("gunicorn", "python3 gunicorn");
    assert_eq!(workers_for(&party, Some(1), 10.0, 40.0), Some(5));
    assert_eq!(workers_for(&party, Some(4), 10.0, 12.0), Some(6));
    // The master and its eight workers, two of which have accepted while it was watched.
    party.process.as_mut().unwrap().also =
        (0..8).map(|pid| Owner { pid: 100 + pid, comm: "gunicorn".into() }).collect();
    assert_eq!(workers_for(&party, Some(2), 10.0, 12.0), Some(12));
    for (threads, accepts, arrivals) in [(None, 1.0, 2.0), (Some(1), 0.0, 2.0), (Some(1), 0.01, 9000.0)] {
        assert_eq!(workers_for(&party, threads, accepts, arrivals), None);
    }
}
