//! Per-listener state kept in the kernel and read once a second.

/// The table of what is counted of each listener: name, unit and meaning of every count, declared here and nowhere else.
///
/// Hands it to the macro `$then`. [`ListenerState`] is made from it, and so are user space's totals, the columns of a recording and
/// their documentation. All only grow. The unit is one SYN, ACK, request or connection, unless the name ends in another (`_ns`).
/// The order is that of the members in the kernel's map.
#[macro_export]
macro_rules! listener_counters {
    ($then:ident) => {
        $then! {
            /// SYNs that reached the listener (`tcp_conn_request`), retransmitted ones included.
            syns,
            /// SYNs dropped because the accept queue was full.
            syn_drops_accept_queue,
            /// SYNs dropped at the SYN-queue check (only with `tcp_syncookies=0`), or for want of memory.
            syn_drops_syn_queue,
            /// SYNs dropped because the rest of `tcp_max_syn_backlog` is kept for known peers (only with `tcp_syncookies=0`).
            syn_drops_max_syn_backlog,
            /// SYNs dropped because there is no route for the answer.
            syn_drops_no_route,
            /// SYNs answered with a cookie (`SyncookiesSent`).
            cookies_sent,
            /// Of these: because the SYN queue was exactly at its limit. If there is one, that is full in this release.
            cookies_at_limit,
            /// SYNs that were granted a cookie and then dropped at a full accept queue, the SYN queue over its limit (or
            /// `tcp_syncookies=2`): `TCPReqQFullDoCookies` counts them.
            cookies_dropped,
            /// The same with the SYN queue exactly at its limit: whether that is full depends on the release.
            cookies_dropped_at_limit,
            /// Valid cookies that came back, also those whose connection was then dropped (`SyncookiesRecv`).
            cookies_valid,
            /// ACKs for no request and with no valid cookie: strays, or cookies that were too old.
            cookies_invalid,
            /// Connections enqueued by a valid cookie; they are among `enqueued`.
            cookies_accepted,
            /// Connections enqueued by their SYN (TCP Fast Open); they are among `enqueued`.
            fast_opens,
            /// SYN-ACKs sent again because no final ACK came.
            retransmits_timer,
            /// SYN-ACKs sent again because the SYN came again.
            retransmits_duplicate_syn,
            /// Half-open requests that ended because their timer ran out for the last time.
            expired,
            /// Half-open requests that the peer reset, by a RST or a SYN inside the window.
            resets,
            /// Half-open requests that we reset at a full accept queue (`net.ipv4.tcp_abort_on_overflow`).
            aborts,
            /// Half-open requests that an ICMP error ended.
            icmp_ends,
            /// Half-open requests that became subflows of MPTCP connections.
            joins,
            /// Half-open requests whose final ACK had come, but no data by their first time-out (`TCP_DEFER_ACCEPT`). Where the
            /// count is polled: how many such requests were in the SYN queue at that moment.
            deferred,
            /// Final ACKs dropped because the accept queue was full. Each data retransmission of the client counts again.
            ack_drops_accept_queue,
            /// Final ACKs dropped for another reason (no route, port not inheritable, memory).
            ack_drops_other,
            /// Children that were made and then not enqueued: another CPU was first, or the listener was just being closed.
            orphans,
            /// Connections put into the accept queue.
            enqueued,
            /// Connections taken from the accept queue.
            accepted,
            /// Sum of the accept waits of `waits` connections, ns.
            wait_total_ns,
            /// How many accepted connections had a known accept wait.
            waits,
        }
    };
}

macro_rules! listener_state {
    ($($(#[$doc:meta])* $count:ident,)*) => {
        /// Counters of one listener since the tracer attached (or since it began to listen, if later).
        ///
        /// Shared between CPUs and changed by atomic adds, so they are exact; `depth_max` and `wait_max_ns` are changed by a
        /// compare-and-store that another CPU can overtake, so either may be low by one observation.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
        pub struct ListenerState {
            $($(#[$doc])* pub $count: u64,)*
            /// Longest accept wait, ns.
            pub wait_max_ns: u64,
            /// When a connection was last accepted (`CLOCK_MONOTONIC`, ns); 0 for never.
            pub last_accept_ns: u64,
            /// When a connection was last enqueued; 0 for never.
            pub last_enqueue_ns: u64,
            /// When a SYN-ACK was last sent again (`CLOCK_MONOTONIC`, ns); 0 for never. For a minute after that, connections
            /// are counted by prefix.
            pub last_retransmit_ns: u64,
            /// Deepest accept queue seen at an enqueue or a drop.
            pub depth_max: u32,
            /// Accept-queue depth when last seen.
            pub depth: u32,
            /// Accept-queue limit (`sk_max_ack_backlog`) when last seen.
            pub limit: u32,
            /// Thread that last accepted.
            pub last_acceptor_tid: u32,
            /// Its process.
            pub last_acceptor_tgid: u32,
            /// Most requests in the SYN queue seen at a drop, a cookie or a retransmission.
            pub syn_queue_max: u32,
            /// Who and where: for listeners that the tracer did not see begin.
            pub endpoints: crate::wire::Endpoints,
            /// Inode number of the listener's file, 0 when it has none.
            pub ino: u64,
            /// For the kernel side alone: threads that were reported as accepting here, by the lowest bits of their ids. The
            /// upper half is the thread, the lower when it was reported, in units of 2^30 ns.
            pub acceptors: [u64; ACCEPTOR_SLOTS],
        }

        const _: () = {
            let counts = [$(stringify!($count)),*].len();
            assert!(size_of::<ListenerState>() == (counts + 4) * 8 + 6 * 4 + 48 + 8 + ACCEPTOR_SLOTS * 8);
        };
    };
}
listener_counters!(listener_state);

/// Accepting threads that a listener keeps apart; a power of two.
pub const ACCEPTOR_SLOTS: usize = 8;

/// Remote networks are told apart by this many bits: IPv4 /24 (an IPv4-mapped address's first 120), IPv6 /64.
pub const PREFIX_BITS_V4: u8 = 24;
/// See [`PREFIX_BITS_V4`].
pub const PREFIX_BITS_V6: u8 = 64;

/// Key of the connections counted by prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct PrefixKey {
    /// The listener's address in memory.
    pub listener: u64,
    /// Remote network: an address with its host bits zero, IPv4 mapped into IPv6.
    pub prefix: [u8; 16],
}
const _: () = assert!(size_of::<PrefixKey>() == 24);

/// Accept waits and handshake times are kept in log-linear buckets: each power of two between 2^[`HISTOGRAM_MIN_BITS`] ns
/// (1 µs) and 2^[`HISTOGRAM_MAX_BITS`] ns (69 s) is cut into 2^[`HISTOGRAM_SUB_BITS`] equal parts, so a bucket is at most 6.25 %
/// wide and its middle at most 3.2 % off. What is shorter or longer counts in the first or last bucket.
pub const HISTOGRAM_MIN_BITS: u32 = 10;
/// See [`HISTOGRAM_MIN_BITS`].
pub const HISTOGRAM_MAX_BITS: u32 = 36;
/// See [`HISTOGRAM_MIN_BITS`].
pub const HISTOGRAM_SUB_BITS: u32 = 4;
/// Number of buckets.
pub const HISTOGRAM_BUCKETS: usize =
    ((HISTOGRAM_MAX_BITS - HISTOGRAM_MIN_BITS) << HISTOGRAM_SUB_BITS) as usize;

/// A log-linear histogram of times.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Histogram {
    /// Counts by bucket; see [`bucket_of`].
    pub counts: [u32; HISTOGRAM_BUCKETS],
}
const _: () = assert!(size_of::<Histogram>() == 1664);

/// The bucket that a time of `ns` belongs to.
#[must_use]
pub const fn bucket_of(ns: u64) -> usize {
    if ns < 1 << HISTOGRAM_MIN_BITS {
        return 0;
    }
    if ns >= 1 << HISTOGRAM_MAX_BITS {
        return HISTOGRAM_BUCKETS - 1;
    }
    let power = 63 - ns.leading_zeros();
    let part = (ns >> (power - HISTOGRAM_SUB_BITS)) & ((1 << HISTOGRAM_SUB_BITS) - 1);
    (((power - HISTOGRAM_MIN_BITS) << HISTOGRAM_SUB_BITS) as usize) + part as usize
}

/// The shortest time of a bucket, ns; of one past the last, the end of the last.
#[must_use]
pub const fn bucket_start(bucket: usize) -> u64 {
    let power = HISTOGRAM_MIN_BITS + (bucket >> HISTOGRAM_SUB_BITS) as u32;
    let part = (bucket & ((1 << HISTOGRAM_SUB_BITS) - 1)) as u64;
    (1 << power) + (part << (power - HISTOGRAM_SUB_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket() {
        let mut ns = 1 << HISTOGRAM_MIN_BITS;
        while ns < 1 << HISTOGRAM_MAX_BITS {
            for at in [ns, ns + 1, ns + ns / 3, ns * 2 - 1] {
                let bucket = bucket_of(at);
                assert!(bucket_start(bucket) <= at && at < bucket_start(bucket + 1), "{at} in {bucket}");
            }
            ns *= 2;
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), HISTOGRAM_BUCKETS - 1);
    }
}
