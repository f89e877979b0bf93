//! The bind hash: which sockets hold a port.

use tcptrace_common::ABSENT;

use super::{Access, Net, Probed, Sock, layout};
use crate::table::forgotten_word;

/// `struct inet_bind_bucket` of one port in one namespace.
#[derive(Clone, Copy)]
pub struct Bucket(u64);

/// How many buckets of a hash chain, and second-level buckets of a bucket, are looked at: chains are short (the table
/// is sized for the host's memory), and a bound keeps the verifier and the host safe.
const CHAIN: u32 = 64;

/// Chain head of `port` in the namespace of `sk`; 0 when this kernel's hash cannot be found.
#[inline(always)]
fn chain<A: Access>(sk: Sock<A>, net: Net<A>, port: u16) -> u64 {
    // Per namespace since 6.1 (tcp_death_row.hashinfo); before, of the protocol (sk_prot->h.hashinfo).
    let info: u64 = if layout!(net_hashinfo) != ABSENT {
        Probed::read(net.id(), layout!(net_hashinfo))
    } else if layout!(proto_hashinfo) != ABSENT {
        let prot: u64 = Probed::read(sk.id(), layout!(skc_prot));
        Probed::read(prot, layout!(proto_hashinfo))
    } else {
        0
    };
    if info == 0 {
        return 0;
    }
    let table: u64 = Probed::read(info, layout!(hashinfo_bhash));
    let size: u32 = Probed::read(info, layout!(hashinfo_bhash_size));
    let mix: u32 =
        if layout!(net_hash_mix) == ABSENT { 0 } else { Probed::read(net.id(), layout!(net_hash_mix)) };
    // inet_bhashfn(): (port + net_hash_mix(net)) & (size - 1)
    let index = u32::from(port).wrapping_add(mix) & size.wrapping_sub(1);
    table + u64::from(index) * u64::from(layout!(bhash_bucket_size)) + u64::from(layout!(bhash_bucket_chain))
}

impl Bucket {
    /// The bucket of `port` in the namespace of `sk`. The bind lock is not held: best effort, and nothing is followed
    /// but through reads that may fail.
    #[inline(always)]
    pub fn find<A: Access>(sk: Sock<A>, port: u16) -> Option<Self> {
        let net = sk.net();
        let head = chain(sk, net, port);
        if head == 0 {
            return None;
        }
        let mut node: u64 = Probed::read(head, 0);
        for _ in 0..CHAIN {
            if node == 0 {
                break;
            }
            let bucket = node - u64::from(layout!(tb_node));
            let bucket_port: u16 = Probed::read(bucket, layout!(tb_port));
            let bucket_net: u64 = Probed::read(bucket, layout!(tb_net));
            if bucket_port == port && bucket_net == net.id() {
                return Some(Self(bucket));
            }
            node = Probed::read(node, 0);
        }
        None
    }

    /// `fastreuse` in byte 0, `fastreuseport` in byte 1.
    #[inline(always)]
    pub fn reuse_state(self) -> u32 {
        let fastreuse: u8 = Probed::read(self.0, layout!(tb_fastreuse));
        let fastreuseport: u8 = Probed::read(self.0, layout!(tb_fastreuseport));
        u32::from(fastreuse) | u32::from(fastreuseport) << 8
    }

    /// Where to begin walking its owners.
    #[inline(always)]
    pub fn owners(self) -> Owners {
        if layout!(tb_bhash2) != ABSENT {
            // Since 6.8 the owners hang below second-level buckets, one for each bound address.
            let second: u64 = Probed::read(self.0, layout!(tb_bhash2));
            let mut owners = Owners { node: 0, second };
            owners.descend();
            owners
        } else {
            Owners { node: Probed::read(self.0, layout!(tb_owners)), second: 0 }
        }
    }
}

/// A walk over the sockets that own a bind bucket.
pub struct Owners {
    /// Link of the current socket.
    node: u64,
    /// Link of the second-level bucket whose owners come next; 0 before 6.8.
    second: u64,
}

impl Owners {
    /// Goes to the first owner below the next second-level bucket.
    #[inline(always)]
    fn descend(&mut self) {
        if self.second != 0 {
            let bucket = self.second - u64::from(layout!(tb2_bhash_node));
            self.node = Probed::read(bucket, layout!(tb2_owners));
            self.second = Probed::read(self.second, 0);
        }
    }

    /// The current owner, if any, and one step on. A step may find no owner though more follow (an empty second-level
    /// bucket): [`Self::is_done`] tells.
    #[inline(always)]
    pub fn step(&mut self) -> Option<Sock<Probed>> {
        let at = self.node;
        if at != 0 {
            self.node = Probed::read(at, 0);
        }
        if self.node == 0 && layout!(tb_bhash2) != ABSENT {
            self.descend();
        }
        // However this step ended, the next one begins alike for the verifier: one state instead of four at each of many steps.
        self.node = forgotten_word(self.node);
        self.second = forgotten_word(self.second);
        (at != 0).then(|| Sock::at(at - u64::from(layout!(skc_bind_node))))
    }

    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.node == 0 && self.second == 0
    }
}
