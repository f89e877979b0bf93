//! What each verdict rests on, and which other explanations fit and how each is excluded. `docs/why.md` has the same table, and a
//! test compares them.

use crate::finding::{Apart, CauseRule};

/// What a verdict rests on that a finding gives.
const FINDING: &str = "the finding of that name was reported about this listener while it was watched, with this confidence (see its page)";

/// All verdicts.
pub const VERDICTS: &[CauseRule] = &[
    CauseRule {
        code: "no-address",
        means: "the name stands for no address",
        certain: Some("getaddrinfo found none"),
        likely: Some(
            "the same, and the client's namespace is another one: its processes may have other files (/etc/resolv.conf, /etc/hosts) than tcptrace",
        ),
        possible: None,
        told_apart: &[Apart {
            from: "a name server that cannot be reached",
            by: "the error of getaddrinfo, which is printed",
        }],
    },
    CauseRule {
        code: "no-route",
        means: "the client's namespace has no route to the address",
        certain: Some("the kernel's own answer (rtnetlink), policy rules included"),
        likely: Some("the same, and BPF programs of the control group may change what is connected to"),
        possible: None,
        told_apart: &[Apart {
            from: "a host that does not answer",
            by: "no packet leaves: connect() fails at once",
        }],
    },
    CauseRule {
        code: "blackhole-route",
        means: "a blackhole route of the client swallows the packets",
        certain: Some("the kernel's own answer (rtnetlink)"),
        likely: Some("the same, and BPF programs of the control group may change what is connected to"),
        possible: None,
        told_apart: &[Apart { from: "a firewall", by: "the route's type" }],
    },
    CauseRule {
        code: "unreachable-route",
        means: "an unreachable route of the client refuses the address",
        certain: Some("the kernel's own answer (rtnetlink)"),
        likely: Some("the same, and BPF programs of the control group may change what is connected to"),
        possible: None,
        told_apart: &[Apart { from: "an ICMP message of a router", by: "the route's type" }],
    },
    CauseRule {
        code: "prohibit-route",
        means: "a prohibit route of the client forbids the address",
        certain: Some("the kernel's own answer (rtnetlink)"),
        likely: Some("the same, and BPF programs of the control group may change what is connected to"),
        possible: None,
        told_apart: &[Apart { from: "an ICMP message of a firewall", by: "the route's type" }],
    },
    CauseRule {
        code: "not-unicast",
        means: "the address is a broadcast or multicast address",
        certain: Some("the kernel's own answer (rtnetlink)"),
        likely: None,
        possible: None,
        told_apart: &[Apart {
            from: "a unicast address that looks like one",
            by: "the kernel's table decides, not the number",
        }],
    },
    CauseRule {
        code: "translation-target-gone",
        means: "connections are translated to an address that no namespace has any more",
        certain: None,
        likely: Some(
            "a rule or a tracked connection gives the address, it is on a link of the namespace that translates, no namespace of this host has it, and connects get no answer (an RST would be one)",
        ),
        possible: None,
        told_apart: &[
            Apart {
                from: "another host on that link that is down",
                by: "nothing excludes it: the neighbour table, and who had the address, tell",
            },
            Apart { from: "a namespace that may not be looked into", by: "`missing:` names it" },
        ],
    },
    CauseRule {
        code: "no-route-back",
        means: "the server's namespace has no route to the client",
        certain: Some(
            "the kernel's own answer (rtnetlink) in the server's namespace, for the address that the client takes",
        ),
        likely: Some(
            "the same, and connections are translated on the way, so the client's address may be as well; or it is not sure that the server is this namespace",
        ),
        possible: None,
        told_apart: &[Apart {
            from: "a source that is translated on the way",
            by: "an acceptance that was seen excludes it; without one, not certain where connections are translated",
        }],
    },
    CauseRule {
        code: "listener-exited",
        means: "a listener was there and has gone",
        certain: Some(
            "it was seen to close, or was there when the watch began and not in the end, and nothing leads connections elsewhere",
        ),
        likely: Some(
            "only connections of it are left; or not everything that may lead connections elsewhere could be looked into",
        ),
        possible: Some("a rule or program may lead connections elsewhere"),
        told_apart: &[
            Apart {
                from: "a listener that is replaced at a restart",
                by: "listeners are looked for again in the end",
            },
            Apart {
                from: "clients' own connections from that port",
                by: "not claimed in the ephemeral range",
            },
        ],
    },
    CauseRule {
        code: "wrong-address",
        means: "a process listens on another address of the namespace only",
        certain: Some(
            "all listeners of the namespace were listed, and no rule or program leads connections elsewhere",
        ),
        likely: Some(
            "listeners or rules could not all be read, or a rule that was read leads connections there",
        ),
        possible: Some("a rule or program may lead connections elsewhere"),
        told_apart: &[
            Apart {
                from: "a translation to that listener",
                by: "rules, IPVS, sk_lookup and connect programs are looked at",
            },
            Apart { from: "a listener that has gone", by: "it is there, at the other address" },
        ],
    },
    CauseRule {
        code: "other-device",
        means: "a process listens, bound to a device that connections do not come by",
        certain: Some(
            "from the server's own namespace: connections come by the loopback device, and nothing leads them elsewhere; or the finding `no-listener` with that cause was certain",
        ),
        likely: Some(
            "from another namespace: the device of the route back is another one; or listeners or rules could not all be read",
        ),
        possible: Some("a rule or program may lead connections elsewhere"),
        told_apart: &[
            Apart { from: "a listener at another address", by: "its address takes the called one" },
            Apart {
                from: "a device of a VRF",
                by: "the device that connections come by may belong to the listener's",
            },
            Apart {
                from: "SYNs that come by another device than the route back",
                by: "nothing excludes it: likely at most, unless they were seen to arrive",
            },
        ],
    },
    CauseRule {
        code: "other-family",
        means: "a process listens for the other address family only",
        certain: Some("as for `wrong-address`"),
        likely: Some("as for `wrong-address`"),
        possible: Some("as for `wrong-address`"),
        told_apart: &[Apart { from: "IPv4 by an IPv6 socket", by: "IPV6_V6ONLY is read" }],
    },
    CauseRule {
        code: "other-netns",
        means: "a process of another network namespace listens on that port",
        certain: None,
        likely: Some(
            "no listener in the server's namespace, one in another that would take the connection there",
        ),
        possible: Some("a rule or program may lead connections elsewhere"),
        told_apart: &[
            Apart {
                from: "a port that is published by translation",
                by: "rules, IPVS, sk_lookup and connect programs are looked at; with `--probe`, the tuple that connection tracking keeps",
            },
            Apart {
                from: "a server that has nothing to do with it",
                by: "nothing excludes it: never certain",
            },
        ],
    },
    CauseRule {
        code: "bound-not-listening",
        means: "a socket is bound to the port and does not listen",
        certain: Some("the kernel lists it, and no rule or program leads connections elsewhere"),
        likely: Some("listeners or rules could not all be read"),
        possible: Some("a rule or program may lead connections elsewhere"),
        told_apart: &[Apart { from: "a client's socket", by: "the called port is its local port" }],
    },
    CauseRule {
        code: "no-listener",
        means: "no process listens on the port",
        certain: Some(
            "all listeners of the server's namespace were listed, no rule, IPVS service, sk_lookup or connect program leads connections elsewhere, and no connection was set up",
        ),
        likely: Some(
            "listeners, rules or programs could not all be read; connections are led there by a rule that was only read; programs at a device may rewrite packets; or it is not sure that the server is this namespace",
        ),
        possible: Some(
            "a rule or program may lead connections elsewhere, or a connection was set up all the same",
        ),
        told_apart: &[
            Apart {
                from: "a port that is translated, redirected or proxied",
                by: "everything that may do so is read; with `--probe` an answer outweighs it, and the tuple of connection tracking gives the other end",
            },
            Apart {
                from: "a firewall that answers by RST",
                by: "no listener is there whatever the firewall does",
            },
            Apart {
                from: "another host, or another namespace, with the same address",
                by: "from another namespace: the link-layer address that the client knows is one of the server's; likely at most where that is not so",
            },
            Apart {
                from: "tc or XDP programs that rewrite addresses",
                by: "programs and filters at the devices of the way are looked for: likely at most where there are any",
            },
        ],
    },
    CauseRule {
        code: "handshake-dropped",
        means: "a packet of the handshake is dropped inside this host",
        certain: Some(FINDING),
        likely: Some(FINDING),
        possible: Some("others are kept out, and our own connection was set up"),
        told_apart: &[Apart {
            from: "packets that are lost outside",
            by: "the kernel was seen to drop them here",
        }],
    },
    CauseRule {
        code: "nfqueue-held",
        means: "a netfilter queue holds the SYNs: its program does not answer for them",
        certain: None,
        likely: Some(
            "SYNs are sent again, the listener has room, and packets wait in a queue of one of the ends",
        ),
        possible: None,
        told_apart: &[
            Apart {
                from: "a queue that no program reads",
                by: "the kernel drops what it cannot queue, and that drop is seen",
            },
            Apart { from: "other packets in the same queue", by: "nothing: whose packets wait is not shown" },
        ],
    },
    CauseRule {
        code: "rp-filter",
        means: "the reverse-path filter drops the SYNs",
        certain: None,
        likely: Some("its counter grew while SYNs went unanswered, and the listener has room"),
        possible: Some(
            "its counter grew, and these SYNs were answered, or a full queue explains their silence",
        ),
        told_apart: &[
            Apart { from: "a firewall", by: "the counter `IPReversePathFilter` counts nothing else" },
            Apart {
                from: "packets for another server of the namespace",
                by: "nothing: the counter is the namespace's; a drop that was seen for this one is `handshake-dropped`",
            },
        ],
    },
    CauseRule {
        code: "dropped-on-this-host",
        means: "both ends are on this host, the listener has room, and SYNs go unanswered: this host drops them",
        certain: None,
        likely: Some(
            "our own SYN had no answer, or others' SYNs were sent again, at any time of the watch; no queue of the listener was full then",
        ),
        possible: Some("the same, while other connections are established"),
        told_apart: &[
            Apart { from: "a full queue", by: "depth and limit at each look, and the findings of that time" },
            Apart { from: "a loss outside", by: "both ends are on this host" },
            Apart {
                from: "which part of this host it is: firewall, NFQUEUE, control group filter, socket filter or MD5 key, tc, XDP",
                by: "nothing excludes any; `handshake-dropped` says so where the probes see it",
            },
        ],
    },
    CauseRule {
        code: "rejected",
        means: "a SYN is refused though the listener is there",
        certain: None,
        likely: Some(
            "our own connection was refused, and the listener was there when the watch began and in the end",
        ),
        possible: None,
        told_apart: &[Apart {
            from: "a listener that was not there at that moment",
            by: "the listeners of before and after are the same; a short gap is left open",
        }],
    },
    CauseRule {
        code: "firewall-rule",
        means: "a rule of a firewall of this host ends every SYN of the client's, whether or not one was sent",
        certain: None,
        likely: Some(
            "the rules were read; one matches every SYN from the client's address to it in all that it asks for, no rule before it may let one pass, and it drops, rejects, or hands to a queue that no program reads; no SYN was seen to arrive meanwhile",
        ),
        possible: None,
        told_apart: &[
            Apart {
                from: "a rule that was made or deleted a moment ago",
                by: "nothing excludes it: `--probe` sends a SYN, whose drop is then seen",
            },
            Apart {
                from: "a packet that meets other rules (by its source port, a mark, or another address of the client)",
                by: "a rule that asks for what is not known of a SYN is not claimed",
            },
        ],
    },
    CauseRule {
        code: "half-open-capture",
        means: "the handshakes of others stay half-open",
        certain: Some(FINDING),
        likely: Some(FINDING),
        possible: Some(FINDING),
        told_apart: &[Apart { from: "see the finding's page", by: "docs/findings/half-open-capture.md" }],
    },
    CauseRule {
        code: "syn-queue-full",
        means: "the SYN queue is full, and SYNs are not answered by cookies",
        certain: Some(
            "as many half-open requests as the limit, and tcp_syncookies=0; or the finding of that name was certain",
        ),
        likely: Some("the same, and tcp_syncookies could not be read"),
        possible: Some(FINDING),
        told_apart: &[
            Apart { from: "a full accept queue", by: "each queue's depth is read" },
            Apart { from: "a SYN queue that is full with cookies", by: "then SYNs are answered: no cause" },
        ],
    },
    CauseRule {
        code: "return-path",
        means: "SYN-ACKs or final ACKs are lost on the way",
        certain: None,
        likely: None,
        possible: Some("half of the requests, and at least three, had their SYN-ACK sent again"),
        told_apart: &[Apart {
            from: "clients that give up, or a flood",
            by: "nothing excludes it: watch longer",
        }],
    },
    CauseRule {
        code: "accept-queue-full",
        means: "the accept queue is full, so SYNs and final ACKs are dropped",
        certain: Some("depth above the limit of every listener at the last look"),
        likely: Some("the same for some of several listeners; or at any look of the watch"),
        possible: None,
        told_apart: &[
            Apart {
                from: "a stopped program, or one at its limit of files",
                by: "its state and its descriptors are read, and are then the verdict",
            },
            Apart {
                from: "a queue that was full for a moment without loss",
                by: "where the probes count drops, there was one, or the socket's own count grew while it was looked at",
            },
        ],
    },
    CauseRule {
        code: "accept-queue-overflow",
        means: "connections were dropped at a full accept queue",
        certain: Some(FINDING),
        likely: Some(FINDING),
        possible: Some(FINDING),
        told_apart: &[Apart { from: "see the finding's page", by: "docs/findings/accept-queue-overflow.md" }],
    },
    CauseRule {
        code: "process-stopped",
        means: "all owners of the listener are stopped",
        certain: Some("a signal has stopped all their threads (state `T`)"),
        likely: Some(
            "the same for some of several listeners; or a tracer has (state `t`), which may be for a moment; or it is not sure that the server is this namespace",
        ),
        possible: None,
        told_apart: &[
            Apart { from: "a program that is busy or blocked", by: "the state is `T` or `t`" },
            Apart {
                from: "a program that was stopped after it accepted",
                by: "an acceptance by it would be a contradiction, and is said to be one",
            },
        ],
    },
    CauseRule {
        code: "fd-limit",
        means: "an owner has as many files open as it may, so accept() fails",
        certain: Some(
            "as many descriptors below the limit are open as there are, it is the only owner, and connections wait",
        ),
        likely: Some("other owners may still accept, or nothing waits"),
        possible: Some("it was so when the watch began, and is not any more"),
        told_apart: &[Apart {
            from: "a program that does not call accept()",
            by: "its descriptors are at the limit: the call cannot succeed",
        }],
    },
    CauseRule {
        code: "process-blocked",
        means: "connections wait while threads of the owner are in uninterruptible sleep",
        certain: None,
        likely: Some("a connection was not accepted for a second, and threads are in that state"),
        possible: None,
        told_apart: &[Apart {
            from: "a thread that has nothing to do with accepting",
            by: "nothing excludes it: its kernel stack tells",
        }],
    },
    CauseRule {
        code: "not-accepting",
        means: "the kernel completes handshakes, and no process takes them",
        certain: Some(
            "our own connection was not accepted for a second, others waited at every look of the watch, the queue never became shorter, and no acceptance was seen",
        ),
        likely: Some(
            "our own connection was not accepted for a second; or others have waited for a second without a sign of their clients",
        ),
        possible: None,
        told_apart: &[
            Apart {
                from: "a program that is stopped, or at its limit of files",
                by: "its state and its descriptors are read first",
            },
            Apart {
                from: "a program that is slow",
                by: "no acceptance was seen meanwhile; if one was, this is not claimed",
            },
            Apart {
                from: "a listener that waits for data (TCP_DEFER_ACCEPT)",
                by: "its requests are half-open, and not in the accept queue",
            },
            Apart {
                from: "a program that has chosen not to accept (its own limit of connections)",
                by: "what its threads do is said; its own limits tell",
            },
        ],
    },
    CauseRule {
        code: "accept-stall",
        means: "connections wait, and no process accepts",
        certain: Some(FINDING),
        likely: Some(FINDING),
        possible: Some(FINDING),
        told_apart: &[Apart { from: "see the finding's page", by: "docs/findings/accept-stall.md" }],
    },
    CauseRule {
        code: "accept-failed",
        means: "accept() fails",
        certain: Some(FINDING),
        likely: Some(FINDING),
        possible: Some(FINDING),
        told_apart: &[Apart { from: "see the finding's page", by: "docs/findings/accept-failed.md" }],
    },
    CauseRule {
        code: "slow-accept",
        means: "connections wait long before they are accepted",
        certain: Some(FINDING),
        likely: Some(FINDING),
        possible: Some(FINDING),
        told_apart: &[Apart { from: "see the finding's page", by: "docs/findings/slow-accept.md" }],
    },
    CauseRule {
        code: "reuseport-imbalance",
        means: "one of several listeners is stuck or takes too much",
        certain: Some(FINDING),
        likely: Some(FINDING),
        possible: Some(FINDING),
        told_apart: &[Apart { from: "see the finding's page", by: "docs/findings/reuseport-imbalance.md" }],
    },
    CauseRule {
        code: "answers",
        means: "a program serves: connections are accepted",
        certain: Some(
            "our own connection was set up, and was accepted by a process (its socket there has a file) and not closed at once, or the program sent data",
        ),
        likely: Some(
            "our own connection was set up, and its other end is not on this host; or others' connections were accepted while this was watched",
        ),
        possible: Some("connections to it are established"),
        told_apart: &[
            Apart {
                from: "a kernel that completes handshakes for a program that does not accept",
                by: "the other end is followed by the tuple that connection tracking keeps, through every namespace, until it has a file",
            },
            Apart { from: "a connection to itself", by: "its two ends are compared" },
        ],
    },
    CauseRule {
        code: "closed-at-once",
        means: "a program accepts the connection, and closes it without a byte",
        certain: None,
        likely: Some("our own connection was closed by its other end within the watch, and nothing was sent"),
        possible: None,
        told_apart: &[
            Apart { from: "a program that serves", by: "it would wait for the client to ask" },
            Apart {
                from: "a limit of the program, a client that it refuses, a proxy whose own server fails, a protocol that ends so",
                by: "nothing excludes any: its log tells",
            },
        ],
    },
    CauseRule {
        code: "no-answer",
        means: "SYNs to another host stay without an answer",
        certain: Some(
            "our own SYN had no answer until `--timeout`, and no packet was seen to be dropped on this host, where that is seen; or the finding `syn-unanswered` was certain",
        ),
        likely: Some(
            "the same where drops are not seen, or programs at a device may drop packets; or others' SYNs were sent again, and none is answered",
        ),
        possible: Some(FINDING),
        told_apart: &[Apart {
            from: "whether the SYN or its answer is lost, or a firewall there drops it",
            by: "nothing excludes any: ask there",
        }],
    },
    CauseRule {
        code: "refused",
        means: "connects are refused, and the server is none of this host",
        certain: Some("our own connection was refused; or the finding `connect-refused` was certain"),
        likely: Some(FINDING),
        possible: Some(FINDING),
        told_apart: &[Apart {
            from: "whether no process listens there, or a firewall rejects it there, on the way or on this host",
            by: "nothing excludes either: ask there",
        }],
    },
    CauseRule {
        code: "reset",
        means: "the connection was set up, and then reset by its other end",
        certain: None,
        likely: Some("our own connection was reset within the watch"),
        possible: None,
        told_apart: &[Apart {
            from: "a listener that was closed, a program that aborts, a middlebox",
            by: "nothing excludes any: the server's log tells",
        }],
    },
    CauseRule {
        code: "unreachable",
        means: "connects fail with an error of a host on the way",
        certain: Some(
            "our own connection failed with this error; or the finding `syn-unanswered` was certain and has it",
        ),
        likely: Some(FINDING),
        possible: Some(FINDING),
        told_apart: &[Apart {
            from: "a firewall that rejects by ICMP",
            by: "nothing excludes it: the last hop that answers tells",
        }],
    },
    CauseRule {
        code: "nothing-arrives",
        means: "no SYN arrives at the listener",
        certain: None,
        likely: None,
        possible: Some("arrivals are observed, and there was none"),
        told_apart: &[Apart {
            from: "no client tries",
            by: "nothing excludes it: `--probe`, or a client that tries meanwhile",
        }],
    },
    CauseRule {
        code: "contradiction",
        means: "two looks cannot both be right",
        certain: Some("an acceptance was seen, and a certain problem excludes it"),
        likely: None,
        possible: None,
        told_apart: &[Apart {
            from: "a change between the two looks",
            by: "nothing excludes it: run it again",
        }],
    },
    CauseRule {
        code: "no-fault-found",
        means: "nothing is known either way",
        certain: None,
        likely: None,
        possible: Some(
            "nothing is wrong as far as it could be looked at, and no connection was seen to be accepted or to fail",
        ),
        told_apart: &[Apart {
            from: "every cause outside this host, or that was not looked at",
            by: "`--probe`, or a client that tries during a longer `--for`",
        }],
    },
];

/// Problems that a connection that was accepted excludes.
const EXCLUDED_BY_ACCEPTANCE: &[&str] = &[
    "no-route",
    "blackhole-route",
    "unreachable-route",
    "prohibit-route",
    "not-unicast",
    "translation-target-gone",
    "no-route-back",
    "listener-exited",
    "wrong-address",
    "other-device",
    "other-family",
    "other-netns",
    "bound-not-listening",
    "no-listener",
    "process-stopped",
    "not-accepting",
];

/// Whether an acceptance that was seen excludes this problem.
pub(super) fn is_excluded_by_acceptance(verdict: &str) -> bool {
    EXCLUDED_BY_ACCEPTANCE.contains(&verdict)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    const BEGIN: &str =
        "<!-- evidence: written from the code by TCPTRACE_BLESS=1 cargo test -p tcptrace why::rules -->";
    const END: &str = "<!-- end of evidence -->";

    #[test]
    fn every_verdict_is_declared_once_and_is_told_apart_from_something() {
        let codes: BTreeSet<&str> = VERDICTS.iter().map(|rule| rule.code).collect();
        assert_eq!(codes.len(), VERDICTS.len());
        for rule in VERDICTS {
            assert!(!rule.told_apart.is_empty(), "{}", rule.code);
            assert!([rule.certain, rule.likely, rule.possible].iter().any(Option::is_some), "{}", rule.code);
        }
        for excluded in EXCLUDED_BY_ACCEPTANCE {
            assert!(codes.contains(excluded), "{excluded}");
        }
    }

    #[test]
    fn the_page_says_what_verdicts_rest_on() {
        let mut tables =
            String::from("| verdict | confidence | claimed when this was observed |\n|---|---|---|\n");
        for rule in VERDICTS {
            let levels = [("certain", rule.certain), ("likely", rule.likely), ("possible", rule.possible)];
            for (confidence, observed) in levels {
                if let Some(observed) = observed {
                    let _ = writeln!(tables, "| `{}` | {confidence} | {observed} |", rule.code);
                }
            }
        }
        tables.push_str("\n| verdict | told apart from | by |\n|---|---|---|\n");
        for rule in VERDICTS {
            for apart in rule.told_apart {
                let _ = writeln!(tables, "| `{}` | {} | {} |", rule.code, apart.from, apart.by);
            }
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/why.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = (page.find(BEGIN).unwrap(), page.find(END).unwrap());
        let wanted = format!("{}{BEGIN}\n\n{tables}\n{}", &page[..begin], &page[end..]);
        if std::env::var_os("TCPTRACE_BLESS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        } else {
            assert!(page == wanted, "docs/why.md: TCPTRACE_BLESS=1 cargo test -p tcptrace why::rules");
        }
    }
}
