//! Plays the incidents on this machine's own kernel and checks that they really happen, and that nothing is left behind.
//!
//! Needs root; without it every test that makes a namespace says so and passes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tcptrace::rehearse::{Error, Family, GroundTruth, Options, Stage, catalogue, entry, incident};

/// The example that cargo builds beside this test: it hands `__actor …` on, which a test executable cannot.
fn executable() -> Result<PathBuf> {
    let deps = std::env::current_exe()?;
    let path = deps.ancestors().nth(2).context("a test lies in target/…/deps")?.join("examples/rehearse");
    ensure!(path.exists(), "{} is missing: cargo build -p tcptrace --example rehearse", path.display());
    Ok(path)
}

fn options() -> Result<Options> {
    Ok(Options { actor_executable: Some(executable()?), ..Options::default() })
}

/// None: this machine does not let us make namespaces.
fn play(name: &str, options: &Options) -> Result<Option<GroundTruth>> {
    let mut incident = match incident(name, options) {
        Err(Error::NotPermitted { what, .. }) => {
            println!("skipped: no permission for {what}");
            return Ok(None);
        }
        other => other?,
    };
    incident.prepare()?;
    let truth = incident.play()?;
    for actor in &truth.actors {
        ensure!(actor.comm.is_empty() || actor.comm == actor.role, "{actor:?} goes by another name");
    }
    println!("{}", truth.to_json());
    drop(incident);
    for actor in &truth.actors {
        ensure!(!is_alive(actor.pid), "{actor:?} has outlived its incident");
    }
    Ok(Some(truth))
}

fn is_alive(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(7).any(|word| word == b"__actor"))
}

fn fact(truth: &GroundTruth, name: &str) -> u64 {
    truth.facts.get(name).and_then(Value::as_u64).unwrap_or_default()
}

#[test]
fn a_full_accept_queue_drops_at_both_stages() -> Result<()> {
    let Some(truth) = play("accept-overflow", &options()?)? else { return Ok(()) };
    let (syn, ack) = (fact(&truth, "syn_drops"), fact(&truth, "ack_drops"));
    ensure!(syn > 0 && ack > 0, "{syn} SYNs and {ack} final ACKs were dropped");
    ensure!(truth.counters.get("ListenOverflows") == Some(&(syn + ack)), "{:?}", truth.counters);
    ensure!(truth.counters.get("ListenDrops") == Some(&(syn + ack)), "{:?}", truth.counters);
    ensure!(truth.expect.len() == 1);
    Ok(())
}

/// Each of these numbers is known from two sides: the clients' books and a counter that sees one stage only.
#[test]
fn the_two_stages_are_told_apart_exactly() -> Result<()> {
    let aborting = Options { abort_on_overflow: true, family: Family::V6, ..options()? };
    let Some(truth) = play("accept-overflow", &aborting)? else { return Ok(()) };
    // Every dropped final ACK resets its request, and nothing else does.
    ensure!(truth.counters.get("EmbryonicRsts") == Some(&fact(&truth, "ack_drops")), "{}", truth.to_json());

    let cookies = Options { syncookies: Some(2), family: Family::Mapped, ..options()? };
    let Some(truth) = play("accept-overflow", &cookies)? else { return Ok(()) };
    let count = |name| truth.counters.get(name).copied().unwrap_or_default();
    // A valid cookie either becomes a connection or finds the queue full.
    let dropped = count("SyncookiesRecv") - count("PassiveOpens");
    ensure!(dropped == fact(&truth, "ack_drops"), "{}", truth.to_json());
    Ok(())
}

#[test]
fn every_way_to_overflow_overflows() -> Result<()> {
    for variant in ["accept-slow", "somaxconn", "stopped", "not-accepting"] {
        let options = Options { variant: Some(variant.into()), older: true, ..options()? };
        let Some(truth) = play("accept-overflow", &options)? else { return Ok(()) };
        ensure!(fact(&truth, "syn_drops") > 0 && fact(&truth, "ack_drops") > 0, "{}", truth.to_json());
    }
    Ok(())
}

#[test]
fn every_conflict_is_one() -> Result<()> {
    let port_grab = entry("bind-conflict").context("it is in the catalogue")?;
    // What must not be told as a conflict, beside what looks like it.
    const CONTRASTS: &[&str] = &["other-namespace", "fin-wait-reuse", "other-devices"];
    for variant in port_grab.variants {
        for family in [Family::V4, Family::V6] {
            let options = Options { variant: Some(variant.name.into()), family, ..options()? };
            let Some(truth) = play("port-grab", &options)? else { return Ok(()) };
            // Several conflicts in one play have no errno of the play's own.
            if matches!(variant.name, "every" | "vanishing") {
                ensure!(!truth.expect.is_empty(), "{}", truth.to_json());
                continue;
            }
            let conflict = truth.facts.get("errno").and_then(Value::as_str) == Some("EADDRINUSE");
            ensure!(conflict != CONTRASTS.contains(&variant.name), "{}", truth.to_json());
            ensure!(truth.expect.len() == usize::from(conflict), "{}", truth.to_json());
        }
    }
    Ok(())
}

/// Every variant of an incident, all at the same time, each in a family of its own turn; the truths of those that could be
/// played here.
fn play_all(name: &str, older: bool) -> Result<Vec<GroundTruth>> {
    let entry = entry(name).context("it is in the catalogue")?;
    let options = options()?;
    let outcomes: Vec<Result<Option<GroundTruth>>> = std::thread::scope(|scope| {
        let plays: Vec<_> = entry
            .variants
            .iter()
            .zip(Family::ALL.into_iter().cycle())
            .map(|(variant, family)| {
                let options =
                    Options { variant: Some(variant.name.into()), family, older, ..options.clone() };
                scope.spawn(move || match play(name, &options) {
                    Err(error) if matches!(error.downcast_ref(), Some(Error::NotSupported(_))) => {
                        println!("skipped: {} {error}", variant.name);
                        Ok(None)
                    }
                    outcome => outcome.with_context(|| variant.name),
                })
            })
            .collect();
        plays
            .into_iter()
            .map(|play| play.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a play panicked"))))
            .collect()
    });
    outcomes.into_iter().filter_map(Result::transpose).collect()
}

fn count(truth: &GroundTruth, name: &str) -> u64 {
    truth.counters.get(name).copied().unwrap_or_default()
}

fn cause(truth: &GroundTruth) -> Option<&'static str> {
    truth.expect.first().map(|expected| expected.cause)
}

#[test]
fn a_healthy_server_drops_nothing() -> Result<()> {
    for truth in play_all("healthy", false)? {
        let clean = ["ListenDrops", "TCPSynRetrans", "TCPReqQFullDoCookies"];
        ensure!(truth.expect.is_empty(), "{}", truth.to_json());
        ensure!(clean.iter().all(|name| count(&truth, name) == 0), "{}", truth.to_json());
        let resets = fact(&truth, "reset_during_handshake");
        ensure!(count(&truth, "EmbryonicRsts") == resets, "{}", truth.to_json());
        ensure!((resets > 0) == (truth.variant == "health-checks"), "{}", truth.to_json());
        ensure!(count(&truth, "PassiveOpens") > 0, "{}", truth.to_json());
        ensure!(truth.allow.is_empty() == (truth.variant != "port-scan"), "{}", truth.to_json());
    }
    Ok(())
}

#[test]
fn half_open_requests_pile_up_and_every_one_is_accounted_for() -> Result<()> {
    for truth in play_all("backlog-capture", false)? {
        let json = truth.to_json();
        let [requests, expired, synacks] =
            ["requests", "expired", "synack_retransmits"].map(|name| fact(&truth, name));
        let expected = match truth.variant {
            "return-path" => {
                // One SYN-ACK for each SYN that comes again, and two for each request when its timer runs out; then the end.
                ensure!(
                    expired == requests && synacks == fact(&truth, "duplicate_syns") + 2 * requests,
                    "{json}"
                );
                ensure!(fact(&truth, "retried_from_new_port") == fact(&truth, "peers"), "{json}");
                Some("return-path")
            }
            "stateful-firewall" => {
                ensure!(
                    expired == requests && fact(&truth, "retried_from_new_port") == fact(&truth, "peers"),
                    "{json}"
                );
                Some("return-path")
            }
            "silent" => {
                ensure!(expired == requests && fact(&truth, "duplicate_syns") == 0, "{json}");
                Some("unknown")
            }
            "client-gave-up" => {
                ensure!(count(&truth, "EmbryonicRsts") == requests && expired == 0, "{json}");
                Some("client-gave-up")
            }
            "client-gone" => {
                ensure!(count(&truth, "ListenDrops") == requests && expired == 0, "{json}");
                Some("client-gave-up")
            }
            "syn-flood" => {
                ensure!(expired == requests && synacks == requests, "{json}");
                Some("syn-flood")
            }
            _ => {
                ensure!(fact(&truth, "completed") == requests && synacks == 2 * requests, "{json}");
                None
            }
        };
        ensure!(cause(&truth) == expected, "{json}");
        ensure!(fact(&truth, "half_open_max") * 3 > fact(&truth, "peers") && requests > 0, "{json}");
    }
    Ok(())
}

#[test]
fn ports_run_out_in_every_way() -> Result<()> {
    for truth in play_all("port-exhaustion", false)? {
        let json = truth.to_json();
        // Whose ports in TIME_WAIT are taken over in time.
        if truth.variant.starts_with("reuse") && truth.variant != "reuse-too-fast" {
            ensure!(truth.expect.is_empty(), "{json}");
            continue;
        }
        let face = if truth.variant.starts_with("bind-") { "EADDRINUSE" } else { "EADDRNOTAVAIL" };
        ensure!(truth.facts.get("errno").and_then(Value::as_str) == Some(face), "{json}");
        ensure!(truth.expect.len() == 1 && fact(&truth, "capacity") == 40, "{json}");
    }
    for truth in play_all("port-risk", false)? {
        ensure!(truth.expect.is_empty() == (truth.variant == "reserved"), "{}", truth.to_json());
    }
    for truth in play_all("port-leak", false)? {
        let healthy = matches!(truth.variant, "pool" | "turnover");
        ensure!(truth.expect.is_empty() == healthy && fact(&truth, "taken") == 45, "{}", truth.to_json());
    }
    Ok(())
}

/// What the crowd's books and the kernel's counters say of each other is checked where they are kept; here, that each
/// variant is stopped by the limit that it is about, and by no other.
#[test]
fn every_limit_of_the_syn_queue_is_met() -> Result<()> {
    for truth in play_all("syn-queue-full", true)? {
        let json = truth.to_json();
        let (limit, most) = (fact(&truth, "queue_limit"), fact(&truth, "half_open_max"));
        // The table of sockets is read while it changes: those that have just gone may be seen beside their successors, three of them
        // on a busy machine. The other limits are further away.
        let near = |limit| (limit..=limit + limit / 4).contains(&most);
        let expected = match truth.variant {
            "max-syn-backlog" => {
                ensure!(near(37) && count(&truth, "TCPReqQFullDrop") == 0, "{json}");
                "max-syn-backlog"
            }
            "flood" => {
                ensure!(count(&truth, "SyncookiesRecv") > 0 && most >= limit, "{json}");
                "syn-flood"
            }
            "somaxconn" => "somaxconn",
            _ => "backlog-argument",
        };
        ensure!(cause(&truth) == Some(expected), "{json}");
        if matches!(truth.variant, "drop" | "somaxconn" | "cookies") {
            ensure!(near(limit), "{json}");
        }
        let (drops, cookies) = (count(&truth, "TCPReqQFullDrop"), count(&truth, "TCPReqQFullDoCookies"));
        ensure!(drops == 0 || cookies == 0, "{json}");
    }
    Ok(())
}

#[test]
fn connections_wait_for_a_server_that_does_not_accept() -> Result<()> {
    for truth in play_all("accept-stall", true)? {
        let json = truth.to_json();
        let expected = match truth.variant {
            // The kernel's own listener, which is no fault.
            "smc" => continue,
            "stopped" => "process-stopped",
            "busy" | "workers" | "worker-stopped" => "busy",
            "not-interested" | "gave-up" | "acceptor-exited" => truth.variant,
            _ => "not-accepting",
        };
        // One more waits where it is its accept() that failed.
        let waiting = if truth.variant == "gave-up" { 26 } else { 25 };
        ensure!(cause(&truth) == Some(expected) && fact(&truth, "waiting") == waiting, "{json}");
    }
    Ok(())
}

#[test]
fn accepts_fail_for_want_of_descriptors() -> Result<()> {
    for truth in play_all("accept-failed", false)? {
        let json = truth.to_json();
        let expected = (truth.variant != "eagain").then_some("fd-limit");
        ensure!(cause(&truth) == expected && fact(&truth, "refused") >= 25, "{json}");
        let waiting = if truth.variant == "emfile" { 25 } else { 0 };
        ensure!(fact(&truth, "waiting") == waiting, "{json}");
    }
    Ok(())
}

#[test]
fn waits_are_measured_at_both_ends() -> Result<()> {
    for truth in play_all("slow-accept", false)? {
        let json = truth.to_json();
        let wait = |name: &str| truth.facts.get(name).and_then(Value::as_f64).unwrap_or_default();
        let waits = ["wait_p50_ms", "wait_p90_ms", "wait_p99_ms", "wait_max_ms"].map(wait);
        ensure!(waits.is_sorted() && wait("wait_p50_ms") > 100.0 && wait("wait_p99_ms") > 1000.0, "{json}");
        // The last of 150 is served after all the others.
        ensure!(wait("wait_max_ms") < 20_000.0 && count(&truth, "PassiveOpens") == 150, "{json}");
    }
    Ok(())
}

#[test]
fn the_other_findings_of_listeners_come_about() -> Result<()> {
    for name in ["backlog-truncated", "listener-closed", "reuseport-imbalance"] {
        for truth in play_all(name, false)? {
            let quiet = matches!(truth.variant, "negative" | "worker-migrated");
            let matches = truth.expect.iter().map(|expected| expected.code).eq((!quiet).then_some(name));
            ensure!(matches, "{}", truth.to_json());
        }
    }
    for truth in play_all("backlog-truncated", true)? {
        ensure!(truth.expect.is_empty(), "nobody saw what listen() was told: {}", truth.to_json());
    }
    Ok(())
}

#[test]
fn every_way_to_drop_a_handshake_comes_about() -> Result<()> {
    for truth in play_all("dropped", false)? {
        ensure!(!truth.expect.is_empty(), "{}", truth.variant);
    }
    Ok(())
}

#[test]
fn every_syn_of_a_storm_is_counted() -> Result<()> {
    for truth in play_all("storm", false)? {
        let sent = if truth.variant == "basic" { 100_000 } else { 5000 };
        ensure!(fact(&truth, "syns_sent") == sent, "{}", truth.to_json());
        ensure!(count(&truth, "ListenOverflows") == sent, "{}", truth.to_json());
    }
    Ok(())
}

#[test]
fn a_stage_is_private() -> Result<()> {
    let own = |name: &str| fs::read_to_string(format!("/proc/sys/net/core/{name}"));
    let before = (fs::read_link("/proc/self/ns/net")?, own("somaxconn")?);
    let stage = match Stage::new() {
        Err(Error::NotPermitted { .. }) => return Ok(()),
        other => other?,
    };
    stage.set_sysctl("net.core.somaxconn", 77)?;
    ensure!(stage.sysctl("net.core.somaxconn")? == "77");
    ensure!(
        before == (fs::read_link("/proc/self/ns/net")?, own("somaxconn")?),
        "the caller was moved, or its settings"
    );
    ensure!(!before.0.to_string_lossy().contains(&stage.netns_inode().to_string()));
    ensure!(fs::metadata(stage.server().path()).is_ok(), "the namespace's path opens it");
    Ok(())
}

#[test]
fn a_play_can_be_cut_short() -> Result<()> {
    let mut incident = match incident("accept-overflow", &options()?) {
        Err(Error::NotPermitted { .. }) => return Ok(()),
        other => other?,
    };
    let cancel = incident.stage().cancel().clone();
    let playing = std::thread::spawn(move || (incident.play(), incident));
    std::thread::sleep(Duration::from_millis(700));
    let begin = Instant::now();
    cancel.cancel();
    let Ok((outcome, incident)) = playing.join() else { anyhow::bail!("play() panicked") };
    ensure!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    ensure!(begin.elapsed() < Duration::from_secs(2), "it took {:?}", begin.elapsed());
    drop(incident);
    Ok(())
}

#[test]
fn no_actor_outlives_a_killed_parent_or_ctrl_c() -> Result<()> {
    for (variant, signal) in
        [("basic", Signal::SIGINT), ("stopped", Signal::SIGKILL), ("basic", Signal::SIGKILL)]
    {
        let mut parent = Command::new(executable()?)
            .args(["accept-overflow", "--variant", variant])
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let began = Instant::now();
        let mut actors = BTreeSet::new();
        while actors.len() < 3 && began.elapsed() < Duration::from_secs(30) && parent.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(20));
            actors = actors_of(parent.id())?;
        }
        if parent.try_wait()?.is_some_and(|status| !status.success()) {
            println!("skipped: namespaces are not permitted");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(800));
        let pid = Pid::from_raw(i32::try_from(parent.id())?);
        if signal == Signal::SIGINT {
            killpg(pid, signal)?;
        } else {
            kill(pid, signal)?;
        }
        parent.wait()?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while actors.iter().any(|&pid| is_alive(pid)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        ensure!(actors.len() == 3, "{actors:?}");
        ensure!(!actors.iter().any(|&pid| is_alive(pid)), "{variant}: actors have outlived {signal}");
    }
    Ok(())
}

fn actors_of(parent: u32) -> Result<BTreeSet<u32>> {
    let mut actors = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        // A thread's children: actors are the children of the thread that lives in the namespace.
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        actors.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(actors)
}

#[test]
fn names_are_checked() -> Result<()> {
    let refused = |name: &str, variant: Option<&str>| {
        let options = Options { variant: variant.map(str::to_owned), ..Options::default() };
        matches!(incident(name, &options), Err(Error::Usage(_)))
    };
    ensure!(refused("accept-underflow", None) && refused("port-grab", Some("gentle")));
    let cookies_only = Options { syncookies: Some(2), ..Options::default() };
    ensure!(matches!(incident("backlog-capture", &cookies_only), Err(Error::Usage(_))));
    ensure!("5".parse::<Family>().is_err() && "mapped".parse::<Family>()? == Family::Mapped);
    for entry in catalogue() {
        let names: BTreeSet<_> = entry.variants.iter().map(|variant| variant.name).collect();
        ensure!(
            names.len() == entry.variants.len() && !names.is_empty(),
            "{}: variants are told apart by name",
            entry.name
        );
    }
    Ok(())
}
