//! `struct request_sock`.

use tcptrace_common::{
    ABSENT,
    record::{REQUEST_ACKED, REQUEST_DEFERRED},
    wire::{AF_INET6, Endpoints},
};

use super::{Access as _, Probed, Sock, address::mapped, layout};

/// `struct request_sock`: a half-open request. Always probed: in its timer's handler it is reached through its timer, which
/// no type says.
#[derive(Clone, Copy)]
pub struct Request(u64);

impl Request {
    #[inline(always)]
    pub fn at(at: u64) -> Self {
        Self(at)
    }

    /// The request that owns a timer (`from_timer(req, t, rsk_timer)`).
    #[inline(always)]
    pub fn of_timer(timer: u64) -> Self {
        Self(timer.wrapping_sub(u64::from(layout!(req_timer))))
    }

    #[inline(always)]
    pub fn id(self) -> u64 {
        self.0
    }

    /// What it shares with sockets: its addresses.
    #[inline(always)]
    pub fn sock(self) -> Sock<Probed> {
        Sock::at(self.0)
    }

    /// Its listener; address 0 for none.
    #[inline(always)]
    pub fn listener(self) -> Sock<Probed> {
        Sock::at(Probed::read(self.0, layout!(req_listener)))
    }

    /// How often its timer ran out.
    #[inline(always)]
    pub fn timeouts(self) -> u32 {
        let byte: u8 = Probed::read(self.0, layout!(req_num_timeout));
        u32::from(byte >> layout!(req_num_timeout_shift)) & 0x7f
    }

    /// It is still in the table where packets find it.
    #[inline(always)]
    pub fn is_hashed(self) -> bool {
        Probed::read::<u64>(self.0, layout!(req_hash_link)) != 0
    }

    /// Bit set of `record::REQUEST_*`.
    #[inline(always)]
    pub fn flags(self) -> u32 {
        let mut flags = 0;
        if layout!(req_acked) != ABSENT {
            let byte: u8 = Probed::read(self.0, layout!(req_acked));
            if (byte >> layout!(req_acked_shift)) & 1 != 0 {
                flags |= REQUEST_ACKED;
            }
        }
        if self.listener().defers_accept() {
            flags |= REQUEST_DEFERRED;
        }
        flags
    }

    /// When its first SYN-ACK was sent, µs of `CLOCK_MONOTONIC`; 0 for never.
    #[inline(always)]
    pub fn first_synack_us(self) -> u64 {
        Probed::read(self.0, layout!(req_snt_synack))
    }

    /// The ends of the request. Its family is its listener's, so that of an IPv4 peer of an IPv6 listener is told by its
    /// IPv6 address not being set.
    #[inline(always)]
    pub fn fill_endpoints(self, to: &mut Endpoints) {
        let request = self.sock();
        request.fill_endpoints(to, request.local_port());
        let v4: u32 = Probed::read(self.0, layout!(skc_daddr));
        if to.family == AF_INET6 && v4 != 0 && to.remote == [0; 16] {
            to.remote = mapped(v4);
            to.local = mapped(Probed::read(self.0, layout!(skc_rcv_saddr)));
        }
    }
}
