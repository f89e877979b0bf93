//! `tcptrace why` gives each cause its verdict, in namespaces made here. Needs root and iproute2; without them a test says so.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Runs `test` on a thread in a namespace of its own with `lo` up, or says why it cannot.
fn in_private_namespace(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let run = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("skipped: no private network namespace here ({errno}); run as root");
            return Ok(());
        }
        if !ip("link set lo up") {
            println!("skipped: no iproute2");
            return Ok(());
        }
        test()
    });
    run.join().map_err(|_| anyhow::anyhow!("the test panicked"))?
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

/// The verdict, from the calling thread's namespace (a child inherits it).
fn why(target: &str, arguments: &[&str]) -> Result<(String, bool, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(["why", target, "--json"])
        .args(arguments)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let summary: Value = serde_json::from_str(last)?;
    let healthy = summary.get("healthy") == Some(&Value::Bool(true));
    ensure!(output.status.code() == Some(i32::from(!healthy)), "{:?}: {text}", output.status);
    Ok((summary.get("verdict").and_then(Value::as_str).context("a verdict")?.to_owned(), healthy, text))
}

fn expect(target: &str, arguments: &[&str], verdict: &str) -> Result<String> {
    let (found, healthy, text) = why(target, arguments)?;
    ensure!(found == verdict, "{target}: {verdict} was expected: {text}");
    ensure!(healthy == (verdict == "answers"), "{text}");
    Ok(text)
}

struct Server(Child);

impl Server {
    /// A server that binds, listens and then does nothing.
    fn new(python: &str) -> Option<Self> {
        let script = format!("import socket,time\n{python}\nprint('up',flush=True)\ntime.sleep(60)");
        let mut child = Command::new("python3")
            .args(["-c", &script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .ok()?;
        let mut up = [0; 2];
        std::io::Read::read_exact(child.stdout.as_mut()?, &mut up).ok()?;
        Some(Self(child))
    }

    fn stop(&self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGSTOP)?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const STATIC: &[&str] = &["--for", "0s"];
const PROBE: &[&str] = &["--probe", "--timeout", "1500ms"];

#[test]
fn who_listens_where() -> Result<()> {
    in_private_namespace(|| {
        ensure!(ip("addr add 10.9.9.1/24 dev lo") && ip("addr add fd99::1/64 dev lo nodad"));
        expect("127.0.0.1:5391", STATIC, "no-listener")?;
        expect("127.0.0.1:5391", PROBE, "no-listener")?;

        let v4 = TcpListener::bind("127.0.0.1:5391")?;
        expect("10.9.9.1:5391", STATIC, "wrong-address")?;
        expect("[fd99::1]:5391", STATIC, "other-family")?;
        expect("127.0.0.1:5391", PROBE, "answers")?;
        drop(v4);

        let v6 = TcpListener::bind("[fd99::1]:5391")?;
        expect("10.9.9.1:5391", STATIC, "other-family")?;
        expect("[::1]:5391", STATIC, "wrong-address")?;
        drop(v6);

        let both = TcpListener::bind("[::]:5391")?;
        expect("10.9.9.1:5391", PROBE, "answers")?;
        // Something did listen until lately: its connections are left.
        let client = TcpStream::connect("127.0.0.1:5391")?;
        let (accepted, _) = both.accept()?;
        drop(both);
        expect("127.0.0.1:5391", STATIC, "listener-exited")?;
        drop((client, accepted));
        Ok(())
    })
}

#[test]
fn bound_v6only_and_elsewhere() -> Result<()> {
    in_private_namespace(|| {
        let v6only = Server::new(
            "s=socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,1); s.bind(('::',5392)); s.listen(5)",
        );
        let Some(v6only) = v6only else {
            println!("skipped: no python3");
            return Ok(());
        };
        let text = expect("127.0.0.1:5392", STATIC, "other-family")?;
        ensure!(text.contains("IPV6_V6ONLY"), "{text}");
        // Another namespace: what listens here is not there.
        let (from_elsewhere, ours) = (
            std::thread::spawn(|| -> Result<()> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                ensure!(ip("link set lo up"));
                expect("127.0.0.1:5392", STATIC, "other-netns")?;
                Ok(())
            }),
            v6only,
        );
        from_elsewhere.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        drop(ours);
        let bound = Server::new("s=socket.socket(); s.bind(('127.0.0.1',5393))").context("python3")?;
        let (verdict, ..) = why("127.0.0.1:5393", STATIC)?;
        // Kernels before 6.8 do not list it.
        ensure!(["bound-not-listening", "no-listener"].contains(&verdict.as_str()), "{verdict}");
        drop(bound);
        Ok(())
    })
}

#[test]
fn full_and_stopped() -> Result<()> {
    in_private_namespace(|| {
        let Some(server) = Server::new("s=socket.socket(); s.bind(('127.0.0.1',5394)); s.listen(2)") else {
            println!("skipped: no python3");
            return Ok(());
        };
        let waiting: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect("127.0.0.1:5394")).collect::<Result<_, _>>()?;
        let text = expect("127.0.0.1:5394", STATIC, "accept-queue-full")?;
        ensure!(text.contains("listen() argument"), "{text}");
        expect("127.0.0.1:5394", PROBE, "accept-queue-full")?;
        server.stop()?;
        let text = expect("127.0.0.1:5394", STATIC, "process-stopped")?;
        ensure!(text.contains(&format!("kill -CONT {}", server.0.id())), "{text}");
        drop(waiting);
        Ok(())
    })
}

#[test]
fn routes_and_names() -> Result<()> {
    in_private_namespace(|| {
        expect("192.0.2.1:80", STATIC, "no-route")?;
        expect("[2001:db8::1]:80", STATIC, "no-route")?;
        ensure!(ip("route add blackhole 192.0.2.2") && ip("route add prohibit 192.0.2.3"));
        ensure!(ip("route add unreachable 192.0.2.4"));
        expect("192.0.2.2:80", STATIC, "blackhole-route")?;
        expect("192.0.2.3:80", STATIC, "prohibit-route")?;
        expect("192.0.2.4:80", STATIC, "unreachable-route")?;
        expect("no-such-host.invalid:80", STATIC, "no-address")?;
        let usage = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(["why", "localhost"]).output()?;
        ensure!(usage.status.code() == Some(2), "{usage:?}");
        Ok(())
    })
}

/// A device behind which nobody has the address: SYNs are lost outside, as far as this host can tell.
#[test]
fn unanswered_outside() -> Result<()> {
    in_private_namespace(|| {
        // What goes out of v0 comes in by v1, where the address is not ours: dropped.
        if !ip("link add v0 type veth peer name v1") {
            println!("skipped: no veth devices here");
            return Ok(());
        }
        ensure!(ip("addr add 10.9.8.1/24 dev v0") && ip("link set v0 up") && ip("link set v1 up"));
        ensure!(ip("neigh add 10.9.8.2 lladdr 02:00:00:00:00:09 dev v0"));
        expect("10.9.8.2:5395", STATIC, "no-fault-found")?;
        let start = Instant::now();
        expect("10.9.8.2:5395", PROBE, "no-answer")?;
        ensure!(start.elapsed() >= Duration::from_millis(1500));
        // Somebody else's connection says the same without one of our own, as soon as its SYN was sent again.
        let client = std::thread::spawn(|| {
            TcpStream::connect_timeout(&"10.9.8.2:5395".parse().unwrap(), Duration::from_secs(8)).is_ok()
        });
        std::thread::sleep(Duration::from_millis(2500));
        expect("10.9.8.2:5395", STATIC, "no-answer")?;
        ensure!(!client.join().map_err(|_| anyhow::anyhow!("panicked"))?);
        Ok(())
    })
}

/// A queue discipline or rule on this host that drops what goes to a listener with room.
#[test]
fn dropped_or_rejected_by_a_firewall() -> Result<()> {
    in_private_namespace(|| {
        let nft = |rule: &str| Command::new("nft").arg(rule).status().is_ok_and(|status| status.success());
        let base = "table inet t { chain c { type filter hook input priority 0; }; }";
        if !nft(&format!("add {base}")) {
            println!("skipped: no nft here");
            return Ok(());
        }
        let server = TcpListener::bind("127.0.0.1:5396")?;
        expect("127.0.0.1:5396", PROBE, "answers")?;
        ensure!(nft("add rule inet t c tcp dport 5396 drop"));
        let (verdict, healthy, text) = why("127.0.0.1:5396", PROBE)?;
        ensure!(
            ["dropped-on-this-host", "handshake-dropped"].contains(&verdict.as_str()) && !healthy,
            "{text}"
        );
        ensure!(nft("flush chain inet t c") && nft("add rule inet t c tcp dport 5396 reject with tcp reset"));
        let (verdict, _, text) = why("127.0.0.1:5396", PROBE)?;
        ensure!(["rejected", "handshake-dropped"].contains(&verdict.as_str()), "{text}");
        drop(server);
        Ok(())
    })
}

/// Clients whose SYN-ACKs are lost, and a server without cookies.
#[test]
fn a_full_syn_queue() -> Result<()> {
    in_private_namespace(|| {
        let nft = |rule: &str| Command::new("nft").arg(rule).status().is_ok_and(|status| status.success());
        if !nft("add table inet t { chain c { type filter hook output priority 0; }; }") {
            println!("skipped: no nft here");
            return Ok(());
        }
        ensure!(nft("add rule inet t c tcp sport 5398 drop"));
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "0")?;
        let Some(_server) = Server::new("s=socket.socket(); s.bind(('127.0.0.1',5398)); s.listen(2)") else {
            println!("skipped: no python3");
            return Ok(());
        };
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let to = "127.0.0.1:5398".parse();
                std::thread::spawn(move || {
                    to.map(|to| TcpStream::connect_timeout(&to, Duration::from_secs(8)))
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(1500));
        let text = expect("127.0.0.1:5398", STATIC, "syn-queue-full")?;
        ensure!(text.contains("tcp_syncookies=0"), "{text}");
        // With cookies a full SYN queue is no reason.
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "1")?;
        let (verdict, ..) = why("127.0.0.1:5398", STATIC)?;
        ensure!(verdict != "syn-queue-full", "{verdict}");
        for client in clients {
            let _ = client.join();
        }
        Ok(())
    })
}

/// Two namespaces of one host: the server's filters by reverse path what comes from an address that it would answer elsewhere.
#[test]
fn filtered_by_reverse_path() -> Result<()> {
    in_private_namespace(|| {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let server = std::thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            ensure!(ip("link set lo up"));
            let mut inhabitant = Command::new("sleep").arg("60").spawn()?;
            tell.send(inhabitant.id())?;
            // The veth end has been moved here.
            while !ip("link set vb up") {
                std::thread::sleep(Duration::from_millis(50));
            }
            ensure!(ip("addr add 10.9.7.2/32 dev vb"));
            let listener = TcpListener::bind("0.0.0.0:5397")?;
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0")?;
            std::fs::write("/proc/sys/net/ipv4/conf/vb/rp_filter", "0")?;
            ensure!(ip("route add 10.9.7.1/32 dev vb"));
            tell.send(0)?;
            let _ = ended.recv();
            // From now on its answers would go another way.
            ensure!(ip("route del 10.9.7.1/32 dev vb") && ip("route add 10.9.7.1/32 dev lo"));
            std::fs::write("/proc/sys/net/ipv4/conf/vb/rp_filter", "1")?;
            tell.send(0)?;
            let _ = ended.recv();
            drop(listener);
            inhabitant.kill()?;
            inhabitant.wait()?;
            Ok(())
        });
        let pid = told.recv()?;
        ensure!(ip(&format!("link add va type veth peer name vb netns {pid}")), "veth");
        ensure!(
            ip("addr add 10.9.7.1/32 dev va") && ip("link set va up") && ip("route add 10.9.7.2/32 dev va")
        );
        told.recv()?;
        let text = expect("10.9.7.2:5397", PROBE, "answers")?;
        ensure!(text.contains("it is an address of network namespace"), "{text}");
        end.send(())?;
        told.recv()?;
        let (verdict, healthy, text) = why("10.9.7.2:5397", PROBE)?;
        end.send(())?;
        ensure!(["rp-filter", "handshake-dropped"].contains(&verdict.as_str()) && !healthy, "{text}");
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    })
}
